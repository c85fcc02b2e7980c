/* pb-mpi-worker: ranks that work for a program without any MPI in it.
 *
 *     mpirun -n 1 PROGRAM : -n 4 pb-mpi-worker */
#include "parallel_backend_mpi.h"

#include <stdio.h>

int main(void) {
    const pb_status status = pb_mpi_serve();
    if (status == PB_DONE)
        return 0;
    if (status == PB_OK) {
        fputs("pb-mpi-worker: this is rank 0, which must be the program that calls maps: mpirun -n 1 PROGRAM "
              ": -n 4 "
              "pb-mpi-worker\n",
              stderr);
        pb_shutdown();
        return 2;
    }
    fprintf(stderr, "pb-mpi-worker: %s\n", pb_last_error());
    return 1;
}
