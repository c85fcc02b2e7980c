/* What the library starts, when, and how it ends. The first test must be the first to call the library. */
#include "counting.h"
#include "scopes.h"

#include <sched.h>
#include <time.h>

static int32_t do_nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

static pthread_barrier_t both_workers;

static int32_t meet(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    pthread_barrier_wait(&both_workers);
    return 0;
}

/* A map that would never end without two threads. */
static void map_with_two_threads(void) {
    CHECK_INT(0, pthread_barrier_init(&both_workers, NULL, 2));
    CHECK_OK(map_on(2, meet, NULL, 2));
    pthread_barrier_destroy(&both_workers);
}

TEST(no_thread_is_started_before_a_map_needs_one) {
    CHECK_INT(1, count_threads()); /* the library is loaded */
    CHECK(*pb_version() != '\0');
    CHECK_INT(1, count_threads());
    const pb_scope scope = open_scope("threading", 4);
    CHECK_INT(4, pb_effective_n_jobs(0));
    CHECK_STR("threading", pb_current_backend());
    CHECK_OK(pb_set_default_backend("threading", 2, 0, NULL));
    pb_context *context = pb_context_capture();
    CHECK(context != NULL);
    CHECK(pb_cpu_count(1) >= 1);
    pb_thread_pool_count();
    CHECK_OK(map_on(1, do_nothing, NULL, 100)); /* one worker: the caller */
    CHECK_OK(map_on(4, do_nothing, NULL, 1));   /* one item: the caller */
    CHECK_OK(map_on(4, do_nothing, NULL, 0));
    CHECK_OK(pb_shutdown());
    CHECK_OK(pb_set_default_backend(NULL, 0, 0, NULL));
    close_scope(scope);
    pb_context_free(context);
    CHECK_INT(1, count_threads());
    map_with_two_threads();
    CHECK_INT(2, count_threads());
}

TEST(shutdown_ends_every_thread_and_may_be_repeated) {
    map_with_two_threads();
    CHECK(count_threads() > 1);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(pb_shutdown());
        check_only_one_thread_is_left();
    }
}

TEST(maps_work_again_after_a_shutdown) {
    for (int i = times(50, 5); i > 0; i--) {
        map_with_two_threads();
        CHECK_OK(pb_shutdown());
    }
    check_only_one_thread_is_left();
}

TEST(scopes_survive_a_shutdown) {
    const pb_scope scope = open_scope("threading", 3);
    map_with_two_threads();
    CHECK_OK(pb_shutdown());
    CHECK_INT(3, pb_effective_n_jobs(0));
    map_with_two_threads();
    close_scope(scope);
}

/* Who waits for a job runs it himself if no thread has begun it: then a thread comes late for it. */
static void submit_and_wait(void) {
    pb_job *job = NULL;
    CHECK_OK(pb_submit_map(do_nothing, NULL, 1, NULL, 0, NULL, 0, NULL, &job));
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
}

TEST(no_thread_outlives_a_shutdown_for_a_job_that_is_done) {
    for (int i = times(300, 10); i > 0; i--) {
        map_with_two_threads();
        submit_and_wait();
        CHECK_OK(pb_shutdown());
        check_only_one_thread_is_left();
    }
}

static void *submit_and_shut_down(void *unused) {
    for (int i = 0; i < 5; i++) {
        CHECK_OK(map_on(2, do_nothing, NULL, 10));
        submit_and_wait();
        CHECK_OK(pb_shutdown());
    }
    return unused;
}

/* Threads of others' shutdowns may still be ending then. */
TEST(nor_does_one_that_ends_while_a_job_is_submitted_leave_a_successor) {
    for (int i = times(300, 5); i > 0; i--) {
        on_other_threads(3, submit_and_shut_down, NULL);
        submit_and_wait();
        CHECK_OK(pb_shutdown());
        check_only_one_thread_is_left();
    }
}

static int32_t shut_down(void *ctx, size_t index, const void *input, void *output) {
    meet(ctx, index, input, output);
    CHECK_OK(pb_shutdown());
    int done = 0;
    CHECK_OK(map_on(2, do_nothing, &done, 4)); /* starts a new pool */
    return 0;
}

TEST(a_task_may_shut_down_without_disturbing_its_own_map) {
    CHECK_INT(0, pthread_barrier_init(&both_workers, NULL, 2));
    CHECK_OK(map_on(2, shut_down, NULL, 2));
    pthread_barrier_destroy(&both_workers);
    map_with_two_threads();
}

static void *map_and_shut_down(void *unused) {
    for (int i = times(100, 5); i > 0; i--) {
        CHECK_OK(map_on(2, do_nothing, NULL, 10));
        CHECK_OK(pb_shutdown());
    }
    return unused;
}

TEST(several_threads_may_map_and_shut_down_at_once) {
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK_INT(0, pthread_create(&threads[i], NULL, map_and_shut_down, NULL));
    for (int i = 0; i < THREADS; i++)
        CHECK_INT(0, pthread_join(threads[i], NULL));
    CHECK_OK(pb_shutdown());
    check_only_one_thread_is_left();
}

TEST(shutdown_ends_the_sessions_that_no_scope_opened_and_only_those) {
    struct counting counts = {0};
    register_counting("counting", &counts, PB_BACKEND_MAKE_DEFAULT);
    CHECK_OK(map_on(0, do_nothing, NULL, 4)); /* opens the shared session */
    const pb_scope scope = open_scope("counting", 2);
    CHECK_INT(2, counts.opened);
    CHECK_OK(pb_shutdown());
    CHECK_INT(1, counts.closed);
    CHECK_OK(map_on(0, do_nothing, NULL, 4));
    CHECK_INT(2, counts.opened); /* in the scope's own session */
    close_scope(scope);
    CHECK_INT(2, counts.closed);
    CHECK_OK(map_on(0, do_nothing, NULL, 4)); /* opens the shared one anew */
    CHECK_INT(3, counts.opened);
    CHECK_OK(pb_unregister_backend("counting"));
    CHECK_INT(3, counts.closed);
    CHECK_INT(1, counts.destroyed);
}

int main(void) {
    forget_environment();
    RUN(no_thread_is_started_before_a_map_needs_one);
    RUN(shutdown_ends_every_thread_and_may_be_repeated);
    RUN(maps_work_again_after_a_shutdown);
    RUN(scopes_survive_a_shutdown);
    RUN(no_thread_outlives_a_shutdown_for_a_job_that_is_done);
    RUN(nor_does_one_that_ends_while_a_job_is_submitted_leave_a_successor);
    RUN(a_task_may_shut_down_without_disturbing_its_own_map);
    RUN(several_threads_may_map_and_shut_down_at_once);
    RUN(shutdown_ends_the_sessions_that_no_scope_opened_and_only_those);
    CHECK_OK(pb_shutdown());
    return check_result();
}
