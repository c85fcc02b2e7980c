/* A captured context on threads that the library did not start. */
#include "scopes.h"

#include <time.h>

static pb_context *capture(void) {
    pb_context *context = pb_context_capture();
    CHECK(context != NULL);
    return context;
}

static pb_scope attach(const pb_context *context) {
    pb_scope scope = 0;
    CHECK_OK(pb_context_attach(context, &scope));
    CHECK(scope != 0);
    return scope;
}

/* Threading on three workers, on this thread until the attached scope ends. */
static void *see_three_workers(void *context) {
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(0));
    const pb_scope scope = attach(context);
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(3, pb_effective_n_jobs(0));
    close_scope(scope);
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(0));
    return NULL;
}

TEST(an_attached_context_brings_backend_and_workers) {
    const pb_scope scope = open_scope("threading", 3);
    pb_context *context = capture();
    on_another_thread(see_three_workers, context);
    pb_context_free(context);
    close_scope(scope);
}

TEST(a_context_outlives_its_scope) {
    const pb_scope scope = open_scope("threading", 3);
    pb_context *context = capture();
    close_scope(scope);
    see_three_workers(context);
    on_another_thread(see_three_workers, context);
    pb_context_free(context);
}

TEST(an_attached_scope_outlives_its_context) {
    const pb_scope outer = open_scope("sequential", 1);
    pb_context *context = capture();
    close_scope(outer);
    const pb_scope scope = attach(context);
    pb_context_free(context);
    CHECK_STR("sequential", pb_current_backend());
    close_scope(scope);
    CHECK_STR("threading", pb_current_backend());
}

#define THREADS 4
static pthread_barrier_t all_attached;

static void *attach_with_others(void *context) {
    const pb_scope scope = attach(context);
    pthread_barrier_wait(&all_attached);
    CHECK_INT(3, pb_effective_n_jobs(0));
    close_scope(scope);
    return NULL;
}

TEST(many_threads_attach_one_context_at_once) {
    pthread_t threads[THREADS];
    CHECK_INT(0, pthread_barrier_init(&all_attached, NULL, THREADS));
    const pb_scope scope = open_scope("threading", 3);
    pb_context *context = capture();
    for (int i = 0; i < THREADS; i++)
        CHECK_INT(0, pthread_create(&threads[i], NULL, attach_with_others, context));
    for (int i = 0; i < THREADS; i++)
        CHECK_INT(0, pthread_join(threads[i], NULL));
    pb_context_free(context);
    close_scope(scope);
    pthread_barrier_destroy(&all_attached);
}

TEST(an_attached_context_hides_the_scopes_below_and_yields_to_those_above) {
    pb_context *unconfigured = capture();
    const pb_scope below = open_scope("sequential", 1);
    const pb_scope attached = attach(unconfigured);
    CHECK_STR("threading", pb_current_backend());
    const pb_scope above = open_scope(NULL, 5);
    CHECK_INT(5, pb_effective_n_jobs(0));
    close_scope(above);
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(0));
    close_scope(attached);
    CHECK_STR("sequential", pb_current_backend());
    close_scope(below);
    pb_context_free(unconfigured);
}

static void *pop_elsewhere(void *scope) {
    CHECK_STATUS(pb_pop_backend(*(pb_scope *)scope), PB_ERR_SCOPE);
    CHECK_TEXT("another thread");
    return NULL;
}

TEST(an_attached_scope_ends_like_any_other) {
    pb_context *context = capture();
    pb_scope scope = attach(context);
    const pb_scope inner = open_scope("sequential", 1);
    CHECK_STATUS(pb_pop_backend(scope), PB_ERR_SCOPE);
    on_another_thread(pop_elsewhere, &scope);
    close_scope(inner);
    close_scope(scope);
    CHECK_STATUS(pb_pop_backend(scope), PB_ERR_SCOPE);
    pb_context_free(context);
}

