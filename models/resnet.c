/* resnet.c - ResNets (He, Zhang, Ren, Sun: "Deep residual learning for image recognition", CVPR
 * 2016) of basic blocks, with torchvision's structure and names.
 *
 * ResNet18: pictures below 64 pixels get the CIFAR form, a 3x3 stem without pooling; 11,173,962
 * parameters with 10 classes. Else the ImageNet form: 11,689,512 with 1000.
 * ResNet20 is the paper's small network for CIFAR (section 4.2, n = 3): 272,474 parameters with 10
 * classes. Where the shape changes the shortcut is a 1x1 projection with batch norm, the paper's
 * option B; its experiments on CIFAR padded with zeros (option A), 2,752 parameters less. */
#include <stdio.h>

#include "models/builder.h"

static int named_conv(ts_builder *b, int x, const char *prefix, const char *name, int channels,
                      int kernel, int stride)
{
    char full[48];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    return ts_build_conv(b, x, full, channels, kernel, stride, kernel / 2);
}

static int named_norm(ts_builder *b, int x, const char *prefix, const char *name, int add,
                      bool relu)
{
    char full[48];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    return ts_build_batch_norm(b, x, full, add, relu);
}

/* Two 3x3 convolutions beside the input, or beside its 1x1 projection where the shape changes. */
static int basic_block(ts_builder *b, int x, const char *prefix, int channels, int stride)
{
    int beside = x;
    int y = named_conv(b, x, prefix, "conv1", channels, 3, stride);
    y = named_norm(b, y, prefix, "bn1", -1, true);
    y = named_conv(b, y, prefix, "conv2", channels, 3, 1);
    if (stride != 1 || ts_build_shape(b, x).c != channels) {
        beside = named_conv(b, x, prefix, "downsample.0", channels, 1, stride);
        beside = named_norm(b, beside, prefix, "downsample.1", -1, false);
    }
    return named_norm(b, y, prefix, "bn2", beside, true);
}

/* The stages of `blocks` basic blocks each, then the classifier. */
static ts_status stages(ts_builder *b, int x, int count, int blocks, int channels, int classes)
{
    for (int stage = 0; stage < count; stage++)
        for (int block = 0; block < blocks; block++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "layer%d.%d", stage + 1, block);
            x = basic_block(b, x, prefix, channels << stage, stage && !block ? 2 : 1);
        }
    x = ts_build_average_pool(b, x, 0, 0);
    ts_build_linear(b, x, "fc", classes, false);
    return TS_OK;
}

static ts_status build_18(ts_builder *b, ts_shape input, int classes)
{
    int x = ts_build_input(b);
    bool small = input.h < 64;
    x = ts_build_conv(b, x, "conv1", 64, small ? 3 : 7, small ? 1 : 2, small ? 1 : 3);
    x = ts_build_batch_norm(b, x, "bn1", -1, true);
    if (!small) x = ts_build_max_pool(b, x, 3, 2, 1);
    return stages(b, x, 4, 2, 64, classes);
}

static ts_status build_20(ts_builder *b, ts_shape input, int classes)
{
    (void)input;
    int x = ts_build_conv(b, ts_build_input(b), "conv1", 16, 3, 1, 1);
    x = ts_build_batch_norm(b, x, "bn1", -1, true);
    return stages(b, x, 3, 3, 16, classes);
}

const ts_network ts_network_resnet18 = {"resnet18", build_18,
                                        "ResNet18; below 64 pixels with CIFAR's 3x3 stem"};
const ts_network ts_network_resnet20 = {"resnet20", build_20,
                                        "the paper's ResNet for CIFAR: 16, 32, 64 channels"};
