/* mlp.c - two small networks for tests and first tries: a perceptron with one hidden layer, and a
 * residual block between convolutions, which has every kind of node that ResNet18 has. */
#include "models/builder.h"

static ts_status build_mlp(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_linear(b, ts_build_input(b), "fc1", 64, true);
    ts_build_linear(b, x, "fc2", classes, false);
    return TS_OK;
}

static ts_status build_tiny(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_conv(b, ts_build_input(b), "conv1", 8, 3, 1, 1);
    x = ts_build_batch_norm(b, x, "bn1", -1, true);
    int y = ts_build_conv(b, x, "conv2", 16, 3, 2, 1);
    y = ts_build_batch_norm(b, y, "bn2", -1, true);
    y = ts_build_conv(b, y, "conv3", 16, 3, 1, 1);
    int beside = ts_build_conv(b, x, "downsample.0", 16, 1, 2, 0);
    beside = ts_build_batch_norm(b, beside, "downsample.1", -1, false);
    x = ts_build_batch_norm(b, y, "bn3", beside, true);
    x = ts_build_average_pool(b, x, 0, 0);
    ts_build_linear(b, x, "fc", classes, false);
    return TS_OK;
}

const ts_network ts_network_mlp = {"mlp", build_mlp, "one hidden layer of 64"};
const ts_network ts_network_tiny = {"tiny", build_tiny, "one residual block, 8 and 16 channels"};
