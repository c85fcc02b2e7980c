/* A forked child finds a library that has started nothing, whatever the parent's threads were doing. */
#include "child.h"
#include "scopes.h"

/* A map of two threads: each waits for the other. */
static int32_t meet_and_count(void *both, size_t index, const void *input, void *output) {
    (void)index, (void)input;
    pthread_barrier_wait(both);
    *(int *)output = pb_worker_index() + 1;
    return 0;
}

static void map_with_two_threads(void) {
    pthread_barrier_t both;
    int outputs[2] = {0, 0};
    pb_map_options options = {.struct_size = sizeof options};
    options.batch_size = 1;
    CHECK_INT(0, pthread_barrier_init(&both, NULL, 2));
    const pb_scope scope = open_scope("threading", 2);
    CHECK_OK(pb_parallel_map(meet_and_count, &both, 2, NULL, 0, outputs, sizeof *outputs, &options));
    close_scope(scope);
    CHECK_INT(3, outputs[0] + outputs[1]);
    pthread_barrier_destroy(&both);
}

static void use_everything(void) {
    CHECK_INT(1, count_threads());
    map_with_two_threads();
    const pb_scope scope = open_scope("threading", 3);
    CHECK_INT(3, pb_effective_n_jobs(0));
    map_with_two_threads();
    close_scope(scope);
    CHECK_OK(pb_set_default_backend("sequential", 0, 0, NULL));
    CHECK_OK(pb_shutdown());
    map_with_two_threads();
}

TEST(a_child_starts_a_pool_of_its_own) {
    for (int i = times(50, 3); i > 0; i--) {
        map_with_two_threads();
        in_child(use_everything);
    }
    CHECK_STR("threading", pb_current_backend());
}

static void fork_again(void) {
    map_with_two_threads();
    in_child(use_everything);
    map_with_two_threads();
}

TEST(so_does_a_grandchild) { in_child(fork_again); }

static pb_scope outer, inner;

static void end_inherited_scopes(void) {
    CHECK_STR("sequential", pb_current_backend());
    CHECK_STATUS(pb_pop_backend(outer), PB_ERR_SCOPE);
    close_scope(inner);
    CHECK_INT(3, pb_effective_n_jobs(0));
    map_with_two_threads();
    close_scope(outer);
    CHECK_STR("threading", pb_current_backend());
}

TEST(a_child_has_the_scopes_of_the_thread_that_forked) {
    outer = open_scope("threading", 3);
    inner = open_scope("sequential", 1);
    in_child(end_inherited_scopes);
    close_scope(inner);
    close_scope(outer);
}

static int32_t fork_in_a_task(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    in_child(use_everything);
    return 0;
}

TEST(a_task_may_fork) {
    CHECK_OK(map_on(2, fork_in_a_task, NULL, 4));
    CHECK_OK(map_on(1, fork_in_a_task, NULL, 2));
}

static pthread_barrier_t tasks_run;
static volatile int stop;

static int32_t run_until_stopped(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    pthread_barrier_wait(&tasks_run);
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
        sched_yield();
    return 0;
}

static void *map_until_stopped(void *unused) {
    CHECK_OK(map_on(2, run_until_stopped, NULL, 2));
    return unused;
}

TEST(a_fork_while_another_thread_is_in_a_map) {
    pthread_t thread;
    stop = 0;
    CHECK_INT(0, pthread_barrier_init(&tasks_run, NULL, 3));
    CHECK_INT(0, pthread_create(&thread, NULL, map_until_stopped, NULL));
    pthread_barrier_wait(&tasks_run);
    for (int i = times(20, 2); i > 0; i--)
        in_child(use_everything);
    map_with_two_threads();
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    CHECK_INT(0, pthread_join(thread, NULL));
    pthread_barrier_destroy(&tasks_run);
}

static int32_t do_nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

/* Every lock of the library, again and again. */
static void *push_and_pop_until_stopped(void *unused) {
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        const pb_scope scope = open_scope("threading", 2);
        pb_scope limit = 0;
        CHECK_OK(pb_push_thread_limit(1, PB_API_ALL, &limit));
        CHECK_OK(pb_set_default_backend(NULL, 2, 0, NULL));
        CHECK(pb_effective_n_jobs(0) == 2);
        CHECK_OK(pb_pop_thread_limit(limit));
        close_scope(scope);
    }
    return unused;
}

static void *map_and_shut_down_until_stopped(void *unused) {
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        CHECK_OK(map_on(3, do_nothing, NULL, 20));
        CHECK_OK(pb_shutdown());
    }
    return unused;
}

static void fork_while(void *(*work)(void *)) {
    pthread_t thread;
    stop = 0;
    CHECK_INT(0, pthread_create(&thread, NULL, work, NULL));
    for (int i = times(50, 3); i > 0; i--)
        in_child(use_everything);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    CHECK_INT(0, pthread_join(thread, NULL));
    CHECK_OK(pb_set_default_backend(NULL, 0, 0, NULL));
}

TEST(a_fork_while_another_thread_pushes_and_pops) { fork_while(push_and_pop_until_stopped); }

TEST(a_fork_while_another_thread_starts_and_ends_pools) { fork_while(map_and_shut_down_until_stopped); }

int main(void) {
    forget_environment();
    RUN(a_child_starts_a_pool_of_its_own);
    RUN(so_does_a_grandchild);
    RUN(a_child_has_the_scopes_of_the_thread_that_forked);
    RUN(a_task_may_fork);
    RUN(a_fork_while_another_thread_is_in_a_map);
    RUN(a_fork_while_another_thread_pushes_and_pops);
    RUN(a_fork_while_another_thread_starts_and_ends_pools);
    CHECK_OK(pb_shutdown());
    return check_result();
}
