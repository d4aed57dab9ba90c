/* shares.h - ranks of unequal speed: how the pictures of a step are divided among them.
 *
 * Proportionate sampling as in CoCoD-SGD's paper (arXiv:1906.12043): rank i's mini-batch B_i, and
 * with it its share of the data, is such that all ranks finish their k steps together; averages are
 * weighted by p_i = B_i / sum of B, so that the mean gradient is that over all pictures. The sum
 * stays --batch x ranks, and with it the steps of an epoch, the schedule and the learning rate.
 * An average in flight when batches are divided anew was made with the weights before. */
#ifndef TS_TRAIN_SHARES_H
#define TS_TRAIN_SHARES_H

#include "runtime/train/trainer.h"

/* What a rank's local step takes: fixed_s whatever its batch (update, merge), picture_s a picture.
 */
typedef struct ts_cost {
    double fixed_s, picture_s;
    double batch; /* what it should have, not rounded: ts_shares_divide */
} ts_cost;

/* Relative speeds, one for each of `size` ranks with commas between, as costs. TS_EUSAGE says what
 * is wrong with the list. */
ts_status ts_shares_parse(const char *list, int size, ts_cost *costs);
/* `batches` [size], at least 1 each, `pictures` (>= size) together: those that make all steps take
 * the same time, rounded by largest remainders (of equal ones the lower rank's goes first). */
void ts_shares_divide(int size, ts_cost *costs, int64_t pictures, int *batches);
/* "11,5", or of many ranks the least and the most: for messages. */
const char *ts_shares_text(int size, const int *batches, char *text, size_t bytes);

/* trainer->shares as the options say; with --shares measured equal batches at first. */
ts_status ts_shares_open(ts_trainer *trainer);
void ts_shares_close(ts_trainer *trainer);
/* Settle what is measured. A run that resumes `from` a checkpoint (NULL: it does not) goes on with
 * the checkpoint's batches where they were measured or may have been divided anew; a list, and
 * equal, mean what they say. Before an algorithm is open; blocks. Collective. */
ts_status ts_shares_settle(ts_trainer *trainer, const char *from);
/* After an epoch's last step: where the slowest rank's steps have taken 15 % longer than the mean,
 * divide anew. Blocks, and then allocates. Collective. */
ts_status ts_shares_review(ts_trainer *trainer, ts_evaluator *evaluator);

#endif
