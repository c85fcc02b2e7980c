/* Tasks in a shared library, as worker processes find them by themselves: one exported, one static. */
#include <parallel_backend.h>

int32_t twice(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    *(int64_t *)output = 2 * *(const int64_t *)input;
    return 0;
}

static int32_t level(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int64_t *)output = pb_nesting_level();
    return 0;
}

pb_task_fn static_task(void) { return level; }

/* Which of several copies of the library runs. */
int32_t copy_that_runs(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int64_t *)output = (int64_t)(intptr_t)static_task;
    return 0;
}
