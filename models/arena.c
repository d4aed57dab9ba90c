/* arena.c - greedy placement by size: quadratic in the number of buffers, which are hundreds. */
#include "models/arena.h"

#include <stdbool.h>
#include <stdint.h>

enum { ALIGN = 64 };

static bool meet(const ts_buffer *a, const ts_buffer *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* The lowest offset at which `b` meets no placed buffer that lives beside it. */
static size_t lowest(const ts_buffer *buffers, int n, const ts_buffer *b)
{
    size_t at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < n; i++) {
            const ts_buffer *o = &buffers[i];
            if (o->at == SIZE_MAX || !o->bytes || !meet(o, b)) continue;
            if (at < o->at + aligned(o->bytes) && o->at < at + aligned(b->bytes)) {
                at = o->at + aligned(o->bytes);
                moved = true;
            }
        }
    }
    return at;
}

size_t ts_arena_plan(ts_buffer *buffers, int n)
{
    size_t total = 0;
    for (int i = 0; i < n; i++) buffers[i].at = SIZE_MAX; /* not placed */
    for (int placed = 0; placed < n; placed++) {
        ts_buffer *next = NULL;
        for (int i = 0; i < n; i++)
            if (buffers[i].at == SIZE_MAX && (!next || buffers[i].bytes > next->bytes))
                next = &buffers[i];
        next->at = lowest(buffers, n, next);
        if (next->at + aligned(next->bytes) > total) total = next->at + aligned(next->bytes);
    }
    return total;
}
