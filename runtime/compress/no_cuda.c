/* no_cuda.c - see runtime/device/no_cuda.c. */
#include "runtime/compress/code.h"

#define STUB(name)                                                                                 \
    ts_status name(const void *args, void *cuda_stream)                                            \
    {                                                                                              \
        (void)args;                                                                                \
        (void)cuda_stream;                                                                         \
        return TS_ERROR(TS_EUNSUPPORTED, "this build is without CUDA");                            \
    }
STUB(ts_raw_encode_enqueue)
STUB(ts_raw_decode_enqueue)
STUB(ts_bf16_encode_enqueue)
STUB(ts_bf16_decode_enqueue)
STUB(ts_qsgd_encode_enqueue)
STUB(ts_terngrad_encode_enqueue)
STUB(ts_quantised_decode_enqueue)
STUB(ts_topk_encode_enqueue)
STUB(ts_topk_decode_enqueue)
STUB(ts_randomk_encode_enqueue)
STUB(ts_randomk_decode_enqueue)
