/* records.c - see records.h: the file, and pictures out of it. Threads read with pread, each into
 * memory of its own; a file that shrinks under a run is then an error and not a signal. */
#include "runtime/data/records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "runtime/base/file.h"
#include "runtime/base/option.h"
#include "runtime/data/dataset.h"

struct ts_records {
    char path[1024];
    int file;
    ts_records_header header;
    ts_records_view view;
    ts_records_entry *entries;
    uint32_t largest; /* bytes of a picture */
};

/* ---- the file ---- */

static ts_status read_at(const ts_records *r, void *to, size_t bytes, uint64_t at, const char *what)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(r->file, (char *)to + done, bytes - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        TS_NEED(n >= 0, TS_EIO, "cannot read %s of %s: %s", what, r->path, strerror(errno));
        TS_NEED(n > 0, TS_EDATA, "%s ends within %s: it was cut off; pack it again", r->path, what);
        done += (size_t)n;
    }
    return TS_OK;
}

static ts_status read_header(ts_records *r)
{
    ts_records_header *h = &r->header;
    struct stat info;
    TS_NEED(!fstat(r->file, &info), TS_EDATA, "cannot read %s: %s", r->path, strerror(errno));
    TS_NEED((size_t)info.st_size >= sizeof *h, TS_EDATA,
            "%s has %lld bytes, which is less than a header's %zu: it is no records file, or cut "
            "off; make one with twinstream pack",
            r->path, (long long)info.st_size, sizeof *h);
    TS_TRY(read_at(r, h, sizeof *h, 0, "the header"));
    TS_NEED(!memcmp(h->magic, TS_RECORDS_MAGIC, sizeof h->magic), TS_EDATA,
            "%s is no records file: it does not begin with %s; make one with twinstream pack",
            r->path, TS_RECORDS_MAGIC);
    TS_NEED(h->version == TS_RECORDS_VERSION, TS_EDATA,
            "%s is of version %u, this program reads version %d: pack it again", r->path,
            h->version, TS_RECORDS_VERSION);
    TS_NEED(h->crc_header == crc32(0, (const Bytef *)h, offsetof(ts_records_header, crc_header)),
            TS_EDATA, "%s has a damaged header: copy it again, or pack it again", r->path);
    TS_NEED(h->file_bytes == (uint64_t)info.st_size, TS_EDATA,
            "%s has %lld bytes, its header says %llu: it was cut off; copy it again, or pack it "
            "again",
            r->path, (long long)info.st_size, (unsigned long long)h->file_bytes);
    return TS_OK;
}

static ts_status check_entry(const ts_records *r, uint64_t i)
{
    const ts_records_entry *e = &r->entries[i];
    bool lies_there = e->at >= sizeof r->header && e->bytes > 0 && e->at <= r->header.index_at &&
                      e->bytes <= r->header.index_at - e->at;
    TS_NEED(lies_there && e->label < r->header.classes && e->width && e->height, TS_EDATA,
            "%s: the index entry of picture %llu makes no sense: pack it again", r->path,
            (unsigned long long)i);
    return TS_OK;
}

static ts_status read_index(ts_records *r)
{
    const ts_records_header *h = &r->header;
    uint64_t n = h->train + h->test;
    TS_NEED(h->index_at <= h->names_at && h->names_at <= h->file_bytes &&
                n <= h->file_bytes / sizeof *r->entries &&
                n * sizeof *r->entries == h->names_at - h->index_at,
            TS_EDATA, "%s: the header's counts and offsets do not fit: pack it again", r->path);
    size_t bytes = (size_t)(h->file_bytes - h->index_at);
    r->entries = malloc(bytes + 1);
    TS_NEED(r->entries, TS_ENOMEM, "no memory for the index of %llu pictures",
            (unsigned long long)n);
    TS_TRY(read_at(r, r->entries, bytes, h->index_at, "the index"));
    TS_NEED(h->crc_index == crc32_z(0, (const Bytef *)r->entries, bytes), TS_EDATA,
            "%s has a damaged index: copy it again, or pack it again", r->path);
    for (uint64_t i = 0; i < n; i++) {
        TS_TRY(check_entry(r, i));
        if (r->entries[i].bytes > r->largest) r->largest = r->entries[i].bytes;
    }
    return TS_OK;
}

ts_status ts_records_open(const char *path, const ts_records_view *view, ts_records **records_p)
{
    *records_p = NULL;
    ts_records *r = calloc(1, sizeof *r);
    TS_NEED(r, TS_ENOMEM, "no memory for records");
    snprintf(r->path, sizeof r->path, "%s", path);
    r->view = *view;
    r->file = open(path, O_RDONLY | O_CLOEXEC);
    ts_status status =
        r->file >= 0 ? TS_OK : TS_ERROR(TS_EDATA, "cannot open %s: %s", path, strerror(errno));
    if (!status) status = read_header(r);
    if (!status) status = read_index(r);
    if (status) {
        ts_records_close(r);
        return ts_status_pass(__FILE__, __LINE__, status);
    }
    *records_p = r;
    return TS_OK;
}

void ts_records_close(ts_records *r)
{
    if (!r) return;
    if (r->file >= 0) close(r->file);
    free(r->entries);
    free(r);
}

const ts_records_header *ts_records_get_header(const ts_records *records)
{
    return &records->header;
}

const ts_records_view *ts_records_get_view(const ts_records *records)
{
    return &records->view;
}

const ts_records_entry *ts_records_entries(const ts_records *records)
{
    return records->entries;
}

/* ---- a picture ---- */

