/* rendezvous.h - how ranks find each other without MPI: who this process is, and sockets to rank 0.
 *
 * Rank and size come from TWINSTREAM_RANK and TWINSTREAM_SIZE, else from srun's SLURM_PROCID and
 * SLURM_STEP_NUM_TASKS. Rank 0 listens where TWINSTREAM_RENDEZVOUS says: "host:port", or
 * "file:PATH", a path that all ranks see, new for each job, in which rank 0 leaves its addresses.
 * Under srun without it: on the step's first host, at a port made from the job's number. For this
 * folder only. */
#ifndef TS_COMM_RENDEZVOUS_H
#define TS_COMM_RENDEZVOUS_H

#include "runtime/base/status.h"

enum { TS_RENDEZVOUS_MAX = 512 };

typedef struct ts_rendezvous {
    int rank, size;
    char where[TS_RENDEZVOUS_MAX]; /* "host:port" or "file:PATH" */
} ts_rendezvous;

/* Do the variables say that this process is one of several? */
bool ts_rendezvous_present(void);
ts_status ts_rendezvous_read(ts_rendezvous *rendezvous);
/* Rank 0: a listening socket, its place made known. */
ts_status ts_rendezvous_listen(const ts_rendezvous *rendezvous, int *socket_p);
/* Rank 0, when all are there: the place is free for another job. */
void ts_rendezvous_forget(const ts_rendezvous *rendezvous);
/* The others: connected to rank 0; tries for `wait_s` seconds. */
ts_status ts_rendezvous_connect(const ts_rendezvous *rendezvous, int wait_s, int *socket_p);
/* The first host of SLURM's notation: "gpu[03-07,9],cpu1" begins with gpu03. */
void ts_slurm_first_host(const char *list, char *host, size_t bytes);

#endif
