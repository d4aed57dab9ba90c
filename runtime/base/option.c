/* option.c - values into config structs by their rows, and back to text.
 *
 * Every source ends in ts_option_set_value, so all of them check alike. */
#include "runtime/base/option.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/file.h"
#include "runtime/base/log.h"

#define PREFIX "TWINSTREAM_"
enum { WIDTH = 100, VALUE_BYTES = 1024 };

/* A text that some field points to. */
typedef struct text {
    struct text *next;
    char value[];
} text;

struct ts_option_set {
    ts_option_group *groups;
    int n_groups;
    text *texts;
};

#define EACH_OPTION(set, group, row)                                                               \
    for (const ts_option_group *group = (set)->groups; group < (set)->groups + (set)->n_groups;    \
         group++)                                                                                  \
        for (const ts_option *row = group->rows; row->key; row++)

static void *field(const ts_option_group *group, const ts_option *row)
{
    return (char *)group->config + row->offset;
}

/* ---- the nearest known word ---- */

static int distance(const char *a, size_t n, const char *b, size_t m)
{
    int row[65];
    if (m > 64) m = 64;
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int change = diagonal + (tolower((unsigned char)a[i - 1]) != b[j - 1]);
            int least = change;
            diagonal = row[j];
            if (row[j] + 1 < least) least = row[j] + 1;
            if (row[j - 1] + 1 < least) least = row[j - 1] + 1;
            row[j] = least;
        }
    }
    return row[m];
}

const char *ts_option_nearest(const char *word, const char *words)
{
    static _Thread_local char answer[128];
    size_t n = strlen(word), best_n = 0;
    int best = 1 << 20;
    for (const char *at = words; *at;) {
        size_t m = strcspn(at, "|");
        int d = distance(word, n, at, m);
        /* the beginning of a word is near it: --learn */
        if (n >= 3 && n < m && !strncmp(word, at, n)) d = 1;
        if (d < best && m < sizeof answer) {
            best = d;
            best_n = m;
            memcpy(answer, at, m);
        }
        at += m + (at[m] == '|');
    }
    answer[best_n < sizeof answer ? best_n : 0] = 0;
    int most = n < 3 ? 1 : (int)(n < best_n ? n : best_n) / 2;
    return best <= most ? answer : NULL;
}

static ts_status unknown_key(const ts_option_set *set, const char *key, const char *source)
{
    char words[4096] = "config";
    EACH_OPTION(set, group, row)
    snprintf(words + strlen(words), sizeof words - strlen(words), "|%s", row->key);
    const char *near = ts_option_nearest(key, words);
    return TS_ERROR(TS_EUSAGE, "unknown option \"%s\" (%s)%s%s%s; --help lists them", key, source,
                    near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

/* ---- values ---- */

static ts_status bad(const ts_option *row, const char *value, const char *source, const char *want)
{
    return TS_ERROR(TS_EUSAGE, "%s = \"%s\" (%s): %s", row->key, value, source, want);
}

static ts_status check_range(const ts_option *row, const char *value, const char *source, double x)
{
    char want[128];
    if (!(row->min < row->max) || (x >= row->min && x <= row->max)) return TS_OK;
    snprintf(want, sizeof want, "must be within %.15g and %.15g%s%s", row->min, row->max,
             row->choices ? ", or " : "", row->choices ? row->choices : "");
    return bad(row, value, source, want);
}

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *at = choices; *at;) {
        size_t m = strcspn(at, "|");
        if (m == n && !strncmp(at, value, n)) return true;
        at += m + (at[m] == '|');
    }
    return false;
}

static ts_status set_text(ts_option_set *set, const ts_option *row, const char *value,
                          const char **to)
{
    size_t n = strlen(value) + 1;
    text *copy = malloc(sizeof *copy + n);
    TS_NEED(copy, TS_ENOMEM, "no memory for option %s", row->key);
    memcpy(copy->value, value, n);
    copy->next = set->texts;
    set->texts = copy;
    *to = copy->value;
    return TS_OK;
}

