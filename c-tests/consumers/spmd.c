/* A program of which every MPI rank is a copy, started without a launcher. */
#include <parallel_backend_mpi.h>

#include <stdio.h>

int main(void) {
    if (pb_mpi_serve() == PB_ERR_BACKEND_UNAVAILABLE)
        return 0;
    fprintf(stderr, "this process is a rank, or the error is another one: %s\n", pb_last_error());
    return 1;
}
