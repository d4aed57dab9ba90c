/* program.h - the options of a benchmark. */
#ifndef TS_PERF_PROGRAM_H
#define TS_PERF_PROGRAM_H

#include "runtime/base/option.h"

/* Reads the environment and the command line into `settings`. Ends the program after --help, the
 * row of `help_p`, and, with a message, when an option is wrong. Texts live as long as the program.
 */
void ts_program_options(const char *title, const ts_option *rows, void *settings,
                        const bool *help_p, int argc, char **argv);

#endif
