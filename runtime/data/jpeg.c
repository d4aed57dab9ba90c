/* jpeg.c - see jpeg.h. libjpeg leaves through longjmp where it cannot go on; where it could, with
 * grey for what is missing, we stop too. */
#include "runtime/data/jpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#include <jerror.h>

#ifdef LIBJPEG_TURBO_VERSION
#define QUOTED(x) #x
#define TEXT(x) QUOTED(x)
#define TURBO "libjpeg-turbo " TEXT(LIBJPEG_TURBO_VERSION) ", in the form of "
#else
#define TURBO ""
#endif

struct ts_jpeg {
    struct jpeg_decompress_struct state;
    struct jpeg_error_mgr errors;
    jmp_buf leave;
    char problem[JMSG_LENGTH_MAX];
    uint8_t *rgb, *cmyk; /* the picture; one row */
    size_t rgb_bytes, cmyk_bytes;
};

static void leave(j_common_ptr state)
{
    ts_jpeg *j = state->client_data;
    state->err->format_message(state, j->problem);
    longjmp(j->leave, 1);
}

/* Warnings that mean lost pixels end the picture; others (a wrong marker's length, say) do not. */
static void hear(j_common_ptr state, int level)
{
    if (level >= 0) return;
    switch (state->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC:
    case JWRN_BOGUS_PROGRESSION:
    case JWRN_ARITH_BAD_CODE:
        leave(state);
    }
}

static void say_nothing(j_common_ptr state)
{
    (void)state;
}

ts_status ts_jpeg_open(ts_jpeg **jpeg_p)
{
    ts_jpeg *j = calloc(1, sizeof *j);
    *jpeg_p = NULL;
    TS_NEED(j, TS_ENOMEM, "no memory for a JPEG decoder");
    j->state.err = jpeg_std_error(&j->errors);
    j->errors.error_exit = leave;
    j->errors.emit_message = hear;
    j->errors.output_message = say_nothing;
    j->state.client_data = j;
    if (setjmp(j->leave)) {
        ts_status status = TS_ERROR(TS_EUNSUPPORTED, "libjpeg: %s", j->problem);
        free(j);
        return status;
    }
    jpeg_create_decompress(&j->state);
    j->state.client_data = j; /* creating clears it in some versions */
    *jpeg_p = j;
    return TS_OK;
}

void ts_jpeg_close(ts_jpeg *j)
{
    if (!j) return;
    jpeg_destroy_decompress(&j->state);
    free(j->cmyk);
    free(j->rgb);
    free(j);
}

void ts_jpeg_version(char *text, size_t bytes)
{
    struct jpeg_error_mgr errors;
    jpeg_std_error(&errors);
    snprintf(text, bytes, TURBO "%s", errors.jpeg_message_table[JMSG_VERSION]);
}

static ts_status grow(uint8_t **memory_p, size_t *has_p, size_t needs)
{
    if (needs <= *has_p) return TS_OK;
    uint8_t *grown = realloc(*memory_p, needs);
    TS_NEED(grown, TS_ENOMEM, "no memory for a picture of %zu bytes", needs);
    *memory_p = grown;
    *has_p = needs;
    return TS_OK;
}

static void read_header(ts_jpeg *j, const void *bytes, size_t n)
{
    jpeg_mem_src(&j->state, (unsigned char *)(uintptr_t)bytes, (unsigned long)n);
    jpeg_read_header(&j->state, TRUE);
}

/* Adobe's CMYK is stored inverted, and everybody's is Adobe's. */
static void rgb_from_cmyk(const uint8_t *cmyk, int width, uint8_t *rgb)
{
    for (int x = 0; x < width; x++)
        for (int c = 0; c < 3; c++)
            rgb[3 * x + c] = (uint8_t)((cmyk[4 * x + c] * cmyk[4 * x + 3] + 127) / 255);
}

/* What runs below setjmp, in a function of its own: no local survives a longjmp wrongly. */
static ts_status decode(ts_jpeg *j, const void *bytes, size_t n, int eighths, int top, int bottom,
                        ts_pixels *pixels)
{
    struct jpeg_decompress_struct *s = &j->state;
    read_header(j, bytes, n);
    bool cmyk = s->jpeg_color_space == JCS_CMYK || s->jpeg_color_space == JCS_YCCK;
    s->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    s->scale_num = (unsigned)eighths;
    s->scale_denom = 8;
    jpeg_start_decompress(s);
    const int width = (int)s->output_width, height = (int)s->output_height;
    if (bottom > height) bottom = height;
    if (top < 0) top = 0;
    if (top >= bottom) top = bottom - 1;
    size_t row = 3 * (size_t)width;
    TS_TRY(grow(&j->rgb, &j->rgb_bytes, row * (size_t)(bottom - top)));
    if (cmyk) TS_TRY(grow(&j->cmyk, &j->cmyk_bytes, 4 * (size_t)width));
    for (int y = 0; y < bottom; y++) { /* rows above `top` are decoded all the same, and dropped */
        uint8_t *to = j->rgb + (y > top ? (size_t)(y - top) * row : 0), *line = cmyk ? j->cmyk : to;
        jpeg_read_scanlines(s, &line, 1);
        if (cmyk) rgb_from_cmyk(line, width, to);
    }
    if (bottom == height) jpeg_finish_decompress(s); /* is it whole? */
    *pixels = (ts_pixels){j->rgb, top, width, bottom - top};
    return TS_OK;
}

static ts_status damaged(const ts_jpeg *j, const char *name)
{
    return TS_ERROR(TS_EDATA, "%s is no JPEG picture, or a damaged one: %s", name, j->problem);
}

ts_status ts_jpeg_decode(ts_jpeg *j, const void *bytes, size_t n, const char *name, int eighths,
                         int top, int bottom, ts_pixels *pixels)
{
    if (setjmp(j->leave)) {
        jpeg_abort_decompress(&j->state);
        return damaged(j, name);
    }
    ts_status status = decode(j, bytes, n, eighths, top, bottom, pixels);
    jpeg_abort_decompress(&j->state);
    return status;
}

ts_status ts_jpeg_size(ts_jpeg *j, const void *bytes, size_t n, const char *name, int *width_p,
                       int *height_p)
{
    if (setjmp(j->leave)) {
        jpeg_abort_decompress(&j->state);
        return damaged(j, name);
    }
    read_header(j, bytes, n);
    *width_p = (int)j->state.image_width;
    *height_p = (int)j->state.image_height;
    jpeg_abort_decompress(&j->state);
    return TS_OK;
}
