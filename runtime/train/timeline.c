/* timeline.c - every rank's spans as one Chrome trace, which Perfetto opens.
 *
 * Ranks of one host share a monotonic clock. Clocks of other hosts are set against rank 0's by
 * reading all of them right after a barrier, several times, and taking the median difference:
 * good to the jitter of a barrier, tens of microseconds on a quiet network. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/train/trainer.h"

enum { CLOCK_ROUNDS = 15, ROWS = 4 };

/* What a rank says of itself before its spans travel. */
typedef struct head {
    int64_t n, offset_ns; /* add to a time of this rank to get rank 0's clock */
    char host[TS_HOST_NAME_MAX];
    char rows[ROWS][16];
} head;

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static ts_status measure_offset(ts_world *world, int64_t *offset_p)
{
    int64_t differences[CLOCK_ROUNDS], *clocks = calloc((size_t)world->size, sizeof *clocks);
    TS_NEED(clocks, TS_ENOMEM, "no memory for %d clocks", world->size);
    ts_status status = TS_OK;
    for (int i = 0; i < CLOCK_ROUNDS && !status; i++) {
        status = world->ops->barrier(world);
        int64_t now = ts_clock_ns();
        if (!status) status = world->ops->all_gather(world, &now, clocks, sizeof now);
        differences[i] = clocks[0] - now;
    }
    free(clocks);
    TS_TRY(status);
    qsort(differences, CLOCK_ROUNDS, sizeof *differences, compare);
    *offset_p = differences[CLOCK_ROUNDS / 2];
    return TS_OK;
}

static ts_status write_trace(const char *path, int size, const head *heads, const ts_span *spans,
                             int64_t stride)
{
    int64_t origin = INT64_MAX;
    for (int r = 0; r < size; r++)
        for (int64_t i = 0; i < heads[r].n; i++)
            if (spans[r * stride + i].begin_ns + heads[r].offset_ns < origin)
                origin = spans[r * stride + i].begin_ns + heads[r].offset_ns;
    FILE *f = fopen(path, "w");
    TS_NEED(f, TS_EIO, "cannot write %s: %s", path, strerror(errno));
    fprintf(f, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [");
    for (int r = 0; r < size; r++) {
        fprintf(f,
                "%s\n{\"ph\": \"M\", \"pid\": %d, \"name\": \"process_name\", \"args\": "
                "{\"name\": \"rank %d (%s)\"}}",
                r ? "," : "", r, r, heads[r].host);
        for (int row = 0; row < ROWS && *heads[r].rows[row]; row++)
            fprintf(f,
                    ",\n{\"ph\": \"M\", \"pid\": %d, \"tid\": %d, \"name\": \"thread_name\", "
                    "\"args\": {\"name\": \"%s\"}}",
                    r, row, heads[r].rows[row]);
        for (int64_t i = 0; i < heads[r].n; i++) {
            const ts_span *s = &spans[r * stride + i];
            fprintf(f,
                    ",\n{\"ph\": \"X\", \"pid\": %d, \"tid\": %d, \"name\": \"%s\", "
                    "\"ts\": %.3f, \"dur\": %.3f",
                    r, s->stream, ts_span_names[s->kind],
                    (double)(s->begin_ns + heads[r].offset_ns - origin) * 1e-3,
                    (double)(s->end_ns - s->begin_ns) * 1e-3);
            if (s->detail >= 0) fprintf(f, ", \"args\": {\"detail\": %lld}", (long long)s->detail);
            fprintf(f, "}");
        }
    }
    fprintf(f, "\n]}\n");
    bool bad = ferror(f) != 0;
    if (fclose(f) || bad)
        return TS_ERROR(TS_EIO, "cannot write %s: %s: is the disk full?", path, strerror(errno));
    return TS_OK;
}

ts_status ts_timeline_save(ts_world *world, const ts_trace *trace, const ts_span *spans, int64_t n,
                           const char *path)
{
    ts_status status;
    head mine = {.n = n}, *heads = calloc((size_t)world->size, sizeof *heads);
    ts_span *all = NULL, *padded = NULL;
    TS_NEED(heads, TS_ENOMEM, "no memory for the timeline");
    TS_TRY_TO(status, out, measure_offset(world, &mine.offset_ns));
    memcpy(mine.host, world->host, sizeof mine.host);
    for (int row = 0; row < ROWS && ts_trace_stream_label(trace, row); row++)
        snprintf(mine.rows[row], sizeof mine.rows[row], "%s", ts_trace_stream_label(trace, row));
    TS_TRY_TO(status, out, world->ops->all_gather(world, &mine, heads, sizeof mine));
    int64_t most = 1;
    for (int r = 0; r < world->size; r++) {
        if (heads[r].n > most) most = heads[r].n;
        if (!strcmp(heads[r].host, heads[0].host)) heads[r].offset_ns = 0;
    }
    all = calloc((size_t)most * (size_t)world->size, sizeof *all);
    padded = calloc((size_t)most, sizeof *padded);
    if (!all || !padded) {
        status = TS_ERROR(TS_ENOMEM, "no memory for %lld spans of %d ranks", (long long)most,
                          world->size);
        goto out;
    }
    if (n) memcpy(padded, spans, (size_t)n * sizeof *spans);
    TS_TRY_TO(status, out,
              world->ops->all_gather(world, padded, all, (size_t)most * sizeof *padded));
    if (world->rank == 0) TS_TRY_TO(status, out, write_trace(path, world->size, heads, all, most));
out:
    free(padded);
    free(all);
    free(heads);
    return status;
}
