/* dnnl.c - both generations of oneDNN's C API behind dnnl.h. The library decides at compile time
 * which half is built. */
#include "ops/host/dnnl.h"

#include <stdio.h>

static const dnnl_data_type_t types[] = {
    [TS_F32] = dnnl_f32, [TS_BF16] = dnnl_bf16, [TS_I32] = dnnl_s32, [TS_U8] = dnnl_u8};

ts_status ts_dnnl_check(dnnl_status_t status, const char *what)
{
    TS_NEED(status == dnnl_success, status == dnnl_out_of_memory ? TS_ENOMEM : TS_EDEVICE,
            "oneDNN: %s failed with status %d (ONEDNN_VERBOSE=1 tells more)", what, (int)status);
    return TS_OK;
}

ts_status ts_dnnl_engine(dnnl_engine_t *engine_p)
{
    static dnnl_engine_t engine; /* lives as long as the process */
    if (!engine) TS_TRY(ts_dnnl_check(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine"));
    *engine_p = engine;
    return TS_OK;
}

void ts_op_library_version(char *text, size_t bytes)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, bytes, "%d.%d.%d", v->major, v->minor, v->patch);
}

bool ts_op_prefers_bf16(const ts_device *device)
{
    if (device && device->ops->has_bf16) return device->ops->has_bf16(device);
    /* every later instruction set holds the bits of the earlier ones */
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(), bf16 = dnnl_cpu_isa_avx512_core_bf16;
    return (isa & bf16) == bf16;
}

bool ts_md_has_tag(const ts_md *md, int n_dims, const int64_t *dims, ts_type type,
                   dnnl_format_tag_t tag)
{
    ts_md named = {0};
    bool same = !ts_md_open(&named, n_dims, dims, type, tag) && ts_md_same(md, &named);
    ts_md_close(&named);
    ts_trail_clear();
    return same;
}

bool ts_dnnl_has_tiles(void)
{
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(), tiles = dnnl_cpu_isa_avx512_core_amx;
    return (isa & tiles) == tiles;
}

bool ts_dnnl_bf16_without_tiles(void)
{
    return ts_op_prefers_bf16(NULL) && !ts_dnnl_has_tiles();
}

ts_status ts_md_memory(const ts_md *md, dnnl_memory_t *memory_p)
{
    dnnl_engine_t engine = NULL;
    TS_TRY(ts_dnnl_engine(&engine));
#if DNNL_VERSION_MAJOR >= 3
    return ts_dnnl_check(dnnl_memory_create(memory_p, md->md, engine, DNNL_MEMORY_NONE), "memory");
#else
    return ts_dnnl_check(dnnl_memory_create(memory_p, &md->md, engine, DNNL_MEMORY_NONE), "memory");
#endif
}

static dnnl_status_t scratch_by_caller(dnnl_primitive_attr_t *attr_p)
{
    dnnl_status_t status = dnnl_primitive_attr_create(attr_p);
    if (!status)
        status = dnnl_primitive_attr_set_scratchpad_mode(*attr_p, dnnl_scratchpad_mode_user);
    return status;
}

#if DNNL_VERSION_MAJOR >= 3

ts_status ts_md_open(ts_md *md, int n_dims, const int64_t *dims, ts_type type,
                     dnnl_format_tag_t tag)
{
    TS_TRY(ts_dnnl_check(dnnl_memory_desc_create_with_tag(&md->md, n_dims, dims, types[type], tag),
                         "memory descriptor"));
    md->open = true;
    return TS_OK;
}

ts_status ts_md_query(ts_md *md, const_dnnl_primitive_desc_t pd, dnnl_query_t what)
{
    const_dnnl_memory_desc_t found = dnnl_primitive_desc_query_md(pd, what, 0);
    TS_NEED(found, TS_EDEVICE, "oneDNN: a primitive has no memory descriptor %d", (int)what);
    TS_TRY(ts_dnnl_check(dnnl_memory_desc_clone(&md->md, found), "memory descriptor"));
    md->open = true;
    return TS_OK;
}

void ts_md_close(ts_md *md)
{
    if (md->open) dnnl_memory_desc_destroy(md->md);
    md->open = false;
}

size_t ts_md_bytes(const ts_md *md)
{
    return dnnl_memory_desc_get_size(md->md);
}

bool ts_md_same(const ts_md *a, const ts_md *b)
{
    return dnnl_memory_desc_equal(a->md, b->md) != 0;
}

