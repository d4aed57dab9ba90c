/* test_base.c - statuses and their trail, random numbers, bf16, options. */
#include <math.h>
#include <unistd.h>

#include "runtime/base/option.h"
#include "runtime/base/type.h"
#include "tests/check.h"

/* ---- statuses ---- */

static ts_status inner(int x)
{
    TS_NEED(x > 0, TS_EDATA, "x is %d\nand below 1", x);
    return TS_OK;
}

static ts_status outer(int x)
{
    TS_TRY(inner(x));
    return TS_OK;
}

static void test_trail(void **state)
{
    (void)state;
    assert_int_equal(outer(1), TS_OK);
    assert_int_equal(outer(0), TS_EDATA);
    assert_string_equal(ts_trail_message(), "x is 0 and below 1");
    const char *first = strstr(ts_trail(), "at "), *second = strstr(first + 1, "at ");
    assert_non_null(first);
    assert_non_null(second);
    ts_trail_clear();
    assert_int_equal(ts_status_pass("file.c", 1, TS_EPEER), TS_EPEER);
    assert_string_equal(ts_trail(), ""); /* another rank tells it */
    assert_int_equal(ts_status_exit_code(TS_EUSAGE), 64);
    assert_int_equal(ts_status_exit_code(TS_EDATA), 65);
    assert_int_equal(ts_status_exit_code(TS_EIO), 70);
    assert_int_equal(ts_status_exit_code(TS_ESTOPPED), 75);
}

/* ---- random numbers ---- */

/* Known answers of philox4x32-10, as published with the Random123 library. */
static void test_philox(void **state)
{
    (void)state;
    ts_random4 zero = ts_random(0, 0, 0), ones = ts_random(UINT64_MAX, UINT64_MAX, UINT64_MAX);
    const uint32_t zeros_known[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    const uint32_t ones_known[] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    const uint32_t pi_known[] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    ts_random4 pi = ts_random(UINT64_C(0x299f31d0a4093822), UINT64_C(0x85a308d3243f6a88),
                              UINT64_C(0x0370734413198a2e));
    assert_memory_equal(zero.v, zeros_known, sizeof zeros_known);
    assert_memory_equal(ones.v, ones_known, sizeof ones_known);
    assert_memory_equal(pi.v, pi_known, sizeof pi_known);
}

static void test_permutation(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 3000; n = n * 2 + 1) {
        bool *seen = calloc(n, sizeof *seen);
        uint64_t moved = 0;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t at = ts_random_permute(7, 1, n, i);
            assert_true(at < n && !seen[at]);
            seen[at] = true;
            moved += at != ts_random_permute(7, 2, n, i);
        }
        if (n > 100) assert_true(moved > n / 2); /* streams differ */
        free(seen);
    }
}

static void test_bf16(void **state)
{
    (void)state;
    assert_int_equal(ts_bf16_from_float(1.0f), 0x3f80);
    assert_int_equal(ts_bf16_from_float(1.00390625f), 0x3f80); /* tie, to even */
    assert_int_equal(ts_bf16_from_float(1.01171875f), 0x3f82); /* tie, to even */
    assert_int_equal(ts_bf16_from_float(1.00390637f), 0x3f81); /* just above the tie */
    assert_int_equal(ts_bf16_from_float(-INFINITY), 0xff80);
    assert_int_equal(ts_bf16_from_float(3.4e38f), 0x7f80); /* rounds to infinity */
    assert_true(isnan(ts_bf16_to_float(ts_bf16_from_float(NAN))));
    for (uint32_t h = 0; h < 0x7f80; h++)
        assert_int_equal(ts_bf16_from_float(ts_bf16_to_float((uint16_t)h)), h);
}

/* ---- options ---- */

typedef struct config {
    int64_t count, period;
    double rate, factor;
    bool fast;
    const char *name, *kind;
} config;

