/* Stands in for OpenBLAS. PREFIX and SUFFIX are its affixes, PARALLEL its layer (0 serial, 1 own threads, 2
 * OpenMP), VERSION its version, OWN_COUNT how an OpenMP build uses its own count: see
 * openblas_threads_of_next_call. */
#define PASTE_(prefix, name, suffix) prefix##name##suffix
#define PASTE(prefix, name, suffix)  PASTE_(prefix, name, suffix)
#define NAME(name)                   PASTE(PREFIX, name, SUFFIX)

#define IGNORED 0 /* 0.3.24 to 0.3.33 */
#define STICKY  1 /* up to 0.3.20 */
#define ALONE   2 /* 0.3.22 and 0.3.23; and builds with own threads */
#define BOUND   3 /* 0.3.34 and later */

static int count = 8;

#if PARALLEL == 2
#include <omp.h>
#else
static int omp_get_max_threads(void) { return 8; }
static void omp_set_num_threads(int threads) { (void)threads; }
#endif

int NAME(openblas_get_num_threads)(void) { return count; }

void NAME(openblas_set_num_threads)(int threads) {
    /* A compiled maximum clamps silently. */
    count = threads > 64 ? 64 : threads;
    if (OWN_COUNT == STICKY) {
        omp_set_num_threads(count);
    }
}

/* The Fortran twins, whose setter takes an address. */
int NAME(openblas_get_num_threads_)(void) { return count; }
void NAME(openblas_set_num_threads_)(const int *threads) { count = *threads; }

int NAME(openblas_get_parallel)(void) { return PARALLEL; }
char *NAME(openblas_get_config)(void) {
    return "OpenBLAS " VERSION " NO_LAPACKE DYNAMIC_ARCH Haswell MAX_THREADS=64";
}
char *NAME(openblas_get_corename)(void) { return "Haswell"; }

int openblas_threads_of_next_call(void) {
    int openmp = omp_get_max_threads();
    switch (OWN_COUNT) {
    case STICKY:
        if (count != 1) {
            count = openmp;
        }
        return count;
    case ALONE:
        return count;
    case BOUND:
        return count < openmp ? count : openmp;
    default:
        return openmp;
    }
}
