/* A program's own code on a real OpenMP runtime. */
#include <omp.h>

/* How many threads a parallel region really has here. */
int team_size(void) {
    int size = 0;
#pragma omp parallel
#pragma omp single
    size = omp_get_num_threads();
    return size;
}

/* The size of a team that a thread of a team of two makes under `limit`, and of the outer team: inner in the
 * low byte, outer above. `push` and `pop` open and close a limit. */
int nested_team_size(int (*push)(void), void (*pop)(int)) {
    int inner = 0, outer = 0;
    int levels = omp_get_max_active_levels();
    omp_set_max_active_levels(2);
#pragma omp parallel num_threads(2)
    {
#pragma omp single
        outer = omp_get_num_threads();
#pragma omp critical
        {
            int scope = push();
            int size = team_size();
            inner = size > inner ? size : inner;
            pop(scope);
        }
    }
    omp_set_max_active_levels(levels);
    return inner | outer << 8;
}

int max_threads(void) { return omp_get_max_threads(); }
void set_threads(int threads) { omp_set_num_threads(threads); }