static const ts_option rows[] = {
    {"count", TS_OPTION_INT, offsetof(config, count), "3", NULL, 1, 10, "how many"},
    {"period", TS_OPTION_INT, offsetof(config, period), "4", "auto", 1, 100, "how often"},
    {"learning-rate", TS_OPTION_REAL, offsetof(config, rate), "0.1", NULL, 0, 0, "how fast"},
    {"factor", TS_OPTION_REAL, offsetof(config, factor), "1", "auto", 1, 50, "how many times"},
    {"fast", TS_OPTION_BOOL, offsetof(config, fast), "no", NULL, 0, 0, "or slow"},
    {"name", TS_OPTION_TEXT, offsetof(config, name), "", NULL, 0, 0, "whose"},
    {"kind", TS_OPTION_CHOICE, offsetof(config, kind), "cocod", "ssgd|cocod|dasgd", 0, 0, "which"},
    {0}};

static config c;

static ts_option_set *open_set(void)
{
    ts_option_set *set;
    const ts_option_group group = {"Test", rows, &c};
    OK(ts_option_set_open(&group, 1, &set));
    return set;
}

static ts_status parse(ts_option_set *set, int n, char **words)
{
    char *argv[16] = {"program"};
    for (int i = 0; i < n; i++) argv[i + 1] = words[i];
    return ts_option_set_parse(set, n + 1, argv);
}
#define PARSE(set, ...)                                                                            \
    parse(set, (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)), (char *[]){__VA_ARGS__})

static void test_sources(void **state)
{
    (void)state;
    char path[] = "/tmp/test_base_XXXXXX";
    int file = mkstemp(path);
    const char *text = "# a comment\ncount = 4\n learning-rate=0.4\n  # why\nname = a#b c\n\n";
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    close(file);
    ts_option_set *set = open_set();
    assert_int_equal(c.count, 3);
    setenv("TWINSTREAM_LEARNING_RATE", "0.5", 1);
    setenv("TWINSTREAM_KIND", "ssgd", 1);
    OK(PARSE(set, "--kind", "dasgd", "--config", path, "--fast"));
    unsetenv("TWINSTREAM_LEARNING_RATE");
    unsetenv("TWINSTREAM_KIND");
    assert_int_equal(c.count, 4);         /* the file */
    assert_true(c.rate == 0.5);           /* the environment over it */
    assert_string_equal(c.kind, "dasgd"); /* the command line over that */
    assert_string_equal(c.name, "a#b c");
    assert_true(c.fast);
    OK(ts_option_set_value(set, "learning-rate", "0.30000000000000004", "test"));
    OK(ts_option_set_save(set, path));
    ts_option_set_close(set);
    set = open_set();
    OK(ts_option_set_load(set, path));
    assert_true(c.rate == 0.1 + 0.2 && c.fast && c.count == 4);
    OK(PARSE(set, "--no-fast", "--count=10"));
    assert_true(!c.fast && c.count == 10);
    static const char *const words[] = {"yes", "no", "on", "off", "true", "false", "1", "0"};
    for (int i = 0; i < 8; i++) {
        OK(ts_option_set_value(set, "fast", words[i], "test"));
        assert_int_equal(c.fast, i % 2 == 0);
    }
    OK(PARSE(set, "--fast", "--count", "2"));
    assert_true(c.fast && c.count == 2);
    OK(PARSE(set, "--fast=no"));
    assert_false(c.fast);
    ts_option_set_close(set);
    unlink(path);
}

static void test_every_text_is_saved(void **state)
{
    static const char *const texts[] = {"", "plain", "a=b", "a#b", "two  words", "runs #2"};
    (void)state;
    char path[] = "/tmp/test_base_XXXXXX";
    close(mkstemp(path));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        ts_option_set *set = open_set();
        OK(ts_option_set_value(set, "name", texts[i], "test"));
        OK(ts_option_set_save(set, path));
        ts_option_set_close(set);
        set = open_set();
        OK(ts_option_set_load(set, path));
        assert_string_equal(c.name, texts[i]);
        ts_option_set_close(set);
    }
    unlink(path);
}

/* A word that stands for 0, where numbers begin at 1. */
static void test_words_for_numbers(void **state)
{
    (void)state;
    char path[] = "/tmp/test_base_XXXXXX";
    close(mkstemp(path));
    ts_option_set *set = open_set();
    assert_int_equal(c.period, 4);
    OK(PARSE(set, "--period", "auto", "--factor", "auto"));
    assert_int_equal(c.period, 0);
    assert_true(c.factor == 0);
    OK(ts_option_set_save(set, path));
    OK(PARSE(set, "--period=7", "--factor=1.5"));
    assert_int_equal(c.period, 7);
    assert_true(c.factor == 1.5);
    OK(ts_option_set_load(set, path)); /* the words were saved */
    assert_int_equal(c.period, 0);
    assert_true(c.factor == 0);
    setenv("TWINSTREAM_PERIOD", "auto", 1);
    OK(ts_option_set_value(set, "period", "5", "test"));
    OK(PARSE(set, "--fast"));
    unsetenv("TWINSTREAM_PERIOD");
    assert_int_equal(c.period, 0);
    ts_option_set_close(set);
    unlink(path);
}

