/* norm_element.h - batch norm for one channel and one element; host and CUDA kernels call these. */
#ifndef TS_OPS_NORM_ELEMENT_H
#define TS_OPS_NORM_ELEMENT_H

#include <math.h>

#include "ops/element.h"

/* Where the ReLU let its input pass: everywhere (there is none), where y > 0, where gain x + bias
 * > 0 (y needs not be read). */
typedef enum ts_norm_mask { TS_MASK_NONE, TS_MASK_Y, TS_MASK_X } ts_norm_mask;

static inline ts_norm_mask ts_norm_mask_of(const ts_op_desc *d)
{
    return !d->relu ? TS_MASK_NONE : d->add ? TS_MASK_Y : TS_MASK_X;
}

/* One channel after the forward sums. */
typedef struct ts_norm_channel {
    float mean, inverse;                  /* inverse: 1 / deviation */
    float gain, bias;                     /* y = gain x + bias, before residual and ReLU */
    float running_mean, running_variance; /* updated */
} ts_norm_channel;

/* From the sums over `count` elements of x - center and of its square. */
TS_HD ts_norm_channel ts_norm_forward_channel(const ts_op_desc *d, double sum, double squares,
                                              double center, double count, float weight, float bias,
                                              float running_mean, float running_variance)
{
    double offset = sum / count, mean = center + offset;
    double variance = squares / count - offset * offset;
    if (variance < 0) variance = 0;
    double unbiased = count > 1 ? variance * count / (count - 1) : variance;
    double inverse = 1 / sqrt(variance + (double)d->epsilon), old = 1 - (double)d->momentum;
    ts_norm_channel c;
    c.mean = (float)mean;
    c.inverse = (float)inverse;
    c.gain = (float)(weight * inverse);
    c.bias = (float)(bias - mean * inverse * weight);
    c.running_mean = (float)(old * running_mean + (double)d->momentum * mean);
    c.running_variance = (float)(old * running_variance + (double)d->momentum * unbiased);
    return c;
}

/* gain and bias of the running statistics. */
TS_HD void ts_norm_inference_channel(const ts_op_desc *d, float weight, float bias,
                                     float running_mean, float running_variance, float *gain_p,
                                     float *bias_p)
{
    double inverse = 1 / sqrt((double)running_variance + (double)d->epsilon);
    *gain_p = (float)(weight * inverse);
    *bias_p = (float)(bias - running_mean * inverse * weight);
}

/* One channel after the backward sums: dx = scale g + slope x + shift. */
typedef struct ts_norm_gradient {
    float dweight, dbias, scale, slope, shift;
} ts_norm_gradient;

/* From the sums over `count` elements of the gradient and of gradient times x - mean. */
TS_HD ts_norm_gradient ts_norm_backward_channel(double sum, double dot, double count, double mean,
                                                double inverse, float weight)
{
    double gain = weight * inverse, slope = -gain * inverse * inverse * dot / count;
    ts_norm_gradient g;
    g.dweight = (float)(dot * inverse);
    g.dbias = (float)sum;
    g.scale = (float)gain;
    g.slope = (float)slope;
    g.shift = (float)(-gain * sum / count - slope * mean);
    return g;
}

/* y, before it is rounded to its type. */
TS_HD float ts_norm_apply(float x, float gain, float bias, float residual, int relu)
{
    float y = fmaf(x, gain, bias) + residual;
    return relu ? ts_relu(y) : y;
}

/* The gradient g behind the ReLU. */
TS_HD float ts_norm_masked(float g, ts_norm_mask mask, float x, float gain, float bias, float y)
{
    if (mask == TS_MASK_Y) return y > 0 ? g : 0;
    if (mask == TS_MASK_X) return fmaf(x, gain, bias) > 0 ? g : 0;
    return g;
}

TS_HD float ts_norm_dx(float g, float x, float scale, float slope, float shift)
{
    return fmaf(g, scale, fmaf(x, slope, shift));
}

#endif