static ts_status set_field(ts_option_set *set, const ts_option_group *group, const ts_option *row,
                           const char *value, const char *source)
{
    void *to = field(group, row);
    char *end;
    errno = 0;
    switch (row->type) {
    case TS_OPTION_BOOL:
        if (!*value || !(is_choice("yes|on|true|1", value) || is_choice("no|off|false|0", value)))
            return bad(row, value, source, "must be yes or no");
        *(bool *)to = is_choice("yes|on|true|1", value);
        return TS_OK;
    case TS_OPTION_INT: {
        char want[128];
        if (row->choices && !strcmp(value, row->choices)) {
            *(int64_t *)to = 0;
            return TS_OK;
        }
        snprintf(want, sizeof want, "must be a whole number%s%s", row->choices ? " or " : "",
                 row->choices ? row->choices : "");
        long long x = strtoll(value, &end, 10);
        if (end == value || *end || errno) return bad(row, value, source, want);
        TS_TRY(check_range(row, value, source, (double)x));
        *(int64_t *)to = x;
        return TS_OK;
    }
    case TS_OPTION_REAL: {
        char want[128];
        if (row->choices && !strcmp(value, row->choices)) {
            *(double *)to = 0;
            return TS_OK;
        }
        snprintf(want, sizeof want, "must be a number%s%s", row->choices ? " or " : "",
                 row->choices ? row->choices : "");
        double x = strtod(value, &end);
        if (end == value || *end || !isfinite(x)) return bad(row, value, source, want);
        TS_TRY(check_range(row, value, source, x));
        *(double *)to = x;
        return TS_OK;
    }
    case TS_OPTION_CHOICE:
        if (!*value || !is_choice(row->choices, value)) {
            char want[512];
            const char *near = ts_option_nearest(value, row->choices);
            snprintf(want, sizeof want, "must be one of %s%s%s%s", row->choices,
                     near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
            return bad(row, value, source, want);
        }
        /* fall through */
    case TS_OPTION_TEXT:
        return set_text(set, row, value, to);
    }
    return TS_OK;
}

static void get_field(const ts_option_group *group, const ts_option *row, char *value)
{
    const void *from = field(group, row);
    switch (row->type) {
    case TS_OPTION_BOOL:
        snprintf(value, VALUE_BYTES, "%s", *(const bool *)from ? "yes" : "no");
        break;
    case TS_OPTION_INT:
        if (row->choices && *(const int64_t *)from == 0)
            snprintf(value, VALUE_BYTES, "%s", row->choices);
        else
            snprintf(value, VALUE_BYTES, "%lld", (long long)*(const int64_t *)from);
        break;
    case TS_OPTION_REAL:
        if (row->choices && !(*(const double *)from > 0)) {
            snprintf(value, VALUE_BYTES, "%s", row->choices);
            break;
        }
        /* the shortest text that reads back the same */
        for (int digits = 6; digits <= 17; digits++) {
            snprintf(value, VALUE_BYTES, "%.*g", digits, *(const double *)from);
            if (strtod(value, NULL) == *(const double *)from) break;
        }
        break;
    case TS_OPTION_CHOICE:
    case TS_OPTION_TEXT:
        snprintf(value, VALUE_BYTES, "%s", *(const char *const *)from);
        break;
    }
}

static const ts_option *find(const ts_option_set *set, const char *key,
                             const ts_option_group **group_p)
{
    EACH_OPTION(set, group, row)
    {
        if (strcmp(row->key, key)) continue;
        *group_p = group;
        return row;
    }
    return NULL;
}

ts_status ts_option_set_value(ts_option_set *set, const char *key, const char *value,
                              const char *source)
{
    const ts_option_group *group;
    const ts_option *row = find(set, key, &group);
    return row ? set_field(set, group, row, value, source) : unknown_key(set, key, source);
}

/* ---- open and close ---- */

ts_status ts_option_set_open(const ts_option_group *groups, int n_groups, ts_option_set **set_p)
{
    ts_status status;
    ts_option_set *set = calloc(1, sizeof *set);
    TS_NEED(set, TS_ENOMEM, "no memory for the options");
    set->groups = malloc((size_t)n_groups * sizeof *groups);
    if (!set->groups) {
        status = TS_ERROR(TS_ENOMEM, "no memory for the options");
        goto fail;
    }
    memcpy(set->groups, groups, (size_t)n_groups * sizeof *groups);
    set->n_groups = n_groups;
    EACH_OPTION(set, group, row)
    {
        const ts_option_group *first;
        if (find(set, row->key, &first) != row) {
            status = TS_ERROR(TS_EUSAGE, "two option rows have the key \"%s\"", row->key);
            goto fail;
        }
        TS_TRY_TO(status, fail, set_field(set, group, row, row->initial, "initial value"));
    }
    *set_p = set;
    return TS_OK;
fail:
    ts_option_set_close(set);
    return status;
}

void ts_option_set_close(ts_option_set *set)
{
    if (!set) return;
    while (set->texts) {
        text *next = set->texts->next;
        free(set->texts);
        set->texts = next;
    }
    free(set->groups);
    free(set);
}

ts_status ts_option_parse_list(const ts_option_group *group, const char *list, const char *source)
{
    char text[1024];
    ts_option_set *set;
    TS_NEED(strlen(list) < sizeof text, TS_EUSAGE, "%s: \"%s\" is too long", source, list);
    snprintf(text, sizeof text, "%s", list);
    TS_TRY(ts_option_set_open(group, 1, &set));
    ts_status status = TS_OK;
    char *rest = text;
    for (char *part = strtok_r(text, ",", &rest); part && !status;
         part = strtok_r(NULL, ",", &rest)) {
        char *equals = strchr(part, '=');
        if (!equals) {
            status = TS_ERROR(TS_EUSAGE, "%s: \"%s\" is not key=value", source, part);
            break;
        }
        *equals = 0;
        status = ts_option_set_value(set, part, equals + 1, source);
    }
    ts_option_set_close(set);
    return status;
}

/* ---- sources ---- */

static char *trim(char *line)
{
    while (isspace((unsigned char)*line)) line++;
    size_t n = strlen(line);
    while (n && isspace((unsigned char)line[n - 1])) line[--n] = 0;
    return line;
}

ts_status ts_option_set_load(ts_option_set *set, const char *path)
{
    void *bytes;
    size_t n;
    ts_status status = TS_OK;
    int number = 0;
    TS_TRY(ts_file_read(path, &bytes, &n));
    for (char *line = bytes; line && !status;) {
        char source[600], *next = strchr(line, '\n');
        if (next) *next++ = 0;
        number++;
        char *key = trim(line), *equals = strchr(key, '=');
        if (*key == '#') *key = 0; /* a value may hold one, so a comment has its own line */
        snprintf(source, sizeof source, "%s line %d", path, number);
        if (*key && !equals) {
            status = TS_ERROR(TS_EUSAGE, "%s: \"%s\" is not \"key = value\"", source, key);
        } else if (*key) {
            *equals = 0;
            status = ts_option_set_value(set, trim(key), trim(equals + 1), source);
        }
        line = next;
    }
    free(bytes);
    return status;
}

static void environment_name(const char *key, char *name, size_t bytes)
{
    snprintf(name, bytes, PREFIX "%s", key);
    for (char *c = name; *c; c++) *c = (char)(*c == '-' ? '_' : toupper((unsigned char)*c));
}

static ts_status read_environment(ts_option_set *set)
{
    EACH_OPTION(set, group, row)
    {
        char name[96];
        environment_name(row->key, name, sizeof name);
        const char *value = getenv(name);
        if (value) TS_TRY(set_field(set, group, row, value, name));
    }
    return TS_OK;
}

/* The argument at *i: its key, and its value from "=value", a bool's form, or the next one. */
static ts_status take(const ts_option_set *set, int argc, char **argv, int *i, char *key,
                      size_t bytes, const char **value_p)
{
    const char *argument = argv[*i];
    TS_NEED(!strncmp(argument, "--", 2) && argument[2], TS_EUSAGE,
            "\"%s\" is not an option: options begin with --", argument);
    size_t n = strcspn(argument + 2, "=");
    snprintf(key, bytes, "%.*s", (int)n, argument + 2);
    if (argument[2 + n]) {
        *value_p = argument + 2 + n + 1;
        return TS_OK;
    }
    const ts_option_group *group;
    const ts_option *row = find(set, key, &group);
    const char *next = *i + 1 < argc && strncmp(argv[*i + 1], "--", 2) ? argv[*i + 1] : NULL;
    if (row && row->type == TS_OPTION_BOOL) {
        *value_p = next ? next : "yes";
        *i += next != NULL;
        return TS_OK;
    }
    if (!row && !strncmp(key, "no-", 3)) {
        const ts_option *positive = find(set, key + 3, &group);
        if (positive && positive->type == TS_OPTION_BOOL) {
            memmove(key, key + 3, strlen(key + 3) + 1);
            *value_p = "no";
            return TS_OK;
        }
    }
    if (!row && strcmp(key, "config")) return unknown_key(set, key, "command line");
    TS_NEED(next, TS_EUSAGE, "--%s needs a value", key);
    *value_p = next;
    (*i)++;
    return TS_OK;
}

static ts_status read_arguments(ts_option_set *set, int argc, char **argv, bool files)
{
    for (int i = 1; i < argc; i++) {
        char key[128];
        const char *value = "";
        TS_TRY(take(set, argc, argv, &i, key, sizeof key, &value));
        bool is_file = !strcmp(key, "config");
        if (is_file && files) TS_TRY(ts_option_set_load(set, value));
        if (!is_file && !files) TS_TRY(ts_option_set_value(set, key, value, "command line"));
    }
    return TS_OK;
}

ts_status ts_option_set_parse(ts_option_set *set, int argc, char **argv)
{
    TS_TRY(read_arguments(set, argc, argv, true));
    TS_TRY(read_environment(set));
    return read_arguments(set, argc, argv, false);
}

/* The values of a row's selector that read it, "cocod, dasgd". */
static void list_readers(const ts_option *row, char *list)
{
    const char *separator = "", *word = row->readers;
    for (int n = 0; *word; word += strcspn(word, "|"), word += *word == '|') {
        n += snprintf(list + n, (size_t)(VALUE_BYTES - n), "%s%.*s", separator,
                      (int)strcspn(word, "|"), word);
        separator = ", ";
    }
}

void ts_option_set_warn_unread(const ts_option_set *set)
{
    EACH_OPTION(set, group, row)
    {
        char value[VALUE_BYTES], selected[VALUE_BYTES], readers[VALUE_BYTES];
        const ts_option_group *of = NULL;
        if (!row->readers || !group->selector) continue;
        const ts_option *selector = find(set, group->selector, &of);
        get_field(of, selector, selected);
        get_field(group, row, value);
        if (is_choice(row->readers, selected) || !strcmp(value, row->initial)) continue;
        list_readers(row, readers);
        ts_warn("--%s %s has no effect with --%s %s: it is for %s", row->key, value, selector->key,
                selected, readers);
    }
}

/* ---- output ---- */

void ts_option_set_each(const ts_option_set *set,
                        void (*each)(void *context, const char *key, const char *value),
                        void *context)
{
    EACH_OPTION(set, group, row)
    {
        char value[VALUE_BYTES];
        get_field(group, row, value);
        each(context, row->key, value);
    }
}

static void save_line(void *context, const char *key, const char *value)
{
    fprintf(context, "%s = %s\n", key, value);
}

ts_status ts_option_set_save(const ts_option_set *set, const char *path)
{
    FILE *file = fopen(path, "w");
    TS_NEED(file, TS_EIO, "cannot write %s: %s", path, strerror(errno));
    ts_option_set_each(set, save_line, file);
    bool failed = ferror(file) != 0;
    if (fclose(file) || failed)
        return TS_ERROR(TS_EIO, "cannot write %s: %s: is the disk full?", path, strerror(errno));
    return TS_OK;
}

/* Words of `help` from column `indent` on, broken at WIDTH; the cursor is at `column`. */
static void wrap(FILE *out, int column, int indent, const char *help)
{
    if (column >= indent) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", indent - column, "");
    column = indent;
    while (*help) {
        int n = (int)strcspn(help, " ");
        if (column > indent && column + 1 + n > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
        column += fprintf(out, "%s%.*s", column > indent ? " " : "", n, help);
        help += n + (help[n] == ' ');
    }
    fputc('\n', out);
}

void ts_option_set_help(const ts_option_set *set, FILE *out)
{
    fprintf(out, "\nOptions, with their initial values. A later source wins: a file of \"key = "
                 "value\" lines\n(--config FILE), the environment (" PREFIX "LEARNING_RATE for "
                 "--learning-rate), the command line\n(--key value, --key=value; for yes|no also "
                 "--key and --no-key).\n");
    for (int g = 0; g < set->n_groups; g++) {
        const ts_option_group *group = &set->groups[g];
        fprintf(out, "\n%s\n", group->title);
        for (const ts_option *row = group->rows; row->key; row++) {
            char help[VALUE_BYTES], readers[VALUE_BYTES] = "";
            const char *choices = row->type == TS_OPTION_BOOL ? "yes|no" : row->choices;
            bool number = row->type == TS_OPTION_INT || row->type == TS_OPTION_REAL;
            const char *before = number ? " (or " : " (";
            if (row->readers) list_readers(row, readers);
            snprintf(help, sizeof help, "%s%s%s%s%s%s", row->help, row->readers ? "; for " : "",
                     readers, choices ? before : "", choices ? choices : "", choices ? ")" : "");
            int column = fprintf(out, "  --%s %s", row->key, row->initial);
            wrap(out, column, 36, help);
        }
    }
}
