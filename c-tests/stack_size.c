/* stack_size=: a pool thread has the stack that was asked for. */
#include "stack.h"

static int32_t measure(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    dive *d = ctx;
    counter_raise(&d->here);
    CHECK(counter_wait(&d->here, d->n));
    pthread_attr_t attributes;
    size_t bytes;
    CHECK_INT(0, pthread_getattr_np(pthread_self(), &attributes));
    CHECK_INT(0, pthread_attr_getstacksize(&attributes, &bytes));
    CHECK_INT(0, pthread_attr_destroy(&attributes));
    if (!pthread_equal(d->caller, pthread_self()))
        CHECK(bytes >= 32 << 20);
    return 0;
}

static void check_stacks(int32_t workers) {
    dive d = {COUNTER, (size_t)workers, pthread_self()};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = workers};
    CHECK_OK(pb_parallel_map(measure, &d, d.n, NULL, 0, NULL, 0, &options));
}

TEST(tasks_on_pool_threads_may_recurse_deeply) {
    pb_scope scope;
    CHECK_OK(pb_push_backend("threading", 3, 0, "stack_size=32M", &scope));
    check_stacks(3);
    check_deep_recursion(3);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(threads_that_start_later_are_no_worse) {
    check_stacks(4);
    CHECK_OK(pb_shutdown());
    pb_scope scope;
    CHECK_OK(pb_push_backend("threading", 3, 0, "stack_size=64K", &scope));
    check_stacks(3);
    CHECK_OK(pb_pop_backend(scope));
}

int main(void) {
    RUN(tasks_on_pool_threads_may_recurse_deeply);
    RUN(threads_that_start_later_are_no_worse);
    CHECK_OK(pb_shutdown());
    return check_result();
}
