/* arena.h - places for buffers that live at different times in one piece of memory. */
#ifndef TS_MODELS_ARENA_H
#define TS_MODELS_ARENA_H

#include <stddef.h>

/* Lives from the start of time `first` to the end of time `last`. */
typedef struct ts_buffer {
    size_t bytes;
    int first, last;
    size_t at; /* result: its offset, a multiple of 64 */
} ts_buffer;

/* Gives every buffer a place so that no two that live at a common time overlap; returns the size
 * of the whole. Largest first, each at the lowest offset that is free for its whole life. */
size_t ts_arena_plan(ts_buffer *buffers, int n);

#endif
