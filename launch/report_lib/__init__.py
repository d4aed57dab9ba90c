"""launch/report in parts: runs (what the folders hold), charts (gnuplot), page (HTML)."""