dnnl_status_t ts_dnnl_conv(ts_conv_pass pass, bool winograd, bool training, const ts_md *src,
                           const ts_md *weights, const ts_md *dst, int stride, int padding,
                           const_dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *pd_p)
{
    dnnl_engine_t engine = NULL;
    dnnl_primitive_attr_t attr = NULL;
    const dnnl_alg_kind_t method = winograd ? dnnl_convolution_winograd : dnnl_convolution_direct;
    const dnnl_dims_t strides = {stride, stride}, pads = {padding, padding}, dilates = {0, 0};
    if (ts_dnnl_engine(&engine)) return dnnl_runtime_error;
    dnnl_status_t status = scratch_by_caller(&attr);
    if (status) return status;
    switch (pass) {
    case TS_CONV_FORWARD:
        status = dnnl_convolution_forward_primitive_desc_create(
            pd_p, engine, training ? dnnl_forward_training : dnnl_forward_inference, method,
            src->md, weights->md, NULL, dst->md, strides, dilates, pads, pads, attr);
        break;
    case TS_CONV_DATA:
        status = dnnl_convolution_backward_data_primitive_desc_create(
            pd_p, engine, method, src->md, weights->md, dst->md, strides, dilates, pads, pads, hint,
            attr);
        break;
    case TS_CONV_WEIGHTS:
        status = dnnl_convolution_backward_weights_primitive_desc_create(
            pd_p, engine, method, src->md, weights->md, NULL, dst->md, strides, dilates, pads, pads,
            hint, attr);
        break;
    }
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static dnnl_status_t reorder_pd(dnnl_primitive_desc_t *pd_p, const ts_md *from, const ts_md *to,
                                dnnl_engine_t engine)
{
    return dnnl_reorder_primitive_desc_create(pd_p, from->md, engine, to->md, engine, NULL);
}

size_t ts_dnnl_scratch(const_dnnl_primitive_desc_t pd)
{
    const_dnnl_memory_desc_t md = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    return md ? dnnl_memory_desc_get_size(md) : 0;
}

#else

ts_status ts_md_open(ts_md *md, int n_dims, const int64_t *dims, ts_type type,
                     dnnl_format_tag_t tag)
{
    TS_TRY(ts_dnnl_check(dnnl_memory_desc_init_by_tag(&md->md, n_dims, dims, types[type], tag),
                         "memory descriptor"));
    md->open = true;
    return TS_OK;
}

ts_status ts_md_query(ts_md *md, const_dnnl_primitive_desc_t pd, dnnl_query_t what)
{
    const dnnl_memory_desc_t *found = dnnl_primitive_desc_query_md(pd, what, 0);
    TS_NEED(found, TS_EDEVICE, "oneDNN: a primitive has no memory descriptor %d", (int)what);
    md->md = *found;
    md->open = true;
    return TS_OK;
}

void ts_md_close(ts_md *md)
{
    md->open = false;
}

size_t ts_md_bytes(const ts_md *md)
{
    return dnnl_memory_desc_get_size(&md->md);
}

bool ts_md_same(const ts_md *a, const ts_md *b)
{
    return dnnl_memory_desc_equal(&a->md, &b->md) != 0;
}

dnnl_status_t ts_dnnl_conv(ts_conv_pass pass, bool winograd, bool training, const ts_md *src,
                           const ts_md *weights, const ts_md *dst, int stride, int padding,
                           const_dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *pd_p)
{
    dnnl_engine_t engine = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_convolution_desc_t desc;
    const dnnl_alg_kind_t method = winograd ? dnnl_convolution_winograd : dnnl_convolution_direct;
    const dnnl_dims_t strides = {stride, stride}, pads = {padding, padding};
    if (ts_dnnl_engine(&engine)) return dnnl_runtime_error;
    dnnl_status_t status = dnnl_invalid_arguments;
    switch (pass) {
    case TS_CONV_FORWARD:
        status = dnnl_convolution_forward_desc_init(
            &desc, training ? dnnl_forward_training : dnnl_forward_inference, method, &src->md,
            &weights->md, NULL, &dst->md, strides, pads, pads);
        break;
    case TS_CONV_DATA:
        status = dnnl_convolution_backward_data_desc_init(&desc, method, &src->md, &weights->md,
                                                          &dst->md, strides, pads, pads);
        break;
    case TS_CONV_WEIGHTS:
        status = dnnl_convolution_backward_weights_desc_init(&desc, method, &src->md, &weights->md,
                                                             NULL, &dst->md, strides, pads, pads);
        break;
    }
    if (!status) status = scratch_by_caller(&attr);
    if (!status) status = dnnl_primitive_desc_create(pd_p, &desc, attr, engine, hint);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return status;
}

static dnnl_status_t reorder_pd(dnnl_primitive_desc_t *pd_p, const ts_md *from, const ts_md *to,
                                dnnl_engine_t engine)
{
    return dnnl_reorder_primitive_desc_create(pd_p, &from->md, engine, &to->md, engine, NULL);
}

size_t ts_dnnl_scratch(const_dnnl_primitive_desc_t pd)
{
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    return md ? dnnl_memory_desc_get_size(md) : 0;
}

#endif

ts_status ts_dnnl_reorder(const ts_md *from, const ts_md *to, dnnl_primitive_t *primitive_p)
{
    dnnl_engine_t engine = NULL;
    dnnl_primitive_desc_t pd;
    TS_TRY(ts_dnnl_engine(&engine));
    TS_TRY(ts_dnnl_check(reorder_pd(&pd, from, to, engine), "reorder"));
    dnnl_status_t status = dnnl_primitive_create(primitive_p, pd);
    dnnl_primitive_desc_destroy(pd);
    return ts_dnnl_check(status, "reorder");
}