TEST(wrong_arguments_are_refused) {
    pb_scope scope = 42;
    pb_context *context = capture();
    CHECK_STATUS(pb_context_attach(NULL, &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("context is NULL");
    CHECK_STATUS(pb_context_attach(context, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("scope is NULL");
    CHECK_INT(42, scope);
    pb_context_free(context);
    pb_context_free(NULL);
}

TEST(a_context_that_cannot_be_used_is_not_captured) {
    CHECK_INT(0, setenv("PB_N_JOBS", "many", 1));
    CHECK(pb_context_capture() == NULL);
    CHECK_TEXT("PB_N_JOBS");
    CHECK_INT(0, unsetenv("PB_N_JOBS"));
}

/* What a task hands to a thread of its own. */
struct task_context {
    pb_context *context;
    int32_t share;
};

static int32_t check_level_two(void *share, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    CHECK_INT(*(int32_t *)share > 1 ? 2 : 1, pb_nesting_level());
    return 0;
}

static void *live_in_a_task(void *arg) {
    struct task_context *task = arg;
    CHECK_INT(0, pb_nesting_level());
    const pb_scope scope = attach(task->context);
    CHECK_INT(1, pb_nesting_level());
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(task->share, pb_effective_n_jobs(0));
    CHECK_INT(task->share, pb_effective_n_jobs(-1));
    CHECK_INT(-1, pb_worker_index()); /* no worker of the map runs here */
    CHECK_INT(0, pb_cancelled());
    CHECK_STATUS(pb_task_fail("not its task"), PB_ERR_INVALID_ARGUMENT);
    CHECK_OK(map_on(0, check_level_two, &task->share, 4));
    close_scope(scope);
    CHECK_INT(0, pb_nesting_level());
    return NULL;
}

static int32_t start_a_thread(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    struct task_context task = {capture(), pb_effective_n_jobs(-1)};
    on_another_thread(live_in_a_task, &task);
    pb_context_free(task.context);
    return 0;
}

TEST(a_thread_of_a_task_has_its_level_and_its_share) { CHECK_OK(map_on(3, start_a_thread, NULL, 6)); }

/* A cancelled task, seen from a thread of its own. */
struct cancelled_task {
    pb_context *context;
    pthread_barrier_t attached;
};

static int32_t count_item(void *count, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    ++*(int *)count;
    return 0;
}

static void *wait_for_cancellation(void *arg) {
    struct cancelled_task *task = arg;
    const pb_scope scope = attach(task->context);
    CHECK_INT(0, pb_cancelled());
    pthread_barrier_wait(&task->attached);
    const time_t patience = time(NULL) + 30;
    while (!pb_cancelled())
        CHECK(time(NULL) < patience);
    int count = 0;
    CHECK_STATUS(map_on(1, count_item, &count, 3), PB_ERR_CANCELLED);
    CHECK_INT(0, count);
    close_scope(scope);
    CHECK_INT(0, pb_cancelled());
    return NULL;
}

static int32_t wait_with_a_thread(void *arg, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    struct cancelled_task *task = arg;
    task->context = capture();
    on_another_thread(wait_for_cancellation, task);
    pb_context_free(task->context);
    return 0;
}

TEST(a_thread_of_a_task_sees_its_cancellation) {
    struct cancelled_task task;
    CHECK_INT(0, pthread_barrier_init(&task.attached, NULL, 2));
    pb_job *job = NULL;
    CHECK_OK(pb_submit_map(wait_with_a_thread, &task, 1, NULL, 0, NULL, 0, NULL, &job));
    pthread_barrier_wait(&task.attached);
    CHECK_OK(pb_job_cancel(job));
    /* Its only item was running and ends well. */
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
    pthread_barrier_destroy(&task.attached);
}

static void *find_the_task_gone(void *arg) {
    struct task_context *task = arg;
    const pb_scope scope = attach(task->context);
    CHECK_INT(1, pb_nesting_level());
    CHECK_INT(task->share, pb_effective_n_jobs(-1));
    close_scope(scope);
    return NULL;
}

static int32_t keep_context(void *arg, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    if (index == 0) {
        struct task_context *task = arg;
        task->context = capture();
        task->share = pb_effective_n_jobs(-1);
    }
    return 0;
}

TEST(a_context_outlives_the_task_that_captured_it) {
    struct task_context task;
    CHECK_OK(map_on(2, keep_context, &task, 4));
    on_another_thread(find_the_task_gone, &task);
    pb_context_free(task.context);
}

static int32_t leave_attached(void *context, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    attach(context);
    CHECK_STR("sequential", pb_current_backend());
    return 0;
}

TEST(a_context_that_a_task_leaves_attached_ends_with_its_map) {
    const pb_scope outer = open_scope("sequential", 1);
    pb_context *context = capture();
    close_scope(outer);
    CHECK_OK(map_on(1, leave_attached, context, 1));
    CHECK_STR("threading", pb_current_backend());
    pb_context_free(context);
}

int main(void) {
    forget_environment();
    RUN(an_attached_context_brings_backend_and_workers);
    RUN(a_context_outlives_its_scope);
    RUN(an_attached_scope_outlives_its_context);
    RUN(many_threads_attach_one_context_at_once);
    RUN(an_attached_context_hides_the_scopes_below_and_yields_to_those_above);
    RUN(an_attached_scope_ends_like_any_other);
    RUN(wrong_arguments_are_refused);
    RUN(a_context_that_cannot_be_used_is_not_captured);
    RUN(a_thread_of_a_task_has_its_level_and_its_share);
    RUN(a_thread_of_a_task_sees_its_cancellation);
    RUN(a_context_outlives_the_task_that_captured_it);
    RUN(a_context_that_a_task_leaves_attached_ends_with_its_map);
    CHECK_OK(pb_shutdown());
    return check_result();
}
