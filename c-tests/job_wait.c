/* Submitted jobs: waiting for them, hearing of their end, and what a task may do with the job around it. */
#include "sync.h"

static pb_job *submit(pb_task_fn fn, void *ctx, size_t n, int32_t n_jobs) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = n_jobs};
    pb_job *job = NULL;
    REQUIRE(pb_submit_map(fn, ctx, n, NULL, 0, NULL, 0, &options, &job) == PB_OK);
    return job;
}

static int32_t wait_for_go(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    return !counter_wait(ctx, 1);
}

static int32_t fail_with_7(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    CHECK_OK(pb_task_fail("no luck"));
    return 7;
}

TEST(a_wait_takes_no_longer_than_it_may) {
    for (int32_t n_jobs = 1; n_jobs <= 2; n_jobs++) {
        counter go = COUNTER;
        pb_job *job = submit(wait_for_go, &go, 10, n_jobs);
        CHECK_STATUS(pb_job_wait(job, 0), PB_PENDING);
        const double begin = seconds();
        CHECK_STATUS(pb_job_wait(job, 0.02), PB_PENDING);
        CHECK(seconds() - begin >= 0.02);
        counter_raise(&go);
        CHECK_OK(pb_job_wait(job, -1));
        CHECK_OK(pb_job_wait(job, 0));
        CHECK_OK(pb_job_wait(job, 1));
        pb_job_free(job);
    }
}

/* The text and the item of a job that failed are those of each thread that asks. */
static void *ask(void *job) {
    CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_TASK_FAILED);
    CHECK_TEXT("no luck");
    CHECK_INT(0, last_info().task_index);
    CHECK_INT(7, last_info().task_code);
    return NULL;
}

TEST(any_thread_may_ask_any_number_of_times) {
    pb_job *job = submit(fail_with_7, NULL, 1, 2);
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        REQUIRE(pthread_create(&threads[i], NULL, ask, job) == 0);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    ask(job);
    ask(job);
    pb_job_free(job);
}

static int32_t note_context(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    __atomic_store_n((int32_t *)ctx, pb_nesting_level(), __ATOMIC_RELAXED);
    return 0;
}

TEST(a_job_runs_in_the_context_of_its_submission) {
    const char *const backends[] = {"sequential", "threading"};
    for (int32_t expected = 0; expected < 2; expected++) {
        int32_t level = -1;
        pb_scope scope = use_backend(backends[expected], 2);
        pb_job *job = submit(note_context, &level, 2, 0);
        CHECK_OK(pb_pop_backend(scope));
        CHECK_OK(pb_job_wait(job, -1));
        CHECK_INT(expected, level);
        pb_job_free(job);
    }
}

static int32_t notified(void *user) {
    counter_raise(user);
    return 0;
}

TEST(notify_is_called_once_at_the_end_or_at_once_if_it_is_over) {
    counter go = COUNTER, calls = COUNTER;
    pb_job *job = submit(wait_for_go, &go, 2, 2);
    CHECK_OK(pb_job_notify(job, notified, &calls));
    CHECK_OK(pb_job_notify(job, notified, &calls)); /* there may be several */
    CHECK_INT(0, counter_get(&calls));
    counter_raise(&go);
    CHECK(counter_wait(&calls, 2));
    CHECK_OK(pb_job_wait(job, -1));
    CHECK_OK(pb_job_notify(job, notified, &calls));
    CHECK_INT(3, counter_get(&calls));
    pb_job_free(job);
    CHECK_INT(3, counter_get(&calls));
}

TEST(notify_is_called_for_jobs_that_fail_too) {
    counter calls = COUNTER;
    pb_job *job = submit(fail_with_7, NULL, 1, 2);
    CHECK_OK(pb_job_notify(job, notified, &calls));
    CHECK(counter_wait(&calls, 1));
    CHECK_STATUS(pb_job_wait(job, 0), PB_ERR_TASK_FAILED);
    pb_job_free(job);
}

/* A handle that tasks and callbacks wait for: they may run before the submission has returned. */
typedef struct handle {
    pb_job *job;
    counter known, freed, go;
} handle;

#define HANDLE                                                                                               \
    { NULL, COUNTER, COUNTER, COUNTER }

static int32_t free_when_over(void *user) {
    handle *h = user;
    CHECK_OK(pb_job_wait(h->job, -1)); /* it is over already */
    pb_job_free(h->job);
    counter_raise(&h->freed);
    return 0;
}

TEST(a_job_may_be_freed_inside_its_notify) {
    handle h = HANDLE;
    h.job = submit(wait_for_go, &h.go, 2, 2);
    CHECK_OK(pb_job_notify(h.job, free_when_over, &h));
    counter_raise(&h.go);
    CHECK(counter_wait(&h.freed, 1));
    CHECK_OK(pb_shutdown()); /* the thread that called back is done with it */
}