struct ts_reader {
    const ts_records *records;
    ts_jpeg *jpeg;
    ts_resizer *resizer;
    uint8_t *bytes;
};

ts_status ts_reader_open(const ts_records *records, ts_reader **reader_p)
{
    ts_status status;
    *reader_p = NULL;
    ts_reader *r = calloc(1, sizeof *r);
    TS_NEED(r, TS_ENOMEM, "no memory for a reader");
    r->records = records;
    r->bytes = malloc((size_t)records->largest + 1);
    if (!r->bytes) {
        status = TS_ERROR(TS_ENOMEM, "no memory for a picture of %u bytes", records->largest);
        goto fail;
    }
    TS_TRY_TO(status, fail, ts_jpeg_open(&r->jpeg));
    TS_TRY_TO(status, fail, ts_resizer_open((int)records->view.size, &r->resizer));
    *reader_p = r;
    return TS_OK;
fail:
    ts_reader_close(r);
    return status;
}

void ts_reader_close(ts_reader *r)
{
    if (!r) return;
    ts_resizer_close(r->resizer);
    ts_jpeg_close(r->jpeg);
    free(r->bytes);
    free(r);
}

ts_status ts_reader_read(ts_reader *reader, int64_t entry, const ts_box *boxes, int n,
                         uint8_t *planes)
{
    const ts_records *r = reader->records;
    const ts_records_entry *e = &r->entries[entry];
    const int side = (int)r->view.size, eighths = ts_box_eighths(boxes, n, side);
    char name[1100];
    int top, bottom;
    ts_pixels pixels;
    snprintf(name, sizeof name, "picture %lld of %s", (long long)entry, r->path);
    TS_TRY(read_at(r, reader->bytes, e->bytes, e->at, name));
    TS_NEED(e->crc == crc32(0, reader->bytes, e->bytes), TS_EDATA,
            "%s is damaged: its checksum is not the index's; copy the file again, or pack it again",
            name);
    ts_box_rows(boxes, n, eighths, &top, &bottom);
    TS_TRY(
        ts_jpeg_decode(reader->jpeg, reader->bytes, e->bytes, name, eighths, top, bottom, &pixels));
    for (int i = 0; i < n; i++)
        TS_TRY(ts_resize(reader->resizer, &pixels, boxes[i], eighths,
                         planes + (size_t)i * 3 * (size_t)side * (size_t)side));
    return TS_OK;
}

/* ---- the data set ---- */

static const ts_option rows[] = {
    {"size", TS_OPTION_INT, offsetof(ts_records_view, size), "224", NULL, 8, 2048,
     "pixels of a side"},
    {"resize", TS_OPTION_INT, offsetof(ts_records_view, resize), "auto", "auto", 8, 4096,
     "of test pictures: shorter side before the middle is taken; auto: size * 8 / 7"},
    {"least", TS_OPTION_REAL, offsetof(ts_records_view, least), "0.08", NULL, 1e-3, 1,
     "of training pictures: least share of the area that a crop takes"},
    {0}};

/* "FILE,key=value,...": a FILE that is a folder is the file in it. */
static ts_status parse(const char *argument, char *path, size_t bytes, ts_records_view *view)
{
    char text[1024];
    const ts_option_group group = {"records", rows, view};
    TS_NEED(*argument && strlen(argument) < sizeof text, TS_EUSAGE,
            "data \"records\" needs a file that twinstream pack has made: records:FILE");
    snprintf(text, sizeof text, "%s", argument);
    size_t length = strcspn(text, ",");
    const char *options = text[length] ? text + length + 1 : "";
    text[length] = 0;
    TS_TRY(ts_option_parse_list(&group, options, "data records"));
    if (!view->resize) view->resize = (view->size * 8 + 3) / 7;
    TS_NEED(view->resize >= view->size, TS_EUSAGE,
            "data records: resize %lld is below size %lld, whose square would not fit",
            (long long)view->resize, (long long)view->size);
    if (ts_file_is_folder(text)) return ts_file_join(path, bytes, text, TS_RECORDS_NAME);
    snprintf(path, bytes, "%s", text);
    return TS_OK;
}

static ts_status take_split(ts_split *split, const ts_records_entry *entries, uint64_t n)
{
    split->n = (int64_t)n;
    split->host_labels = malloc((size_t)n * sizeof *split->host_labels + 1);
    TS_NEED(split->host_labels, TS_ENOMEM, "no memory for %lld labels", (long long)split->n);
    for (uint64_t i = 0; i < n; i++) split->host_labels[i] = entries[i].label;
    return TS_OK;
}

static ts_status open_records(const char *argument, ts_dataset *d)
{
    char path[1100];
    ts_records_view view;
    ts_jpeg *jpeg;
    TS_TRY(parse(argument, path, sizeof path, &view));
    TS_TRY(ts_jpeg_open(&jpeg)); /* before anything else: can this build read them? */
    ts_jpeg_close(jpeg);
    TS_TRY(ts_records_open(path, &view, &d->records));
    const ts_records_header *h = &d->records->header;
    TS_NEED(h->train && h->test, TS_EDATA, "%s has no %s pictures: pack it again", path,
            h->train ? "test" : "training");
    d->picture = (ts_shape){1, 3, (int)view.size, (int)view.size};
    d->classes = (int)h->classes;
    memcpy(d->mean, h->mean, sizeof d->mean);
    memcpy(d->std, h->std, sizeof d->std);
    TS_TRY(take_split(&d->train, d->records->entries, h->train));
    return take_split(&d->test, d->records->entries + h->train, h->test);
}

const ts_source ts_source_records = {"records", NULL, open_records};
