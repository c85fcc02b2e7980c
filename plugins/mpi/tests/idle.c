/* A rank that initialises MPI, and then works for nobody. */
#include <mpi.h>
#include <unistd.h>

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    sleep(600);
    return 0;
}
