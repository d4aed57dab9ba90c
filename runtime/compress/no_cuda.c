/* no_cuda.c - see runtime/device/no_cuda.h. */
#include "runtime/compress/code.h"
#include "runtime/device/no_cuda.h"

TS_NO_CUDA(ts_raw_encode_enqueue)
TS_NO_CUDA(ts_raw_decode_enqueue)
TS_NO_CUDA(ts_bf16_encode_enqueue)
TS_NO_CUDA(ts_bf16_decode_enqueue)
TS_NO_CUDA(ts_qsgd_encode_enqueue)
TS_NO_CUDA(ts_terngrad_encode_enqueue)
TS_NO_CUDA(ts_quantised_decode_enqueue)
TS_NO_CUDA(ts_topk_encode_enqueue)
TS_NO_CUDA(ts_topk_decode_enqueue)
TS_NO_CUDA(ts_randomk_encode_enqueue)
TS_NO_CUDA(ts_randomk_decode_enqueue)
