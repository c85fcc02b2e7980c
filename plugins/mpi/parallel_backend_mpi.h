/* parallel_backend_mpi.h: for programs of which every rank is a copy (SPMD). Link the CMake target
 * parallel_backend::mpi, or what pkg-config --libs parallel_backend-mpi says; no MPI is needed to compile or
 * link.
 *
 *     int main(void) {
 *         if (pb_mpi_serve() != PB_OK)    // ranks 1, 2, ...: the work is over
 *             return 0;
 *         ...                             // rank 0: pb_push_backend("mpi", ...), maps
 *         pb_shutdown();                  // lets the other ranks go
 *         return 0;
 *     }
 *
 * Programs that have no MPI in them need no call: mpirun -n 1 PROGRAM : -n 4 pb-mpi-worker. */
#ifndef PARALLEL_BACKEND_MPI_H
#define PARALLEL_BACKEND_MPI_H

#include <parallel_backend.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
__attribute__((visibility("default")))
#endif
/* All ranks call it, on the thread that initialised MPI, if that was done; otherwise MPI is initialised here,
 * and finalised by pb_shutdown on rank 0 and before the return on others.
 *
 * Returns PB_OK on rank 0, at once when all others are there. On other ranks it serves, and returns PB_DONE
 * after rank 0 has called pb_shutdown outside any scope of backend "mpi". Errors: PB_ERR_BACKEND_UNAVAILABLE
 * when the process is no rank, or no engine for its MPI is installed; PB_ERR_IO when MPI fails. Text:
 * pb_last_error(). */
pb_status
pb_mpi_serve(void);

#ifdef __cplusplus
}
#endif

#endif
