/* vgg.c - VGG16 with batch norm (Simonyan, Zisserman: "Very deep convolutional networks",
 * ICLR 2015) with torchvision's structure and names. Pictures below 64 pixels get the CIFAR form
 * with one linear layer, "classifier". torchvision's convolutions have biases, which batch norm
 * makes void: they are not trained here, and exports hold zeros for them. So the CIFAR form trains
 * 14,724,042 parameters (PyTorch counts 14,728,266) and the ImageNet form 138,361,768 (PyTorch
 * counts 138,365,992). */
#include <stdio.h>

#include "models/builder.h"

static ts_status build(ts_builder *b, ts_shape input, int classes)
{
    static const int plan[] = {64, 64,  0,   128, 128, 0,   256, 256, 256,
                               0,  512, 512, 512, 0,   512, 512, 512, 0}; /* 0: pool */
    int x = ts_build_input(b), index = 0;
    for (size_t i = 0; i < sizeof plan / sizeof *plan; i++) {
        char name[24];
        if (!plan[i]) {
            x = ts_build_max_pool(b, x, 2, 2, 0);
            index++;
            continue;
        }
        snprintf(name, sizeof name, "features.%d", index);
        x = ts_build_conv(b, x, name, plan[i], 3, 1, 1);
        ts_build_plain_bias(b, x);
        snprintf(name, sizeof name, "features.%d", index + 1);
        x = ts_build_batch_norm(b, x, name, -1, true);
        index += 3; /* convolution, batch norm, ReLU */
    }
    ts_build_set_linear_deviation(b, 0.01f);
    if (input.h < 64) {
        x = ts_build_average_pool(b, x, 0, 0);
        ts_build_linear(b, x, "classifier", classes, false);
        return TS_OK;
    }
    /* torchvision pools to 7x7 whatever comes; at 224 pixels that is what comes */
    TS_NEED(ts_build_shape(b, x).h == 7 && ts_build_shape(b, x).w == 7, TS_EUSAGE,
            "vgg16 takes pictures below 64 pixels, or of 224, not %dx%d", input.h, input.w);
    x = ts_build_linear(b, x, "classifier.0", 4096, true);
    x = ts_build_dropout(b, x, 0.5f);
    x = ts_build_linear(b, x, "classifier.3", 4096, true);
    x = ts_build_dropout(b, x, 0.5f);
    ts_build_linear(b, x, "classifier.6", classes, false);
    return TS_OK;
}

const ts_network ts_network_vgg16 = {
    "vgg16", build, "VGG16 with batch norm; below 64 pixels with one linear layer"};
