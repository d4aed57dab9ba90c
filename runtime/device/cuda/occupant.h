/* occupant.h - a kernel with the footprint of an NCCL collective: a few large blocks, each on a
 * processor of its own, that stream memory. What runs beside it runs as it would beside an
 * all-reduce, without a second GPU. */
#ifndef TS_DEVICE_CUDA_OCCUPANT_H
#define TS_DEVICE_CUDA_OCCUPANT_H

#include "runtime/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The blocks that a collective gets unless asked otherwise: three in a hundred of an H200. */
enum { TS_COMM_BLOCKS = 4 };

typedef struct ts_occupant ts_occupant;
ts_status ts_occupant_open(ts_occupant **occupant_p);
void ts_occupant_close(ts_occupant *occupant);
/* Enqueue: copy `bytes` in all, or with 0 go on until stop is called; 0 blocks: nothing. */
ts_status ts_occupant_start(ts_occupant *occupant, int blocks, size_t bytes, void *cuda_stream);
/* At once, from the host; a start after it has an effect again once the stream is empty. */
void ts_occupant_stop(ts_occupant *occupant);

#ifdef __cplusplus
}
#endif

#endif
