/* A backend's run: how it may end, and what it may do with a job's chunks. */
#include "fake_backend.h"

enum { N = 40 };

/* Registers a fake whose run is this one, and opens a scope with it. */
static pb_scope begin(struct fake *fake, pb_status (*run)(struct fake *, pb_job *)) {
    fake->run = run;
    fake_register(fake);
    return fake_push(2);
}

/* A map in batches of 4 that are claimed by such a run; how it ended. */
static pb_status map_in_fours(uint32_t flags, int32_t *statuses, int32_t *count) {
    pb_map_options options = {.struct_size = sizeof options};
    options.batch_size = 4;
    options.flags = flags;
    options.statuses = statuses;
    *count = 0;
    return pb_parallel_map(count_task, count, N, NULL, 0, NULL, 0, &options);
}

/* ---- runs that fail ---- */

static pb_status run_says_why(struct fake *fake, pb_job *job) {
    (void)fake, (void)job;
    return pb_backend_fail(PB_ERR_WORKER_LOST, "the cluster has gone home");
}
static pb_status run_says_nothing(struct fake *fake, pb_job *job) {
    (void)fake, (void)job;
    return PB_ERR_IO;
}
static pb_status run_says_nonsense(struct fake *fake, pb_job *job) {
    (void)fake, (void)job;
    return -4711;
}
/* Runs everything and fails nevertheless. */
static pb_status run_fails_late(struct fake *fake, pb_job *job) {
    fake_run_all(fake, job);
    return pb_backend_fail(PB_ERR_IO, "could not say good-bye");
}

static void check_run_error(pb_status (*run)(struct fake *, pb_job *), pb_status status, const char *text) {
    struct fake fake = FAKE;
    int32_t count = 0;
    const pb_scope scope = begin(&fake, run);
    for (uint32_t flags = 0; flags <= PB_COLLECT_ERRORS; flags += PB_COLLECT_ERRORS) {
        CHECK_STATUS(map_in_fours(flags, NULL, &count), status);
        CHECK_TEXT("backend 'fake'");
        CHECK_TEXT(text);
    }
    fake_end(scope);
    CHECK_STR("ocd", fake.log);
}

TEST(the_error_of_run_is_that_of_the_map) {
    check_run_error(run_says_why, PB_ERR_WORKER_LOST, "its run failed: the cluster has gone home");
    check_run_error(run_says_nothing, PB_ERR_IO, "its run returned PB_ERR_IO (-12) without a text");
    check_run_error(run_says_nonsense, PB_ERR_INTERNAL, "-4711");
    check_run_error(run_fails_late, PB_ERR_IO, "could not say good-bye");
}

/* ---- runs that do not do all ---- */

static pb_status run_nothing(struct fake *fake, pb_job *job) {
    (void)fake, (void)job;
    return PB_OK;
}
static pb_status run_three_chunks(struct fake *fake, pb_job *job) {
    pb_chunk chunk;
    (void)fake;
    for (int i = 0; i < 3; ++i) {
        CHECK_OK(pb_job_claim(job, &chunk));
        CHECK_OK(pb_job_run(job, &chunk));
    }
    return PB_OK;
}
static pb_status run_all_but_the_first_chunk(struct fake *fake, pb_job *job) {
    pb_chunk chunk;
    CHECK_OK(pb_job_claim(job, &chunk));
    return fake_run_all(fake, job);
}

static void check_unrun(pb_status (*run)(struct fake *, pb_job *), int32_t unrun, const char *text) {
    struct fake fake = FAKE;
    int32_t count = 0;
    const pb_scope scope = begin(&fake, run);
    for (uint32_t flags = 0; flags <= PB_COLLECT_ERRORS; flags += PB_COLLECT_ERRORS) {
        int32_t statuses[N];
        CHECK_STATUS(map_in_fours(flags, statuses, &count), PB_ERR_INTERNAL);
        CHECK_TEXT("backend 'fake'");
        CHECK_TEXT(text);
        CHECK_INT(N - unrun, count);
        int32_t not_finished = 0;
        for (size_t i = 0; i < N; ++i)
            not_finished += statuses[i] != 0;
        CHECK_INT(unrun, not_finished);
    }
    fake_end(scope);
}

