/* option.h - one table is the parser, --help, the environment names and the saved config.
 *
 * A row describes one field of a config struct. Sources, the later winning: the row's initial
 * value, a file (--config FILE, "key = value" lines), the environment (TWINSTREAM_<KEY>, upper
 * case, '-' as '_'), the command line (--key value, --key=value; a bool also as --key and
 * --no-key). An unknown option or value is TS_EUSAGE and names the nearest known one. */
#ifndef TS_BASE_OPTION_H
#define TS_BASE_OPTION_H

#include <stdio.h>

#include "runtime/base/status.h"

typedef enum ts_option_type {
    TS_OPTION_BOOL,  /* bool: yes|no, on|off, true|false, 1|0 */
    TS_OPTION_INT,   /* int64_t; within [min, max] when min < max; or 0, as the word in `choices` */
    TS_OPTION_REAL,  /* double; the same */
    TS_OPTION_TEXT,  /* const char *, owned by the option set */
    TS_OPTION_CHOICE /* const char *, one of `choices` */
} ts_option_type;

typedef struct ts_option {
    const char *key; /* "learning-rate" */
    ts_option_type type;
    size_t offset;       /* of the field in the group's config struct */
    const char *initial; /* as text */
    const char *choices; /* "ssgd|local|cocod|dasgd"; of a number the word for 0, "auto"; or NULL */
    double min, max;
    const char *help; /* one line, with the unit */
    /* "cocod|dasgd": the values of the group's selector that read it; NULL: all */
    const char *readers;
} ts_option;

/* Rows that belong together under one heading of --help; rows end with a NULL key. */
typedef struct ts_option_group {
    const char *title;
    const ts_option *rows;
    void *config;         /* the struct the rows' offsets point into */
    const char *selector; /* key of the option that says which rows are read; NULL: all are */
} ts_option_group;

typedef struct ts_option_set ts_option_set;

/* Copies the group list (the rows and config structs are borrowed) and writes every initial
 * value. Two groups must not share a key. */
ts_status ts_option_set_open(const ts_option_group *groups, int n_groups, ts_option_set **set_p);
void ts_option_set_close(ts_option_set *set);

/* One value by key. `source` says where it came from, for the message: "--", "environment". */
ts_status ts_option_set_value(ts_option_set *set, const char *key, const char *value,
                              const char *source);
/* File, environment, command line, in this order. argv[0] is skipped. */
ts_status ts_option_set_parse(ts_option_set *set, int argc, char **argv);
/* Warns of each value that is not the initial one and that nothing reads. */
void ts_option_set_warn_unread(const ts_option_set *set);
/* A file of "key = value" lines; a line that begins with '#' is a comment. */
ts_status ts_option_set_load(ts_option_set *set, const char *path);
/* Every key with its value now, "key = value" lines that ts_option_set_load reads back. */
ts_status ts_option_set_save(const ts_option_set *set, const char *path);
/* Calls `each` for every key in table order, with its value as text. */
void ts_option_set_each(const ts_option_set *set,
                        void (*each)(void *context, const char *key, const char *value),
                        void *context);
/* "key=value,key=value" over one group: the initial values, then the list's. `source` is for
 * messages: "data synthetic". Texts and choices cannot be among the rows: the list owns nothing. */
ts_status ts_option_parse_list(const ts_option_group *group, const char *list, const char *source);
/* The body of --help: groups, keys, choices, initial values, environment names. */
void ts_option_set_help(const ts_option_set *set, FILE *out);

/* The known word nearest to `word` by edit distance, NULL when none is near. Words are separated
 * by '|'. The answer lies in a buffer of this thread. */
const char *ts_option_nearest(const char *word, const char *words);

#endif
