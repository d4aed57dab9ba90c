/* pack.c - see pack.h. */
#include "launch/pack.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/base/option.h"
#include "runtime/data/records.h"

static struct settings {
    bool skip_bad, help;
} set;

static const ts_option rows[] = {
    {"skip-bad", TS_OPTION_BOOL, offsetof(struct settings, skip_bad), "no", NULL, 0, 0,
     "leave out pictures that cannot be decoded, with a warning, instead of stopping at the first"},
    {"help", TS_OPTION_BOOL, offsetof(struct settings, help), "no", NULL, 0, 0, "this text"},
    {0}};

static void usage(const ts_option_set *options)
{
    printf(
        "usage: twinstream pack FOLDER OUT [--option value ...]\n"
        "Packs the JPEG pictures of FOLDER/train/CLASS/ and FOLDER/val/CLASS/ (or test/), as they "
        "are, into\none file that --data records:OUT reads; an OUT that is a folder gets %s.\n",
        TS_RECORDS_NAME);
    ts_option_set_help(options, stdout);
}

static ts_status pack(const char *folder, const char *to)
{
    char out[1024];
    ts_pack_result r;
    int64_t start = ts_clock_ns();
    if (ts_file_is_folder(to))
        TS_TRY(ts_file_join(out, sizeof out, to, TS_RECORDS_NAME));
    else
        snprintf(out, sizeof out, "%s", to);
    TS_TRY(ts_records_pack(folder, out, set.skip_bad, &r));
    if (r.others)
        ts_warn("%lld files of %s are no JPEG by their name (.jpg, .jpeg) or lie beside the class "
                "folders; they are not in",
                (long long)r.others, folder);
    if (r.left_out)
        ts_warn("%lld pictures could not be decoded; they are not in", (long long)r.left_out);
    ts_info("%s: %lld training and %lld test pictures of %lld classes, %.1f MB, in %.1f s", out,
            (long long)r.train, (long long)r.test, (long long)r.classes, r.bytes * 1e-6,
            (double)(ts_clock_ns() - start) * 1e-9);
    return TS_OK;
}

ts_status ts_pack_command(int argc, char **argv)
{
    ts_option_set *options;
    const ts_option_group group = {"Options", rows, &set};
    int names = 0; /* arguments before the options: argv[0] stands before them */
    while (names + 1 < argc && strncmp(argv[names + 1], "--", 2)) names++;
    TS_TRY(ts_option_set_open(&group, 1, &options));
    ts_status status = ts_option_set_parse(options, argc - names, argv + names);
    if (!status && set.help)
        usage(options);
    else if (!status && names != 2)
        status = TS_ERROR(TS_EUSAGE, "pack what into which file? twinstream pack FOLDER OUT");
    else if (!status)
        status = pack(argv[1], argv[2]);
    ts_option_set_close(options);
    return status;
}
