/* The work that the rows of benches/engines measure: the same native code under the library and under a
 * hand-written client. Time is the thread's own CPU time, so that a worker that waits for its CPU does not
 * count as one that works. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <time.h>

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double burn(double seconds, size_t index) {
    const double end = cpu_seconds() + seconds;
    volatile double x = (double)index;
    while (seconds > 0 && cpu_seconds() < end)
        for (int i = 0; i < 200; i++)
            x = x + 1;
    return (double)index;
}

/* A pb_task_fn. ctx: the seconds that an item takes, as a double. */
int32_t burn_task(void *ctx, size_t index, const void *input, void *output) {
    (void)input;
    *(double *)output = burn(*(const double *)ctx, index);
    return 0;
}

/* For a hand-written client: items [begin, end) into outputs. */
void burn_range(double seconds, size_t begin, size_t end, double *outputs) {
    for (size_t i = begin; i < end; i++)
        outputs[i - begin] = burn(seconds, i);
}
