/* cifar.c - CIFAR-10 and CIFAR-100 in the binary layout of the original download
 * (Krizhevsky: "Learning multiple layers of features from tiny images", 2009): records of a label
 * byte (CIFAR-100: coarse, then fine; the fine one counts) and three planes of 32x32 bytes.
 * Files with fewer records than the original's are fine; anything but whole records is not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/file.h"
#include "runtime/data/dataset.h"

enum { SIDE = 32, PICTURE = 3 * SIDE * SIDE };

typedef struct layout {
    const char *folder;          /* of the download, inside DIR or DIR itself */
    const char *train[6], *test; /* file names; train ends with NULL */
    int labels, classes;         /* label bytes of a record; the last one counts */
} layout;

static const layout cifar10 = {"cifar-10-batches-bin",
                               {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                "data_batch_4.bin", "data_batch_5.bin", NULL},
                               "test_batch.bin",
                               1,
                               10};
static const layout cifar100 = {"cifar-100-binary", {"train.bin", NULL}, "test.bin", 2, 100};

/* Append the records of one file. */
static ts_status append(const layout *l, const char *path, ts_pictures *to)
{
    unsigned char *bytes;
    size_t size, record = (size_t)l->labels + PICTURE;
    TS_TRY(ts_file_read(path, (void **)&bytes, &size));
    size_t n = size / record, before = (size_t)to->n;
    if (!n || size % record) {
        free(bytes);
        return TS_ERROR(TS_EDATA,
                        "%s has %zu bytes, which is no whole number of records of %zu bytes: it is "
                        "cut off or of another format; download it again",
                        path, size, record);
    }
    uint8_t *images = realloc(to->images, (before + n) * PICTURE);
    if (images) to->images = images;
    uint16_t *labels = realloc(to->labels, (before + n) * sizeof *labels);
    if (labels) to->labels = labels;
    if (!images || !labels) {
        free(bytes);
        return TS_ERROR(TS_ENOMEM, "no memory for the %zu pictures of %s", n, path);
    }
    ts_status status = TS_OK;
    for (size_t i = 0; i < n && !status; i++) {
        const unsigned char *at = bytes + i * record;
        int label = at[l->labels - 1];
        if (label >= l->classes)
            status =
                TS_ERROR(TS_EDATA,
                         "%s: record %zu has the label %d, labels are 0 to %d: it is corrupted "
                         "or of another format; download it again",
                         path, i, label, l->classes - 1);
        labels[before + i] = (uint16_t)label;
        memcpy(images + (before + i) * PICTURE, at + l->labels, PICTURE);
    }
    to->n += (int64_t)n;
    free(bytes);
    return status;
}

static ts_status load(const layout *l, const char *folder, ts_dataset *d, ts_pictures *train,
                      ts_pictures *test)
{
    char inner[1024], path[1100];
    TS_NEED(*folder, TS_EUSAGE, "data \"%s\" needs a folder: %s:DIR", d->name, d->name);
    TS_NEED(ts_file_exists(folder), TS_EDATA,
            "the folder %s is not there: give the one that holds %s, or %s", folder, l->folder,
            l->test);
    d->picture = (ts_shape){1, 3, SIDE, SIDE};
    d->classes = l->classes;
    TS_TRY(ts_file_join(inner, sizeof inner, folder, l->folder));
    if (!ts_file_exists(inner)) snprintf(inner, sizeof inner, "%s", folder);
    for (int i = 0; l->train[i]; i++) {
        TS_TRY(ts_file_join(path, sizeof path, inner, l->train[i]));
        TS_TRY(append(l, path, train));
    }
    TS_TRY(ts_file_join(path, sizeof path, inner, l->test));
    return append(l, path, test);
}

static ts_status load10(const char *folder, ts_dataset *d, ts_pictures *train, ts_pictures *test)
{
    return load(&cifar10, folder, d, train, test);
}

static ts_status load100(const char *folder, ts_dataset *d, ts_pictures *train, ts_pictures *test)
{
    return load(&cifar100, folder, d, train, test);
}

const ts_source ts_source_cifar10 = {"cifar10", load10, NULL};
const ts_source ts_source_cifar100 = {"cifar100", load100, NULL};
