/* A parallel region of OpenMP: built twice, for GNU's runtime and for LLVM's. */
#include <omp.h>

int team_size(void);
void team_run(void (*body)(void *argument), void *argument);

/* How many threads a region has. */
int team_size(void) {
    int size = 0;
#pragma omp parallel
    {
#pragma omp single
        size = omp_get_num_threads();
    }
    return size;
}

/* Runs `body` on every thread of a region, all of them at the same time. */
void team_run(void (*body)(void *argument), void *argument) {
#pragma omp parallel
    {
#pragma omp barrier
        body(argument);
    }
}
