/* Stands in for an OpenMP runtime that starts no threads: a count for each thread, 8 at first. */
static _Thread_local int count = 8;

int omp_get_max_threads(void) { return count; }
void omp_set_num_threads(int threads) { count = threads; }