static int32_t wait_for_the_job_around(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    handle *h = ctx;
    size_t item;
    CHECK(counter_wait(&h->known, 1));
    CHECK_STATUS(pb_job_wait(h->job, -1), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("a task cannot wait for the job that it belongs to");
    CHECK_STATUS(pb_job_wait(h->job, 0), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_next(h->job, -1, &item), PB_ERR_INVALID_ARGUMENT);
    return 0;
}

static int32_t wait_in_a_nested_map(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    return pb_parallel_map(wait_for_the_job_around, ctx, 2, NULL, 0, NULL, 0, &options);
}

TEST(a_task_cannot_wait_for_a_job_around_it) {
    const pb_task_fn tasks[] = {wait_for_the_job_around, wait_in_a_nested_map};
    for (size_t t = 0; t < 2; t++)
        for (int32_t n_jobs = 1; n_jobs <= 2; n_jobs++) {
            handle h = HANDLE;
            h.job = submit(tasks[t], &h, 2, n_jobs);
            counter_raise(&h.known);
            CHECK_OK(pb_job_wait(h.job, -1));
            pb_job_free(h.job);
        }
}

static int32_t free_the_job_around(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    handle *h = ctx;
    CHECK(counter_wait(&h->known, 1));
    pb_job_free(h->job);
    CHECK_INT(1, pb_cancelled());
    counter_raise(&h->freed);
    return 0;
}

TEST(a_task_may_free_the_job_around_it) {
    for (int32_t n_jobs = 1; n_jobs <= 2; n_jobs++) {
        handle h = HANDLE;
        h.job = submit(free_the_job_around, &h, 1, n_jobs);
        counter_raise(&h.known);
        CHECK(counter_wait(&h.freed, 1));
        CHECK_OK(pb_shutdown()); /* waits for idle threads; the job's is one of them soon */
    }
}

static int32_t submit_and_wait(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    counter go = COUNTER;
    pb_job *job = submit(wait_for_go, &go, 4, 2);
    CHECK_STATUS(pb_job_wait(job, 0), PB_PENDING);
    counter_raise(&go);
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
    counter_raise(ctx);
    return 0;
}

TEST(tasks_may_submit_jobs_and_wait_for_them) {
    counter ended = COUNTER;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 4};
    CHECK_OK(pb_parallel_map(submit_and_wait, &ended, 40, NULL, 0, NULL, 0, &options));
    CHECK_INT(40, counter_get(&ended));
}

/* A chain: each job's end submits the next one. `order` gets the numbers of the jobs as their items ran. */
typedef struct chain {
    size_t length, at;
    size_t order[100];
    pb_job *jobs[100];
    counter known, over;
} chain;

static int32_t add_link(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    chain *c = ctx;
    c->order[c->at] = c->at;
    return 0;
}

static int32_t next_link(void *user) {
    chain *c = user;
    CHECK_OK(pb_job_wait(c->jobs[c->at], 0));
    pb_job_free(c->jobs[c->at]);
    if (++c->at == c->length) {
        counter_raise(&c->over);
        return 0;
    }
    c->jobs[c->at] = submit(add_link, c, 1, 2);
    CHECK_OK(pb_job_notify(c->jobs[c->at], next_link, c));
    return 0;
}

/* loky: test_reusable_executor.py::test_submit_from_callback: chains of 100, 60 and 50, here at the same time
 */
TEST(chains_of_submissions_from_callbacks_end_in_order) {
    static chain chains[3] = {
        {.length = 100, .over = COUNTER}, {.length = 60, .over = COUNTER}, {.length = 50, .over = COUNTER}};
    for (size_t i = 0; i < 3; i++) {
        chain *c = &chains[i];
        c->jobs[0] = submit(add_link, c, 1, 2);
        CHECK_OK(pb_job_notify(c->jobs[0], next_link, c));
    }
    for (size_t i = 0; i < 3; i++) {
        CHECK(counter_wait(&chains[i].over, 1));
        CHECK_INT(chains[i].length, chains[i].at);
        for (size_t link = 0; link < chains[i].length; link++)
            CHECK_INT(link, chains[i].order[link]);
    }
}

/* loky: test_process_executor.py::test_run_after_processor_shutdown, ours: a shutdown ends idle threads only
 */
TEST(a_shutdown_does_not_disturb_a_running_job) {
    counter go = COUNTER;
    pb_job *job = submit(wait_for_go, &go, 4, 2);
    CHECK_OK(pb_shutdown());
    CHECK_STATUS(pb_job_wait(job, 0), PB_PENDING);
    counter_raise(&go);
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
}

int main(void) {
    RUN(a_wait_takes_no_longer_than_it_may);
    RUN(any_thread_may_ask_any_number_of_times);
    RUN(a_job_runs_in_the_context_of_its_submission);
    RUN(notify_is_called_once_at_the_end_or_at_once_if_it_is_over);
    RUN(notify_is_called_for_jobs_that_fail_too);
    RUN(a_job_may_be_freed_inside_its_notify);
    RUN(a_task_cannot_wait_for_a_job_around_it);
    RUN(a_task_may_free_the_job_around_it);
    RUN(tasks_may_submit_jobs_and_wait_for_them);
    RUN(chains_of_submissions_from_callbacks_end_in_order);
    RUN(a_shutdown_does_not_disturb_a_running_job);
    CHECK_OK(pb_shutdown());
    return check_result();
}
