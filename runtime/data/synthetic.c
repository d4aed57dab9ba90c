/* synthetic.c - pictures that a network can learn, where no data set is at hand.
 *
 * A class is a shape (disc, ring, square, cross, triangle) with one of two textures (stripes,
 * checks) on it. Position, size, tilt, colours, background and noise are random, so the mean
 * picture of a class says little and pixels alone do not give it away. Each picture is a function
 * of (seed, split, index). It is not CIFAR-10, and says nothing about it. */
#include <math.h>
#include <stdlib.h>

#include "runtime/base/option.h"
#include "runtime/data/dataset.h"

typedef struct settings {
    int64_t train, test, size, classes, seed;
} settings;

static const ts_option rows[] = {
    {"train", TS_OPTION_INT, offsetof(settings, train), "10000", NULL, 1, 1e8, "training pictures"},
    {"test", TS_OPTION_INT, offsetof(settings, test), "2000", NULL, 1, 1e8, "test pictures"},
    {"size", TS_OPTION_INT, offsetof(settings, size), "32", NULL, 4, 512, "pixels of a side"},
    {"classes", TS_OPTION_INT, offsetof(settings, classes), "10", NULL, 2, 10, "classes"},
    {"seed", TS_OPTION_INT, offsetof(settings, seed), "1", NULL, 0, 1e18, "of all pictures"},
    {0}};

/* Random numbers of one picture, in turn. */
typedef struct dice {
    uint64_t seed, picture, count;
} dice;

static float roll(dice *d, float low, float high)
{
    uint64_t i = d->count++;
    float u = ts_random_unit(ts_random(d->seed, d->picture, i >> 2).v[i & 3]);
    return low + (high - low) * u;
}

/* Is (x, y), in units of the shape's size, inside shape `kind`? */
static bool inside(int kind, float x, float y)
{
    float r = sqrtf(x * x + y * y), ax = fabsf(x), ay = fabsf(y);
    switch (kind) {
    case 0:
        return r < 1;
    case 1:
        return r < 1.05f && r > 0.55f;
    case 2:
        return ax < 0.85f && ay < 0.85f;
    case 3:
        return (ax < 0.35f && ay < 1.1f) || (ay < 0.35f && ax < 1.1f);
    default:
        return y < 0.7f && y > 2 * ax - 1.1f;
    }
}

static void paint(dice *d, int class, int size, uint8_t *image)
{
    float half = (float)size / 2, angle = roll(d, -0.5f, 0.5f);
    float cx = half + roll(d, -0.25f, 0.25f) * half, cy = half + roll(d, -0.25f, 0.25f) * half;
    float scale = roll(d, 0.55f, 0.8f) * half, cosine = cosf(angle), sine = sinf(angle);
    float wave = roll(d, 5.0f, 7.0f), phase = roll(d, 0, 6.28f), noise = roll(d, 5, 20);
    float slope_x = roll(d, -30, 30), slope_y = roll(d, -30, 30);
    float ground[3], light[3], dark[3];
    for (int c = 0; c < 3; c++) {
        ground[c] = roll(d, 40, 130);
        light[c] = roll(d, 170, 250);
        dark[c] = light[c] - roll(d, 80, 140);
    }
    for (int py = 0; py < size; py++)
        for (int px = 0; px < size; px++) {
            float dx = ((float)px + 0.5f - cx) / scale, dy = ((float)py + 0.5f - cy) / scale;
            float x = cosine * dx + sine * dy, y = cosine * dy - sine * dx;
            float pattern = sinf(wave * x + phase);
            if (class >= 5) pattern *= sinf(wave * y + phase);
            bool on = inside(class % 5, x, y);
            for (int c = 0; c < 3; c++) {
                float v = on ? (pattern > 0 ? light[c] : dark[c])
                             : ground[c] + slope_x * ((float)px / half - 1) +
                                   slope_y * ((float)py / half - 1);
                v += noise * roll(d, -1, 1);
                image[(c * size + py) * size + px] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            }
        }
}

static ts_status make(const settings *s, int64_t n, uint64_t split, ts_pictures *p)
{
    size_t bytes = (size_t)(3 * s->size * s->size);
    p->images = malloc((size_t)n * bytes);
    p->labels = malloc((size_t)n * sizeof *p->labels);
    TS_NEED(p->images && p->labels, TS_ENOMEM, "no memory for %lld synthetic pictures",
            (long long)n);
    p->n = n;
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        dice d = {(uint64_t)s->seed, (uint64_t)i << 1 | split, 0};
        int class =
            (int)(ts_random((uint64_t)s->seed, d.picture, UINT64_MAX).v[0] % (uint32_t)s->classes);
        p->labels[i] = (uint16_t) class;
        paint(&d, class, (int)s->size, p->images + (size_t)i * bytes);
    }
    return TS_OK;
}

static ts_status load(const char *argument, ts_dataset *d, ts_pictures *train, ts_pictures *test)
{
    settings s;
    const ts_option_group group = {"synthetic", rows, &s};
    TS_TRY(ts_option_parse_list(&group, argument, "data synthetic"));
    d->picture = (ts_shape){1, 3, (int)s.size, (int)s.size};
    d->classes = (int)s.classes;
    TS_TRY(make(&s, s.train, 0, train));
    return make(&s, s.test, 1, test);
}

const ts_source ts_source_synthetic = {"synthetic", load, NULL};