static void refused(const char *part, ts_status status)
{
    assert_int_equal(status, TS_EUSAGE);
    if (!strstr(ts_trail_message(), part))
        fail_msg("\"%s\" is not in \"%s\"", part, ts_trail_message());
}

/* One group from a list within a text, as behind --data. */
static void test_lists(void **state)
{
    static const ts_option numbers[] = {
        {"count", TS_OPTION_INT, offsetof(config, count), "3", NULL, 1, 10, "how many"},
        {"factor", TS_OPTION_REAL, offsetof(config, factor), "1", "auto", 1, 50, "how many times"},
        {0}};
    const ts_option_group group = {"numbers", numbers, &c};
    (void)state;
    OK(ts_option_parse_list(&group, "", "it"));
    assert_true(c.count == 3 && c.factor == 1);
    OK(ts_option_parse_list(&group, "factor=2.5,count=4", "it"));
    assert_true(c.count == 4 && c.factor == 2.5);
    refused("it: \"count\" is not key=value", ts_option_parse_list(&group, "count", "it"));
    refused("did you mean \"count\"", ts_option_parse_list(&group, "cuont=4", "it"));
    refused("within 1 and 10", ts_option_parse_list(&group, "count=11", "it"));
}

static void test_bad_options(void **state)
{
    (void)state;
    ts_option_set *set = open_set();
    refused("did you mean \"count\"", PARSE(set, "--cuont", "4"));
    refused("did you mean \"learning-rate\"", PARSE(set, "--learn", "4"));
    refused("did you mean \"cocod\"", PARSE(set, "--kind", "cocdo"));
    refused("within 1 and 10", PARSE(set, "--count", "11"));
    refused("whole number", PARSE(set, "--count", "1.5"));
    refused("a number", PARSE(set, "--learning-rate", "fast"));
    refused("a number", PARSE(set, "--learning-rate", "nan"));
    refused("yes or no", PARSE(set, "--fast=maybe"));
    refused("needs a value", PARSE(set, "--count"));
    refused("must be a whole number or auto", PARSE(set, "--period", "atuo"));
    refused("must be a number or auto", PARSE(set, "--factor", "atuo"));
    refused("within 1 and 50, or auto", PARSE(set, "--factor", "0.5"));
    refused("within 1 and 100, or auto", PARSE(set, "--period", "0"));
    refused("must be a whole number", PARSE(set, "--count", "auto"));
    refused("begin with --", PARSE(set, "count", "4"));
    refused("within 1 and 10", PARSE(set, "--count", "-1"));
    refused("unknown option \"no-count\"", PARSE(set, "--no-count"));
    assert_int_equal(PARSE(set, "--config", "/no/such/file"), TS_EDATA);
    setenv("TWINSTREAM_COUNT", "many", 1);
    refused("TWINSTREAM_COUNT", PARSE(set, "--no-fast"));
    unsetenv("TWINSTREAM_COUNT");
    assert_int_equal(c.count, 3); /* nothing of all this was taken */
    assert_null(ts_option_nearest("zzzzz", "ssgd|cocod"));
    ts_option_set_close(set);
}

static void test_help(void **state)
{
    (void)state;
    char text[8192] = "";
    ts_option_set *set = open_set();
    FILE *out = fmemopen(text, sizeof text - 1, "w");
    ts_option_set_help(set, out);
    fclose(out);
    for (const ts_option *row = rows; row->key; row++) {
        assert_non_null(strstr(text, row->key));
        assert_non_null(strstr(text, row->help));
    }
    assert_non_null(strstr(text, "how often (or auto)"));
    assert_non_null(strstr(text, "how many times (or auto)"));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) <= 100);
    ts_option_set_close(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trail),
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_every_text_is_saved),
        cmocka_unit_test(test_words_for_numbers),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