TEST(a_run_that_leaves_items_is_an_error_with_their_number) {
    check_unrun(run_nothing, 40, "40 of 40 items not run");
    check_unrun(run_three_chunks, 28, "28 of 40 items not run");
    check_unrun(run_all_but_the_first_chunk, 4, "4 of 40 items not run");
}

static int32_t fail_at_1(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    return index == 1 ? 6 : 0;
}

/* That items are missing weighs more than what one of the others returned. */
TEST(a_failed_item_does_not_hide_that_others_were_left) {
    struct fake fake = FAKE;
    int32_t statuses[N];
    pb_map_options options = {.struct_size = sizeof options};
    options.batch_size = 4;
    options.flags = PB_COLLECT_ERRORS;
    options.statuses = statuses;
    const pb_scope scope = begin(&fake, run_three_chunks);
    CHECK_STATUS(pb_parallel_map(fail_at_1, NULL, N, NULL, 0, NULL, 0, &options), PB_ERR_INTERNAL);
    CHECK_TEXT("28 of 40 items not run");
    CHECK_INT(6, statuses[1]);
    CHECK_INT(0, statuses[11]);
    CHECK_INT(PB_ERR_CANCELLED, statuses[12]);
    fake_end(scope);
}

/* ---- pb_job_fail ---- */

