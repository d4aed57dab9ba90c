/* program.c - see program.h. */
#include "perf/program.h"

#include <stdlib.h>

#include "runtime/base/log.h"

void ts_program_options(const char *title, const ts_option *rows, void *settings,
                        const bool *help_p, int argc, char **argv)
{
    const ts_option_group group = {title, rows, settings};
    static ts_option_set *options; /* never closed: texts lie in it */
    ts_status status = ts_option_set_open(&group, 1, &options);
    if (!status) status = ts_option_set_parse(options, argc, argv);
    if (status) {
        ts_log_failure(status);
        exit(ts_status_exit_code(status));
    }
    if (!*help_p) return;
    ts_option_set_help(options, stdout);
    exit(0);
}
