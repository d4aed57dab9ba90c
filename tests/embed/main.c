/* main.c - a program of one's own on libtwinstream: its network, its options, its result. */
#include <math.h>
#include <stdio.h>

#include <twinstream.h>

static ts_status small(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_conv(b, ts_build_input(b), "conv", 8, 3, 1, 1);
    x = ts_build_batch_norm(b, x, "bn", -1, true);
    x = ts_build_average_pool(b, x, 0, 0);
    ts_build_linear(b, x, "fc", classes, false);
    return TS_OK;
}

static const ts_network network = {"small", small, "one convolution"};

int main(int argc, char **argv)
{
    ts_session *session;
    ts_result result;
    ts_status status = ts_session_open(&session);
    if (!status) status = ts_session_add_network(session, &network);
    if (!status) status = ts_session_set(session, "model", "small");
    if (!status) status = ts_session_set(session, "algorithm", "cocod");
    if (!status) status = ts_session_set(session, "period", "2");
    if (!status) status = ts_session_set(session, "data", "synthetic:train=256,test=64,size=8");
    if (!status) status = ts_session_parse(session, argc, argv);
    if (!status) status = ts_session_train(session, &result);
    if (!status && ts_session_rank(session) == 0)
        printf("%d ranks, %lld steps, test accuracy %.3f\n", ts_session_size(session),
               (long long)result.steps, result.test_accuracy);
    if (!status && !(result.test_accuracy >= 0 && result.test_accuracy <= 1)) return 1;
    if (!status && !(result.train_loss > 0)) return 1;
    return ts_session_close(session, status);
}
