/* crop.h - which part of a picture is taken, and how it becomes a square of bytes. */
#ifndef TS_DATA_CROP_H
#define TS_DATA_CROP_H

#include "runtime/data/jpeg.h"

/* In pixels of the picture as it is stored. */
typedef struct ts_box {
    double x, y, w, h;
} ts_box;

/* A part for training, a function of its arguments: an area of `least` (0.08) to 1 of the
 * picture's, uniform, and a ratio of width to height of 3/4 to 4/3, uniform in its logarithm; ten
 * tries, then the largest part in the middle whose ratio is allowed. What torchvision's
 * RandomResizedCrop does with its defaults (Szegedy et al., "Going deeper with convolutions",
 * arXiv:1409.4842). `copy`: of a sample that an echo uses several times. */
ts_box ts_box_random(uint64_t seed, int64_t epoch, int64_t sample, int copy, int width, int height,
                     double least);
/* The square in the middle whose side is `share` of the shorter side: a resize, then a crop. */
ts_box ts_box_middle(int width, int height, double share);

/* How many eighths of the size (1, 2, 4, 8) a picture may be decoded at when each box shall have at
 * least `side` pixels on a side; 8 when it is smaller than that anyway. */
int ts_box_eighths(const ts_box *boxes, int n, int side);
/* The rows of the picture at `eighths` that the boxes touch: [*top_p, *bottom_p). */
void ts_box_rows(const ts_box *boxes, int n, int eighths, int *top_p, int *bottom_p);

typedef struct ts_resizer ts_resizer; /* one thread's memory */
ts_status ts_resizer_open(int side, ts_resizer **resizer_p);
void ts_resizer_close(ts_resizer *resizer);
/* The box, of a picture decoded at `eighths`, as planes[3][side][side]. Triangle filter, widened
 * where the box shrinks (what Pillow calls bilinear, and torchvision antialias), in integers. */
ts_status ts_resize(ts_resizer *resizer, const ts_pixels *pixels, ts_box box, int eighths,
                    uint8_t *planes);

#endif
