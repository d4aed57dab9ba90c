/* version.c - the build's version and commit (from CMake) and the libraries' own words. */
#include "runtime/train/version.h"

#include "ts_commit.h" /* made by the build */

#include "ops/op.h"
#include "runtime/comm/comm.h"
#include "runtime/data/jpeg.h"

const char *ts_version(void)
{
    return TS_VERSION;
}

const char *ts_version_commit(void)
{
    return TS_COMMIT;
}

json_t *ts_version_json(bool cuda)
{
    char ops[64], comm[256], jpeg[256], text[256];
    ts_op_library_version(ops, sizeof ops);
    ts_jpeg_version(jpeg, sizeof jpeg);
    ts_comm_library_version(comm, sizeof comm);
    json_t *all =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "twinstream", TS_VERSION, "oneDNN", ops, "MPI",
                  comm, "jansson", JANSSON_VERSION, "libjpeg", jpeg, "compiler", __VERSION__);
    static const struct {
        const char *name;
        void (*version)(char *text, size_t bytes);
    } of_cuda[] = {{"CUDA", ts_device_cuda_version},
                   {"cuBLAS", ts_op_cublas_version},
                   {"cuDNN", ts_op_cudnn_version},
                   {"NCCL", ts_comm_nccl_version}};
    for (size_t i = 0; cuda && i < sizeof of_cuda / sizeof *of_cuda; i++) {
        of_cuda[i].version(text, sizeof text);
        json_object_set_new(all, of_cuda[i].name, json_string(text));
    }
    return all;
}
