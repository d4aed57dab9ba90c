/* nccl_standin.c - see nccl_standin.h. */
#include "tests/nccl_standin.h"

#include <string.h>

standin the_standin;
static int a_communicator;

static ncclResult_t collective(const void *from, void *to, size_t n, ncclDataType_t type,
                               ncclRedOp_t op, int root)
{
    standin *s = &the_standin;
    s->collectives++;
    s->from = from;
    s->to = to;
    s->n = n;
    s->type = type;
    s->op = op;
    s->root = root;
    return s->collective;
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = the_standin.version;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSystemError   ? "unhandled system error"
           : result == ncclRemoteError ? "remote process exited or there was a network error"
                                       : "some error";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return the_standin.last_error;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    memset(id, 7, sizeof *id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    (void)size, (void)rank, (void)id;
    the_standin.inits++;
    the_standin.config = *config;
    *comm = (ncclComm_t)(void *)&a_communicator;
    return the_standin.init;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result)
{
    (void)comm;
    *result = the_standin.in_progress > 0 ? ncclInProgress : the_standin.async;
    if (the_standin.in_progress > 0) the_standin.in_progress--;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    (void)comm;
    the_standin.finalizes++;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    (void)comm;
    the_standin.destroys++;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    (void)comm;
    the_standin.aborts++;
    return ncclSuccess;
}

ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t *op, void *scalar, ncclDataType_t type,
                                      ncclScalarResidence_t where, ncclComm_t comm)
{
    (void)comm, (void)type;
    the_standin.weighted_ops += where == ncclScalarDevice;
    the_standin.weight = scalar;
    *op = (ncclRedOp_t)(100 + the_standin.weighted_ops);
    return ncclSuccess;
}

ncclResult_t ncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm)
{
    (void)op, (void)comm;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    (void)comm, (void)stream;
    return collective(from, to, n, type, op, -1);
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t n, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    (void)comm, (void)stream;
    return collective(from, to, n, type, op, -1);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    (void)comm, (void)stream;
    return collective(from, to, n, type, ncclSum, root);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t n, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    (void)comm, (void)stream;
    return collective(from, to, n, type, ncclSum, -1);
}

ncclResult_t ncclGroupStart(void)
{
    the_standin.groups++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    the_standin.group_ends++;
    return the_standin.collective;
}

ncclResult_t ncclSend(const void *from, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    (void)comm, (void)stream;
    return collective(from, NULL, n, type, ncclSum, peer);
}

ncclResult_t ncclRecv(void *to, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    (void)comm, (void)stream;
    return collective(NULL, to, n, type, ncclSum, peer);
}
