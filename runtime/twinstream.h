/* twinstream.h - the public header of libtwinstream.
 *
 * Build a network of your own or take one by name, set options as on the command line, train on
 * the ranks that an MPI launcher started (or alone), and get the result. A whole program:
 *
 *     #include <twinstream.h>
 *     static ts_status small(ts_builder *b, ts_shape input, int classes)
 *     {
 *         int x = ts_build_conv(b, ts_build_input(b), "conv", 16, 3, 1, 1);
 *         x = ts_build_batch_norm(b, x, "bn", -1, true);
 *         x = ts_build_average_pool(b, x, 0, 0);
 *         ts_build_linear(b, x, "fc", classes, false);
 *         return TS_OK;
 *     }
 *     int main(void)
 *     {
 *         ts_session *session;
 *         ts_result result;
 *         static const ts_network network = {"small", small, "an example"};
 *         ts_status status = ts_session_open(&session);
 *         if (!status) status = ts_session_add_network(session, &network);
 *         if (!status) status = ts_session_set(session, "model", "small");
 *         if (!status) status = ts_session_set(session, "algorithm", "cocod");
 *         if (!status) status = ts_session_train(session, &result);
 *         return ts_session_close(session, status);
 *     }
 *
 * Errors: every call returns ts_status; ts_trail_message() describes this thread's last failure.
 * One session at a time in a process. The library's own headers include this one for the types
 * below, and say more. */
#ifndef TWINSTREAM_H
#define TWINSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*    status          exit  text */
#define TS_STATUS_MAP(X)                                                                           \
    X(TS_OK, 0, "ok")                                                                              \
    X(TS_EUSAGE, 64, "invalid option or argument")                                                 \
    X(TS_EDATA, 65, "bad input data")                                                              \
    X(TS_ENOMEM, 70, "out of memory")                                                              \
    X(TS_EIO, 70, "file or socket error")                                                          \
    X(TS_EUNSUPPORTED, 70, "not supported by this device or build")                                \
    X(TS_EDEVICE, 70, "device or device library call failed")                                      \
    X(TS_ECOMM, 70, "communication failed")                                                        \
    X(TS_EPEER, 70, "another rank failed")                                                         \
    X(TS_ETIMEOUT, 70, "a rank did not answer in time")                                            \
    X(TS_EDIVERGED, 70, "the loss is not finite")                                                  \
    X(TS_ESTOPPED, 75, "asked to stop; state was saved")

typedef enum ts_status {
#define X(code, exit_code, text) code,
    TS_STATUS_MAP(X)
#undef X
        TS_STATUS_COUNT
} ts_status;

const char *ts_status_text(ts_status status);
/* What went wrong last in this thread, with the values that matter; "" when nothing did. */
const char *ts_trail_message(void);

/* Pictures x channels x rows x columns: the logical order; how elements lie is the layout's. */
typedef struct ts_shape {
    int n, c, h, w;
} ts_shape;

/* ---- building; each call adds a node and returns its index, or -1 after the first failure,
 * which ts_model_open reports. `name` is the torchvision prefix ("layer1.0.conv1"); "" nodes
 * without parameters. ---- */
typedef struct ts_builder ts_builder;
typedef ts_status ts_build(ts_builder *builder, ts_shape input, int classes);

int ts_build_input(ts_builder *builder);
int ts_build_conv(ts_builder *builder, int from, const char *name, int channels, int kernel,
                  int stride, int padding);
/* `add`: node whose output is added before the ReLU, -1 for none. */
int ts_build_batch_norm(ts_builder *builder, int from, const char *name, int add, bool relu);
int ts_build_max_pool(ts_builder *builder, int from, int kernel, int stride, int padding);
/* kernel 0: global average. */
int ts_build_average_pool(ts_builder *builder, int from, int kernel, int stride);
/* Each element is kept or dropped anew in each local step, alike on all ranks. */
int ts_build_dropout(ts_builder *builder, int from, float probability);
int ts_build_linear(ts_builder *builder, int from, const char *name, int features, bool relu);
/* The shape a node's output has; n is 1. */
ts_shape ts_build_shape(const ts_builder *builder, int node);

typedef struct ts_network {
    const char *name; /* "resnet18" */
    ts_build *build;
    const char *help;
} ts_network;

typedef struct ts_result {
    int64_t steps;            /* local steps of each rank, those before a resume included */
    double seconds;           /* of this process's local steps */
    double images_per_second; /* all ranks */
    double test_accuracy;     /* of the consensus model, share of 1; NaN: not evaluated */
    double test_loss;
    double train_loss; /* rank 0's mean between the last two evaluations; NaN: not evaluated */
    double hidden;     /* share of communication time that compute did not wait for */
    double contention; /* compute's slow-down while comm runs beside it; NaN: unknown */
    char run[512];     /* the run's folder; "" for evaluation */
} ts_result;

/* ---- a session: options, ranks, training ---- */
typedef struct ts_session ts_session;

/* Joins the ranks that an MPI launcher started, or is alone; options have their initial values. */
ts_status ts_session_open(ts_session **session_p);
/* Describes a failure once, frees everything, and ends the other ranks when this one failed;
 * returns the exit code for main(). */
int ts_session_close(ts_session *session, ts_status status);
/* `network` is borrowed until the session is closed; its name becomes a value of "model". */
ts_status ts_session_add_network(ts_session *session, const ts_network *network);
/* An option by its command-line name, without dashes: ("period", "8"). */
ts_status ts_session_set(ts_session *session, const char *key, const char *value);
/* A file, TWINSTREAM_* and a command line, as the program reads them; argv[0] is skipped. */
ts_status ts_session_parse(ts_session *session, int argc, char **argv);
int ts_session_rank(const ts_session *session);
int ts_session_size(const ts_session *session);
/* Train, or score the option "weights", as the options say. Every rank gets the result. */
ts_status ts_session_train(ts_session *session, ts_result *result);
ts_status ts_session_evaluate(ts_session *session, ts_result *result);
/* Finish the step, save and return TS_ESTOPPED; safe in a signal handler. Behind the last step of a
 * run it is forgotten: a program that trains again keeps a flag of its own. */
void ts_train_stop(void);

#ifdef __cplusplus
}
#endif
#endif
