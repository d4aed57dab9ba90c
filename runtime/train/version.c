/* version.c - the build's version and commit (from CMake) and the libraries' own words. */
#include "runtime/train/version.h"

#include "ts_commit.h" /* made by the build */

#include "ops/op.h"
#include "runtime/comm/comm.h"

const char *ts_version(void)
{
    return TS_VERSION;
}

const char *ts_version_commit(void)
{
    return TS_COMMIT;
}

json_t *ts_version_json(void)
{
    char ops[64], comm[256];
    ts_op_library_version(ops, sizeof ops);
    ts_comm_library_version(comm, sizeof comm);
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "twinstream", TS_VERSION, "oneDNN", ops, "MPI",
                     comm, "jansson", JANSSON_VERSION, "compiler", __VERSION__);
}
