/* echo.h - data echoing: each fresh sample is used e times, so that training goes on while reading
 * is slower (Choi, Passos, Shallue, Dahl: "Faster neural network training with data echoing",
 * arXiv:1907.05550).
 *
 * A rank's fresh samples have numbers in the order of its epochs. Local step s trains on `batch` of
 * them in a row, from F(s) on:
 *     batch               F(s) = floor(s / e) batch     whole batches are repeated
 *     example, augmented  F(s) = ceil(s batch / e)      the window slides by batch / e samples
 * In place of the paper's shuffle buffer a window slides: a sample comes back in e successive
 * steps, never twice in one (but where that spans the end of an epoch), and steps need fresh
 * samples evenly; batches that follow each other share 1 - 1/e of theirs. e need not be whole: a
 * sample (or batch) is used floor(e) or ceil(e) times, e in the mean; which ones is spread evenly
 * instead of drawn. F depends on the step alone, so nothing has to be remembered. */
#ifndef TS_DATA_ECHO_H
#define TS_DATA_ECHO_H

#include <math.h>
#include <stdint.h>

#include "runtime/base/random.h" /* TS_HD */

typedef enum ts_echo_place {
    TS_ECHO_EXAMPLE,   /* before augmentation: each use is augmented anew */
    TS_ECHO_AUGMENTED, /* after it: each use has the same bits */
    TS_ECHO_BATCH      /* the whole batch again, the same bits */
} ts_echo_place;

/* All zeros: no echo. */
typedef struct ts_echo {
    double factor; /* e; at most 1: each sample is used once */
    int automatic; /* the window moves on, by a batch, when the host says so; factor is not read */
    ts_echo_place place;
} ts_echo;

/* F(step). */
TS_HD int64_t ts_echo_first(const ts_echo *e, int64_t step, int64_t batch)
{
    if (e->automatic) return 0;
    if (!(e->factor > 1)) return step * batch;
    if (e->place == TS_ECHO_BATCH) return (int64_t)floor((double)step / e->factor) * batch;
    return (int64_t)ceil((double)(step * batch) / e->factor);
}

/* Pictures that are made of one fresh sample: the most uses that may differ. */
TS_HD int ts_echo_copies(const ts_echo *e)
{
    return !e->automatic && e->place == TS_ECHO_EXAMPLE && e->factor > 1 ? (int)ceil(e->factor) : 1;
}

/* Which of its copies the sample at place n of the step's window is; the last use is copy 0, so
 * without echo all are. `repeats`: times that an automatic echo has used this window before. */
TS_HD int ts_echo_copy(const ts_echo *e, int64_t step, int64_t batch, int n, int64_t repeats)
{
    if (e->place != TS_ECHO_EXAMPLE) return 0;
    if (e->automatic) return (int)repeats;
    if (!(e->factor > 1)) return 0;
    double fresh = (double)(ts_echo_first(e, step, batch) + n);
    int copy = (int)((int64_t)floor(fresh * e->factor / (double)batch) - step);
    int most = ts_echo_copies(e) - 1; /* rounding of e may miss by one */
    return copy < 0 ? 0 : copy > most ? most : copy;
}

#endif
