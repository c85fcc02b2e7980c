/* engine.h: what the front of the backend "mpi" asks of an engine.
 *
 * The front, libpb_backend_mpi.so, knows nothing of MPI: it finds out which MPI the process belongs to and
 * loads the engine that was compiled against that one, libpb_mpi_FAMILY.so. All calls to MPI are in engines.
 */
#ifndef PB_MPI_ENGINE_H
#define PB_MPI_ENGINE_H

#include <parallel_backend.h>

/* What both sides must agree on; it grows with every change of the struct below. */
#define PB_MPI_ENGINE_VERSION 1u

struct pb_mpi_engine {
    uint32_t version;
    /* Opens a session: connects to the workers when it is the first. */
    pb_status (*open)(double start_timeout);
    void (*close)(void);
    /* How many ranks work; 0 where not connected. */
    int32_t (*workers)(void);
    pb_status (*run)(pb_job *job);
    /* Says goodbye to the workers, if no session is open. */
    void (*shutdown)(void);
    /* PB_OK on rank 0; on others serves, and PB_DONE after the goodbye. `connected`, unless it is NULL, is
     * called once all ranks have met; before that a worker waits for as long as rank 0 takes. */
    pb_status (*serve)(double start_timeout, void (*connected)(void));
};

/* The one symbol of an engine's library. */
typedef const struct pb_mpi_engine *pb_mpi_engine_fn(void);
#define PB_MPI_ENGINE_SYMBOL "pb_mpi_engine"

#endif
