/* compressor.h - what travels in place of a vector: an encoding of it in fewer bits.
 *
 * A rank encodes p = from - anchor + residual: a gradient or, with an anchor, a model's change
 * since the last average, and what earlier encodings have left out. The same kernels keep
 *     residual <- p - decode(encoding)
 * which is error feedback (Karimireddy et al., arXiv:1901.09847). Decoding adds up all ranks'
 * encodings in the order of the ranks, so every rank gets the same bits. Random decisions are
 * functions of (seed, call, rank, element), the same on host and CUDA. A NaN or an infinity that
 * travels arrives as one, or makes its whole block one.
 *
 * A message, what one collective carries, is cut into pieces, each encoded on its own (a layer's
 * weights, or all of it); what lies between them is raw and travels as fp32. Its encoding may be in
 * parts, which can be sent and decoded apart: as many elements each, one behind the other. */
#ifndef TS_COMPRESS_COMPRESSOR_H
#define TS_COMPRESS_COMPRESSOR_H

#include "runtime/base/option.h"
#include "runtime/device/device.h"

enum { TS_COMPRESS_RANKS_MAX = 0xffff };

/* How vectors are to travel; zeros: as they are, in fp32. */
typedef struct ts_compression {
    const char *name; /* of a compressor; NULL or "none" */
    const char *feedback, *scope, *exchange;
    int64_t levels, block;
    double density;
    double density_warmup; /* epochs */
    /* Not options. */
    uint64_t seed;
    int64_t epoch; /* local steps in one, for the warm-up of the density; 0: no warm-up */
} ts_compression;
extern const ts_option ts_compression_options[];

/* How a compressor cuts up a piece and what it sends of it. */
typedef struct ts_format {
    uint32_t chunk;   /* elements that one block of threads takes; a multiple of 64 */
    int bits, levels; /* of an element's code; bits 0: only some elements travel */
    enum { TS_NORM_NONE, TS_NORM_PIECE, TS_NORM_CHUNK } norm; /* an fp32 for each */
    int entry; /* bytes for an element that travels: value, or index and value; 0: all travel */
} ts_format;

/* What all ranks' encodings may be summed as on their way; else they are gathered. */
typedef enum ts_reduces { TS_REDUCES_NOT, TS_REDUCES_F32, TS_REDUCES_BF16 } ts_reduces;

typedef struct ts_compressor_ops {
    const char *name;    /* "qsgd" */
    const char *title;   /* "QSGD" */
    const char *paper;   /* "arXiv:1610.02132" */
    const char *travels; /* one line */
    /* the mean of decode(encode(p)) is p (terngrad: but for what it clips); else feedback is the
     * default */
    bool unbiased;
    bool scatters;          /* the mean of encodings may be encoded again without being asked for */
    bool layerless;         /* the same whether layers are encoded apart or together */
    bool corrects_momentum; /* dgc: it is for gradients, and takes over the optimizer's momentum */
    ts_reduces reduces;
    /* TS_EUSAGE when the settings make no sense for it. */
    ts_status (*format)(const ts_compression *settings, ts_format *format_p);
    const ts_kernel *encode, *decode; /* of the pieces; raw stretches are everyone's */
} ts_compressor_ops;

/* NULL-terminated: add a line to add one. */
extern const ts_compressor_ops *const ts_compressors[];
/* NULL for NULL and "none"; TS_EUSAGE for a name that nobody has and senseless settings. */
ts_status ts_compressor_find(const ts_compression *settings, const ts_compressor_ops **ops_p);
/* Is error feedback on? */
bool ts_compression_feedback(const ts_compression *settings, const ts_compressor_ops *ops);

/* A stretch of a message; both numbers are multiples of 64 elements. */
typedef struct ts_stretch {
    size_t at, n;
} ts_stretch;

typedef struct ts_compressor ts_compressor;
/* For messages of n elements, at most 2^28, in which `pieces` ascend, in `parts` of
 * as many elements (1: in one; more: only where all elements travel); a piece that a border crosses
 * is two. TS_EUSAGE for what cannot be encoded. Blocks on `stream`. */
ts_status ts_compressor_open(ts_stream *stream, const ts_compressor_ops *ops,
                             const ts_compression *settings, size_t n, const ts_stretch *pieces,
                             int n_pieces, int parts, ts_compressor **compressor_p);
void ts_compressor_close(ts_compressor *compressor);
/* The elements of part i of n; the last parts may have fewer than the first, or none. */
ts_stretch ts_compressor_part(size_t n, int parts, int i);
/* What of [at, at + n) lies within a stretch. */
ts_stretch ts_stretch_within(ts_stretch within, size_t at, size_t n);
/* Bytes of a rank's encoding, a multiple of 16; each part has the bytes of the largest. */
size_t ts_compressor_bytes(const ts_compressor *compressor);

/* One message to encode or decode; vectors have its n elements. */
typedef struct ts_coding {
    /* both */
    uint64_t seed, call;     /* the same on all ranks; other ones for each encoding */
    uint64_t first;          /* the message's place in a longer vector, for random numbers */
    float *anchor;           /* NULL: none; decoding adds to it */
    unsigned char *encoding; /* 16-byte aligned; the first of all ranks' */
    /* encode */
    const float *from;
    float *residual; /* written always where format.entry, else only with feedback; may be NULL */
    bool feedback;   /* residual is added to what is encoded */
    float *velocity; /* dgc's u; else NULL */
    float momentum;
    bool nesterov;
    int rank;
    /* decode: to <- (anchor or 0) + sum over ranks of weight * decode; to may be the encoded
     * `from`. */
    float *to;
    int ranks;
    size_t stride; /* bytes from one rank's encoding to the next */
    float weight;  /* of each, */
    bool weighted; /* or the fp32 right behind each encoding */
} ts_coding;

/* Both only enqueue. Encoding gives TS_EUSAGE when it lacks a residual or a velocity. */
ts_status ts_compressor_encode(ts_compressor *compressor, const ts_coding *coding,
                               ts_stream *stream);
ts_status ts_compressor_decode(ts_compressor *compressor, const ts_coding *coding,
                               ts_stream *stream);

#endif
