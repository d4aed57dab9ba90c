/* no_jpeg.c - what a build without libjpeg has instead of jpeg.c. */
#include "runtime/data/jpeg.h"

#include <stdio.h>

static const char missing[] = "this build is without libjpeg, which reads the pictures of records: "
                              "install libjpeg-dev (launch/setup build) and build again";

ts_status ts_jpeg_open(ts_jpeg **jpeg_p)
{
    *jpeg_p = NULL;
    return TS_ERROR(TS_EUNSUPPORTED, "%s", missing);
}

void ts_jpeg_close(ts_jpeg *jpeg)
{
    (void)jpeg;
}

void ts_jpeg_version(char *text, size_t bytes)
{
    snprintf(text, bytes, "absent: %s", missing);
}

ts_status ts_jpeg_size(ts_jpeg *jpeg, const void *bytes, size_t n, const char *name, int *width_p,
                       int *height_p)
{
    (void)jpeg;
    (void)bytes;
    (void)n;
    (void)name;
    (void)width_p;
    (void)height_p;
    return TS_ERROR(TS_EUNSUPPORTED, "%s", missing);
}

ts_status ts_jpeg_decode(ts_jpeg *jpeg, const void *bytes, size_t n, const char *name, int eighths,
                         int top, int bottom, ts_pixels *pixels)
{
    (void)eighths;
    (void)top;
    (void)bottom;
    (void)pixels;
    return ts_jpeg_size(jpeg, bytes, n, name, NULL, NULL);
}
