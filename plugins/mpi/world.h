/* world.h: this process as a rank. One for the process; begun and ended by one thread at a time. */
#ifndef PB_MPI_WORLD_H
#define PB_MPI_WORLD_H

#include "carry.h"

#include <parallel_backend.h>
#include <sys/types.h>

struct world {
    MPI_Comm comm; /* a copy of MPI_COMM_WORLD that is ours alone; MPI_COMM_NULL while not connected */
    int rank, size;
    int level; /* MPI_THREAD_..., as MPI gives it */
    int ours;  /* MPI was initialised here, so it is finalised here */
    pid_t process;
    uint64_t session;
};
extern struct world world;

/* Initialises MPI unless that was done, and fills in all but `comm`. Errors as pb_backend_fail leaves them.
 */
pb_status world_begin(void);
/* Makes the communicator; all ranks have to come. `timeout` in seconds, 0 for any. */
pb_status world_connect(double timeout);
/* Frees the communicator, and finalises MPI where it is ours. */
void world_end(void);
/* Whether this process is the one that began: a fork of it must not touch MPI. */
int world_is_here(void);

/* pb_backend_fail with a text as printf makes it. */
pb_status fail(pb_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
