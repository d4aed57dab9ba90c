# shellcheck shell=sh
# expect.sh - what tests of commands share; sourced, in a folder where `out` may be written. The test
# ends with `verdict`.
passed=0 failed=0
most_lines= # that a command may say; empty: any number

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAILED: $*"; }

# expect CODE "TEXT|TEXT" COMMAND...: the exit code, and every text in what it said
expect() {
    code=$1 texts=$2
    shift 2
    "$@" >out 2>&1 </dev/null
    got=$?
    missing=
    old=$IFS IFS='|'
    for text in $texts; do grep -qF -- "$text" out || missing="$missing [$text]"; done
    IFS=$old
    if [ $got -eq "$code" ] && [ -z "$missing" ] && [ "$(wc -l <out)" -le "${most_lines:-1000000}" ]; then
        pass
    else
        fail "$*"
        echo "  exit code $got, expected $code; lines at most: ${most_lines:-any}; missing in its words:$missing"
        sed 's/^/  | /' out
    fi
}

same() { # same TEXT FILE FILE
    if cmp -s "$2" "$3"; then pass; else fail "$1"; fi
}

differ() { # differ TEXT FILE FILE: both there, and not the same
    cmp -s "$2" "$3"
    if [ $? -eq 1 ]; then pass; else fail "$1"; fi
}

is() { # is TEXT VALUE EXPECTED
    if [ "$2" = "$3" ]; then pass; else fail "$1: [$2], not [$3]"; fi
}

verdict() {
    echo "$passed passed, $failed failed"
    [ $failed -eq 0 ]
}
