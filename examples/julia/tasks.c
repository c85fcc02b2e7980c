/* tasks.c: what the maps of this example run. Tasks run on threads that Julia does not know, so they are C: a
 * Julia closure could not run there. They may well call what Julia calls, such as its BLAS. */
#include "tasks.h"
#include <time.h>

int32_t gram(void *ctx, size_t index, const void *input, void *output) {
    const gram_context *with = ctx;
    const double one = 1, zero = 0;
    const int64_t n = with->n;
    with->dgemm("T", "N", &n, &n, &n, &one, input, &n, input, &n, &zero, output, &n, 1, 1);
    with->blas_threads[index] = with->get_num_threads();
    return 0;
}

int32_t square_root(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    double x = *(const double *)input, root = x;
    if (!(x > 0)) {
        pb_task_fail("the number is not positive");
        return 1;
    }
    for (int i = 0; i < 60; i++)
        root = (root + x / root) / 2;
    *(double *)output = root;
    return 0;
}

int32_t until_flag(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    const struct timespec millisecond = {0, 1000000};
    const int32_t *flag = ctx;
    for (int i = 0; i < 20000 && !pb_cancelled(); i++) {
        if (__atomic_load_n(flag, __ATOMIC_ACQUIRE) != 0)
            return 0;
        nanosleep(&millisecond, NULL);
    }
    return 1;
}
