/* crop.c - see crop.h. Rows are filtered first, a whole line at once, then the one line that is
 * left of each: what is long is what the compiler vectorises. */
#include "runtime/data/crop.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/data/augment_element.h"

enum { TRIES = 10, ONE = 1 << 14, LINE_BITS = 8 /* of a value between the two passes */ };

/* ---- boxes ---- */

static double unit(uint32_t word)
{
    return (double)word * (1.0 / 4294967296.0);
}

ts_box ts_box_random(uint64_t seed, int64_t epoch, int64_t sample, int copy, int width, int height,
                     double least)
{
    const double area = (double)width * height, low = log(3.0 / 4), high = log(4.0 / 3);
    uint64_t key = seed ^ UINT64_C(0xC20B0C5EED5);
    for (int i = 0; i < TRIES; i++) {
        ts_random4 r = ts_augmentation_words(key + (uint64_t)i, epoch, sample, copy);
        double target = area * (least + (1 - least) * unit(r.v[0]));
        double ratio = exp(low + (high - low) * unit(r.v[1]));
        double w = floor(sqrt(target * ratio) + 0.5), h = floor(sqrt(target / ratio) + 0.5);
        if (w < 1 || h < 1 || w > width || h > height) continue;
        return (ts_box){floor(unit(r.v[2]) * (width - w + 1)),
                        floor(unit(r.v[3]) * (height - h + 1)), w, h};
    }
    ts_box box = {0, 0, width, height};
    double ratio = (double)width / height;
    if (ratio < 3.0 / 4) box.h = floor(width * 4.0 / 3 + 0.5);
    if (ratio > 4.0 / 3) box.w = floor(height * 4.0 / 3 + 0.5);
    box.x = floor((width - box.w) / 2);
    box.y = floor((height - box.h) / 2);
    return box;
}

ts_box ts_box_middle(int width, int height, double share)
{
    double side = share * (width < height ? width : height);
    return (ts_box){(width - side) / 2, (height - side) / 2, side, side};
}

int ts_box_eighths(const ts_box *boxes, int n, int side)
{
    double least = boxes[0].w;
    for (int i = 0; i < n; i++) least = fmin(least, fmin(boxes[i].w, boxes[i].h));
    int eighths = 1;
    while (eighths < 8 && least * eighths < 8.0 * side) eighths *= 2;
    return eighths;
}

void ts_box_rows(const ts_box *boxes, int n, int eighths, int *top_p, int *bottom_p)
{
    double top = boxes[0].y, bottom = 0;
    for (int i = 0; i < n; i++) {
        top = fmin(top, boxes[i].y);
        bottom = fmax(bottom, boxes[i].y + boxes[i].h);
    }
    *top_p = (int)floor(top * eighths / 8);
    *bottom_p = (int)ceil(bottom * eighths / 8);
}

/* ---- resizing ---- */

/* What one output pixel is made of: `n` inputs from `first` on, their weights at [at]. */
typedef struct taps {
    int first, n;
    size_t at;
} taps;

struct ts_resizer {
    int side;
    taps *rows, *columns;     /* [side] each */
    int16_t *weights;         /* of rows, then columns */
    int32_t *line;            /* of the row filter */
    size_t n_weights, n_line; /* that there is room for */
};

ts_status ts_resizer_open(int side, ts_resizer **resizer_p)
{
    ts_resizer *r = calloc(1, sizeof *r);
    *resizer_p = NULL;
    TS_NEED(r, TS_ENOMEM, "no memory for a resizer");
    r->side = side;
    r->rows = calloc((size_t)side, sizeof *r->rows);
    r->columns = calloc((size_t)side, sizeof *r->columns);
    if (!r->rows || !r->columns) {
        ts_resizer_close(r);
        return TS_ERROR(TS_ENOMEM, "no memory for a resizer of %d pixels", side);
    }
    *resizer_p = r;
    return TS_OK;
}

void ts_resizer_close(ts_resizer *r)
{
    if (!r) return;
    free(r->line);
    free(r->weights);
    free(r->columns);
    free(r->rows);
    free(r);
}

/* Room for the weights of `side` pixels, each of at most `most` inputs. */
static size_t most_taps(double length, int side)
{
    return 2 * (size_t)ceil(fmax(1, length / side)) + 3;
}

/* Triangle of half width max(1, scale) around each output pixel's middle, over inputs that the box
 * touches, in units of 1 / ONE that sum to ONE. */
