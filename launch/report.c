/* report.c - see report.h. The script lies in the checkout that the program was built from, or
 * where the install put it: ../share/twinstream beside the program's folder. */
#include "launch/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/file.h"

ts_status ts_report_command(int argc, char **argv)
{
    char program[900], installed[1024];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    TS_NEED(n > 0, TS_EIO, "cannot tell where this program lies: %s", strerror(errno));
    program[n] = 0;
    *strrchr(program, '/') = 0;
    TS_TRY(ts_file_join(installed, sizeof installed, program, "../share/twinstream/launch/report"));
    const char *script = ts_file_exists(installed) ? installed : TS_LAUNCH_FOLDER "/report";
    TS_NEED(ts_file_exists(script), TS_EIO,
            "the report's script is neither %s nor %s: install the program again, or run "
            "launch/report from a checkout",
            installed, script);
    char **arguments = calloc((size_t)argc + 1, sizeof *arguments);
    TS_NEED(arguments, TS_ENOMEM, "no memory for %d arguments", argc);
    memcpy(arguments, argv, (size_t)argc * sizeof *arguments);
    execv(script, arguments);
    int reason = errno;
    free(arguments);
    return TS_ERROR(TS_EIO, "cannot run %s: %s%s", script, strerror(reason),
                    reason == ENOENT ? "; install python3" : "");
}
