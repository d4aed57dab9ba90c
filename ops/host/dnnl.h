/* dnnl.h - the few things we ask of oneDNN, the same for 2.x (operation descriptors; memory
 * descriptors are structs) and 3.x (primitive descriptors made at once; memory descriptors are
 * handles). What differs between them is in dnnl.c and nowhere else. */
#ifndef TS_OPS_HOST_DNNL_H
#define TS_OPS_HOST_DNNL_H

#include <dnnl.h>

#include "ops/op.h"

/* A memory descriptor; release with ts_md_close. */
typedef struct ts_md {
    dnnl_memory_desc_t md;
    bool open;
} ts_md;

typedef enum ts_conv_pass { TS_CONV_FORWARD, TS_CONV_DATA, TS_CONV_WEIGHTS } ts_conv_pass;

/* One engine for the process: the CPU. */
ts_status ts_dnnl_engine(dnnl_engine_t *engine_p);
/* Turns a oneDNN status into ours. */
ts_status ts_dnnl_check(dnnl_status_t status, const char *what);

/* dnnl_format_tag_any lets the library choose. */
ts_status ts_md_open(ts_md *md, int n_dims, const int64_t *dims, ts_type type,
                     dnnl_format_tag_t tag);
/* A descriptor that a primitive descriptor has chosen. */
ts_status ts_md_query(ts_md *md, const_dnnl_primitive_desc_t pd, dnnl_query_t what);
void ts_md_close(ts_md *md);
size_t ts_md_bytes(const ts_md *md);
bool ts_md_same(const ts_md *a, const ts_md *b);
bool ts_md_has_tag(const ts_md *md, int n_dims, const int64_t *dims, ts_type type,
                   dnnl_format_tag_t tag);
ts_status ts_md_memory(const ts_md *md, dnnl_memory_t *memory_p);

/* A convolution of one pass, direct or by Winograd's method; `hint` is the forward's for the
 * backward passes. Scratch memory is the caller's. A status that is not dnnl_success: not served.
 */
dnnl_status_t ts_dnnl_conv(ts_conv_pass pass, bool winograd, bool training, const ts_md *src,
                           const ts_md *weights, const ts_md *dst, int stride, int padding,
                           const_dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *pd_p);
ts_status ts_dnnl_reorder(const ts_md *from, const ts_md *to, dnnl_primitive_t *primitive_p);
/* Has this processor matrix tiles (AMX)? The library has then asked the kernel for their use. */
bool ts_dnnl_has_tiles(void);
/* Has it bf16 dot products, but no tiles? */
bool ts_dnnl_bf16_without_tiles(void);
/* The last bytes a primitive needs as scratch. */
size_t ts_dnnl_scratch(const_dnnl_primitive_desc_t pd);

#endif
