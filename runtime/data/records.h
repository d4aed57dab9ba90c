/* records.h - pictures of any size, as JPEG as they came, with labels, in one file.
 *
 * Version 1, little-endian, made by `twinstream pack`:
 *     header    128 bytes: ts_records_header
 *     pictures  one after the other, each a whole JPEG file
 *     index     a ts_records_entry for each picture: training pictures first, then test
 *     names     of the classes in the order of their labels, each ended by a newline
 * The header counts everything, says where index and names lie and how long the file is, and has
 * the CRC-32 of index and names and, last, of itself; an entry has that of its picture. So a file
 * that was cut off or changed is found out: the first when it is opened, the pictures as they are
 * read. */
#ifndef TS_DATA_RECORDS_H
#define TS_DATA_RECORDS_H

#include "runtime/data/crop.h"
#include "runtime/data/data.h"

#define TS_RECORDS_MAGIC "TWRECORD"
#define TS_RECORDS_NAME "pictures.records" /* the file's name where a folder is given */
enum { TS_RECORDS_VERSION = 1 };

typedef struct ts_records_header {
    char magic[8];
    uint32_t version, classes;
    uint64_t train, test; /* pictures */
    uint64_t index_at, names_at, file_bytes;
    float mean[3], std[3]; /* of a channel over all training pixels, in units of a byte */
    uint32_t crc_index;    /* of index and names */
    uint8_t reserved[40];  /* 0 */
    uint32_t crc_header;   /* of what stands before it */
} ts_records_header;

typedef struct ts_records_entry {
    uint64_t at;
    uint32_t bytes, crc;
    uint16_t width, height, label, reserved;
} ts_records_entry;

_Static_assert(sizeof(ts_records_header) == 128 && sizeof(ts_records_entry) == 24 &&
                   offsetof(ts_records_header, crc_header) == 124,
               "the layout of version 1");

/* How a run sees the file: "records:FILE,size=224,resize=256,least=0.08". */
typedef struct ts_records_view {
    int64_t size;   /* S: a picture becomes S x S */
    int64_t resize; /* of test pictures: shorter side before the middle S x S is taken */
    double least;   /* of training pictures: the least share of the area that a crop takes */
} ts_records_view;

/* TS_EDATA when it is no records file, of another version, cut off or damaged; TS_EIO when a
 * read fails, which another try may mend. */
ts_status ts_records_open(const char *path, const ts_records_view *view, ts_records **records_p);
void ts_records_close(ts_records *records);
const ts_records_header *ts_records_get_header(const ts_records *records);
const ts_records_view *ts_records_get_view(const ts_records *records);
/* [train + test] */
const ts_records_entry *ts_records_entries(const ts_records *records);

/* What one thread needs to read pictures. */
typedef struct ts_reader ts_reader;
ts_status ts_reader_open(const ts_records *records, ts_reader **reader_p);
void ts_reader_close(ts_reader *reader);
/* Read picture `entry` (of train + test), decode it at the smallest size that serves all boxes, and
 * make planes[n][3][S][S] of them. TS_EDATA names file and picture; TS_EIO as above. */
ts_status ts_reader_read(ts_reader *reader, int64_t entry, const ts_box *boxes, int n,
                         uint8_t *planes);

typedef struct ts_pack_result {
    int64_t train, test, classes, left_out, others; /* unreadable; files that are no JPEG */
    double bytes;
} ts_pack_result;

/* Pack folder/train/CLASS/ and folder/val/CLASS/ (or test/) into `out`, classes in the order of
 * their names. Files are JPEG by their name (.jpg, .jpeg); each is decoded as a whole to see that
 * it can be. An unreadable one is TS_EDATA that names it; with `skip_bad` it is left out and
 * counted, with a warning. Written to a temporary name and renamed. */
ts_status ts_records_pack(const char *folder, const char *out, bool skip_bad,
                          ts_pack_result *result);

#endif
