/* jpeg_writer.h - small JPEG files for tests: smooth pictures that differ by their number. */
#ifndef TS_TESTS_JPEG_WRITER_H
#define TS_TESTS_JPEG_WRITER_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

/* Byte of channel c at (x, y) of picture `number`. */
static inline uint8_t picture_byte(int number, int c, double x, double y)
{
    double wave = sin(0.05 * x * (1 + 0.3 * c) + number) * cos(0.04 * y + 0.7 * number + c);
    return (uint8_t)(127.5 + 100 * wave);
}

/* A whole file of width x height in memory; free() it. `components`: 1 grey, 3 RGB, 4 CMYK as
 * Adobe's programs write it. */
static inline unsigned char *make_jpeg(int number, int width, int height, int components,
                                       unsigned long *n_p)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    *n_p = 0;
    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &bytes, n_p);
    c.image_width = (JDIMENSION)width;
    c.image_height = (JDIMENSION)height;
    c.input_components = components;
    c.in_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 95, TRUE);
    jpeg_start_compress(&c, TRUE);
    uint8_t *row = malloc((size_t)(width * components));
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++)
            for (int i = 0; i < components; i++)
                row[x * components + i] = i == 3 ? 255 : picture_byte(number, i, x, y);
        jpeg_write_scanlines(&c, &row, 1);
    }
    free(row);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    return bytes;
}

static inline void write_jpeg(const char *path, int number, int width, int height, int components)
{
    unsigned long n;
    unsigned char *bytes = make_jpeg(number, width, height, components, &n);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) {
        perror(path);
        exit(1);
    }
    free(bytes);
}

#endif