static size_t find_taps(double begin, double length, int side, int low, int high, taps *all,
                        int16_t *weights, size_t at)
{
    double scale = length / side, support = fmax(1, scale);
    int from = (int)floor(begin), to = (int)ceil(begin + length);
    if (from < low) from = low;
    if (to > high) to = high;
    if (to <= from) to = from + 1 <= high ? from + 1 : high, from = to - 1;
    for (int i = 0; i < side; i++) {
        double middle = begin + (i + 0.5) * scale, sum = 0;
        int first = (int)floor(middle - support + 0.5), end = (int)floor(middle + support + 0.5);
        if (first < from) first = from;
        if (end > to) end = to;
        if (first > to - 1) first = to - 1;
        if (end <= first) end = first + 1;
        for (int k = first; k < end; k++) sum += fmax(0, 1 - fabs(k + 0.5 - middle) / support);
        all[i] = (taps){first, end - first, at};
        int left = ONE, largest = 0;
        for (int k = 0; k < end - first; k++) {
            double share = sum > 0 ? fmax(0, 1 - fabs(first + k + 0.5 - middle) / support) / sum
                                   : 1.0 / (end - first);
            weights[at + (size_t)k] = (int16_t)floor(share * ONE + 0.5);
            left -= weights[at + (size_t)k];
            if (weights[at + (size_t)k] > weights[at + (size_t)largest]) largest = k;
        }
        weights[at + (size_t)largest] = (int16_t)(weights[at + (size_t)largest] + left);
        at += (size_t)(end - first);
    }
    return at;
}

static ts_status make_room(ts_resizer *r, size_t n_weights, size_t n_line)
{
    if (n_weights > r->n_weights) {
        int16_t *grown = realloc(r->weights, n_weights * sizeof *grown);
        TS_NEED(grown, TS_ENOMEM, "no memory for %zu weights of a resizer", n_weights);
        r->weights = grown;
        r->n_weights = n_weights;
    }
    if (n_line > r->n_line) {
        int32_t *grown = realloc(r->line, n_line * sizeof *grown);
        TS_NEED(grown, TS_ENOMEM, "no memory for a line of %zu values", n_line);
        r->line = grown;
        r->n_line = n_line;
    }
    return TS_OK;
}

/* line[0..n) <- the weighted rows, from byte `skip` of each on, with LINE_BITS bits behind the
 * point. */
static void filter_rows(const ts_resizer *r, const ts_pixels *p, const taps *t, size_t skip,
                        size_t n)
{
    int32_t *line = r->line;
    size_t row = 3 * (size_t)p->w;
    for (size_t i = 0; i < n; i++) line[i] = ONE >> (LINE_BITS + 1);
    for (int k = 0; k < t->n; k++) {
        const uint8_t *from = p->rgb + (size_t)(t->first + k - p->top) * row + skip;
        const int32_t weight = r->weights[t->at + (size_t)k];
        for (size_t i = 0; i < n; i++) line[i] += weight * from[i];
    }
    for (size_t i = 0; i < n; i++) line[i] >>= 14 - LINE_BITS;
}

ts_status ts_resize(ts_resizer *r, const ts_pixels *p, ts_box box, int eighths, uint8_t *planes)
{
    const int side = r->side;
    const double scale = eighths / 8.0;
    box = (ts_box){box.x * scale, box.y * scale, box.w * scale, box.h * scale};
    TS_TRY(make_room(r, (size_t)side * (most_taps(box.w, side) + most_taps(box.h, side)),
                     3 * (size_t)p->w));
    size_t used = find_taps(box.y, box.h, side, p->top, p->top + p->h, r->rows, r->weights, 0);
    find_taps(box.x, box.w, side, 0, p->w, r->columns, r->weights, used);
    const taps *last = &r->columns[side - 1];
    const size_t left = 3 * (size_t)r->columns[0].first;
    const size_t n = 3 * (size_t)(last->first + last->n) - left;
    const size_t plane = (size_t)side * (size_t)side;
    for (int y = 0; y < side; y++) {
        filter_rows(r, p, &r->rows[y], left, n);
        for (int x = 0; x < side; x++) {
            const taps *t = &r->columns[x];
            const int32_t *from = r->line + 3 * (size_t)t->first - left;
            const int16_t *weight = r->weights + t->at;
            int32_t sum[3] = {1 << 21, 1 << 21, 1 << 21};
            for (int k = 0; k < t->n; k++)
                for (int c = 0; c < 3; c++) sum[c] += weight[k] * from[3 * k + c];
            for (int c = 0; c < 3; c++)
                planes[(size_t)c * plane + (size_t)(y * side + x)] = (uint8_t)(sum[c] >> 22);
        }
    }
    return TS_OK;
}
