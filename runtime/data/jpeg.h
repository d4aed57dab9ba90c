/* jpeg.h - JPEG pictures to RGB, over libjpeg (libjpeg-turbo everywhere it matters).
 *
 * A decoder belongs to one thread and keeps its memory from picture to picture. Grey pictures
 * become RGB, CMYK ones too. A build without libjpeg has no_jpeg.c, which refuses. */
#ifndef TS_DATA_JPEG_H
#define TS_DATA_JPEG_H

#include "runtime/base/status.h"

/* Rows of interleaved RGB bytes: rows [top, top + h) of a picture, w wide. */
typedef struct ts_pixels {
    const uint8_t *rgb;
    int top, w, h;
} ts_pixels;

typedef struct ts_jpeg ts_jpeg;

ts_status ts_jpeg_open(ts_jpeg **jpeg_p);
void ts_jpeg_close(ts_jpeg *jpeg);
/* The version of libjpeg, or why it is absent. */
void ts_jpeg_version(char *text, size_t bytes);

/* Width and height, from the header. `name` is for messages. TS_EDATA: no JPEG, or damaged. */
ts_status ts_jpeg_size(ts_jpeg *jpeg, const void *bytes, size_t n, const char *name, int *width_p,
                       int *height_p);
/* Decode at eighths/8 (1, 2, 4 or 8) of the size, rounded up, what covers rows [top, bottom) of the
 * scaled picture; the pixels are the decoder's until its next call. Scaling leaves out what a
 * smaller picture does not need before the inverse transform: 1/2 costs a third of 1. TS_EDATA
 * when the bytes end early or are damaged, which libjpeg itself would only warn of. */
ts_status ts_jpeg_decode(ts_jpeg *jpeg, const void *bytes, size_t n, const char *name, int eighths,
                         int top, int bottom, ts_pixels *pixels);

#endif
