/* tasks.c: what the maps of this example run. Tasks run on any thread, so there is nothing of R in them. */
#include "tasks.h"
#include <math.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double density(double x) { return exp(-x * x / 2) / sqrt(2 * acos(-1.0)); }

/* The distribution function of the normal law, by Simpson's rule from 0: R's pnorm. */
static int32_t normal_cdf(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    enum { INTERVALS = 2000 };
    double x = *(const double *)input, width = x / INTERVALS, sum = density(0) + density(x);
    if (!isfinite(x)) {
        pb_task_fail("x is not finite");
        return 1;
    }
    for (int i = 1; i < INTERVALS; i++)
        sum += density(i * width) * (i % 2 ? 4 : 2);
    *(double *)output = 0.5 + sum * width / 3;
    return 0;
}

/* How many threads a call of BLAS from this task would use. */
static int32_t blas_threads(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    size_t count = pb_thread_pool_count();
    for (size_t i = 0; i < count; i++) {
        pb_thread_pool pool = {sizeof pool, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0};
        if (pb_thread_pool_get(i, &pool) == PB_OK && strcmp(pool.user_api, "blas") == 0) {
            *(double *)output = pool.num_threads;
            return 0;
        }
    }
    pb_task_fail("no BLAS is loaded");
    return 1;
}

/* What a person does who presses Ctrl-C while a task runs. The task ends when it is asked to, or after 20 s.
 */
static int32_t ctrl_c(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    const struct timespec millisecond = {0, 1000000};
    if (index == 0)
        kill(getpid(), SIGINT);
    for (int i = 0; i < 20000 && !pb_cancelled(); i++)
        nanosleep(&millisecond, NULL);
    return pb_cancelled();
}

pb_task_fn task_named(const char *name) {
    static const struct {
        const char *name;
        pb_task_fn run;
    } tasks[] = {{"normal_cdf", normal_cdf}, {"blas_threads", blas_threads}, {"ctrl_c", ctrl_c}};
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        if (strcmp(tasks[i].name, name) == 0)
            return tasks[i].run;
    return NULL;
}