static pb_status run_gives_up(struct fake *fake, pb_job *job) {
    pb_chunk chunk;
    run_three_chunks(fake, job);
    CHECK_STATUS(pb_job_fail(job, PB_OK, "no"), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_fail(job, PB_DONE, "no"), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_fail(job, -4711, "no"), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("-4711");
    CHECK_INT(0, pb_job_cancelled(job));
    CHECK_OK(pb_job_fail(job, PB_ERR_WORKER_LOST, "worker 3 does not answer"));
    CHECK_INT(1, pb_job_cancelled(job));
    CHECK_OK(pb_job_fail(job, PB_ERR_IO, "a consequence of the first"));
    CHECK_STATUS(pb_job_claim(job, &chunk), PB_DONE);
    return PB_OK;
}

TEST(the_backend_can_fail_a_job_with_a_text) {
    struct fake fake = FAKE;
    int32_t count = 0;
    const pb_scope scope = begin(&fake, run_gives_up);
    for (uint32_t flags = 0; flags <= PB_COLLECT_ERRORS; flags += PB_COLLECT_ERRORS) {
        CHECK_STATUS(map_in_fours(flags, NULL, &count), PB_ERR_WORKER_LOST);
        CHECK_TEXT("worker 3 does not answer");
        CHECK_INT(12, count);
    }
    /* An item had failed before, and errors are collected: the statuses tell of it, the call of the backend.
     */
    pb_map_options options = {.struct_size = sizeof options};
    options.batch_size = 4;
    options.flags = PB_COLLECT_ERRORS;
    CHECK_STATUS(pb_parallel_map(fail_at_1, NULL, N, NULL, 0, NULL, 0, &options), PB_ERR_WORKER_LOST);
    CHECK_TEXT("worker 3 does not answer");
    fake_end(scope);
}

static pb_status run_fails_without_text(struct fake *fake, pb_job *job) {
    (void)fake;
    CHECK_OK(pb_job_fail(job, PB_ERR_IO, NULL));
    return PB_OK;
}

TEST(a_failure_without_a_text_says_so) {
    struct fake fake = FAKE;
    int32_t count = 0;
    const pb_scope scope = begin(&fake, run_fails_without_text);
    CHECK_STATUS(map_in_fours(0, NULL, &count), PB_ERR_IO);
    CHECK_TEXT("said no more");
    CHECK_INT(0, count);
    fake_end(scope);
}

/* ---- chunks ---- */

static pb_status run_wrong_chunks(struct fake *fake, pb_job *job) {
    pb_chunk chunk, other;
    CHECK_OK(pb_job_claim(job, &chunk));
    CHECK_INT(0, chunk.begin);
    CHECK_INT(4, chunk.end);
    const pb_chunk wrong[] = {{4, 8}, {0, 3}, {0, 5}, {1, 4}, {4, 4}, {3, 1}, {0, SIZE_MAX}, {N, N + 4}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
        CHECK_STATUS(pb_job_run(job, &wrong[i]), PB_ERR_INVALID_ARGUMENT);
        CHECK_TEXT("was not claimed");
    }
    CHECK_OK(pb_job_run(job, &chunk));
    CHECK_STATUS(pb_job_run(job, &chunk), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("chunk 0..4");
    CHECK_TEXT("has been run");
    /* Claims may be run in another order. */
    CHECK_OK(pb_job_claim(job, &chunk));
    CHECK_OK(pb_job_claim(job, &other));
    CHECK_OK(pb_job_run(job, &other));
    CHECK_OK(pb_job_run(job, &chunk));
    return fake_run_all(fake, job);
}

TEST(only_claimed_chunks_run_and_each_once) {
    struct fake fake = FAKE;
    int32_t count = 0;
    const pb_scope scope = begin(&fake, run_wrong_chunks);
    CHECK_OK(map_in_fours(0, NULL, &count));
    CHECK_INT(N, count);
    fake_end(scope);
}

static pb_status run_with_nulls(struct fake *fake, pb_job *job) {
    pb_chunk chunk;
    CHECK_INT(2, pb_job_n_jobs(job));
    CHECK_INT(N, pb_job_n_items(job));
    CHECK_INT(0, pb_job_cancelled(job));
    CHECK_STATUS(pb_job_claim(job, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_claim(NULL, &chunk), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_run(job, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_run(NULL, &chunk), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_fail(NULL, PB_ERR_IO, "no"), PB_ERR_INVALID_ARGUMENT);
    CHECK_INT(0, pb_job_n_jobs(NULL));
    CHECK_TEXT("job is NULL");
    CHECK_INT(0, pb_job_n_items(NULL));
    CHECK_INT(0, pb_job_cancelled(NULL));
    return fake_run_all(fake, job);
}

TEST(NULL_is_refused_and_takes_no_item) {
    struct fake fake = FAKE;
    int32_t count = 0;
    const pb_scope scope = begin(&fake, run_with_nulls);
    CHECK_OK(map_in_fours(0, NULL, &count));
    CHECK_INT(N, count);
    fake_end(scope);
}

/* A task that gave up is the job's own affair: the backend goes on as long as it gets chunks. */
static pb_status run_until_done(struct fake *fake, pb_job *job) {
    fake_run_all(fake, job);
    CHECK_INT(1, pb_job_cancelled(job));
    return PB_OK;
}

TEST(a_failed_item_ends_the_claims) {
    struct fake fake = FAKE;
    const pb_scope scope = begin(&fake, run_until_done);
    CHECK_STATUS(pb_parallel_map(fail_at_1, NULL, N, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
    CHECK_TEXT("item 1");
    fake_end(scope);
}

int main(void) {
    RUN(the_error_of_run_is_that_of_the_map);
    RUN(a_run_that_leaves_items_is_an_error_with_their_number);
    RUN(a_failed_item_does_not_hide_that_others_were_left);
    RUN(the_backend_can_fail_a_job_with_a_text);
    RUN(a_failure_without_a_text_says_so);
    RUN(only_claimed_chunks_run_and_each_once);
    RUN(NULL_is_refused_and_takes_no_item);
    RUN(a_failed_item_ends_the_claims);
    CHECK_OK(pb_shutdown());
    return check_result();
}
