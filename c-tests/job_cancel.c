/* Cancelling: nothing further starts, what runs is asked to stop, at any depth, and the job ends as
 * cancelled. */
#include "scopes.h"
#include "sync.h"

static pb_job *submit(pb_task_fn fn, void *ctx, size_t n, int32_t n_jobs) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = n_jobs};
    pb_job *job = NULL;
    REQUIRE(pb_submit_map(fn, ctx, n, NULL, 0, NULL, 0, &options, &job) == PB_OK);
    return job;
}

typedef struct tally {
    counter started, ended;
} tally;

static int32_t until_cancelled(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    tally *t = ctx;
    counter_raise(&t->started);
    CHECK(wait_cancelled());
    counter_raise(&t->ended);
    return 0;
}

TEST(those_that_run_are_asked_to_stop_and_no_further_one_starts) {
    const char *const backends[] = {"sequential", "threading"};
    for (size_t b = 0; b < 2; b++) {
        pb_scope scope = use_backend(backends[b], 2);
        tally t = {COUNTER, COUNTER};
        pb_job *job = submit(until_cancelled, &t, 1000, 0);
        CHECK(counter_wait(&t.started, b + 1));
        CHECK_OK(pb_job_cancel(job));
        CHECK_OK(pb_job_cancel(job)); /* once more changes nothing */
        CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_CANCELLED);
        CHECK_TEXT("cancelled");
        CHECK_INT(b + 1, counter_get(&t.started));
        CHECK_INT(b + 1, counter_get(&t.ended));
        CHECK_INT(SIZE_MAX, last_info().task_index);
        pb_job_free(job);
        CHECK_OK(pb_pop_backend(scope));
    }
}

static int32_t nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

static int32_t fail(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 7;
}

TEST(a_job_that_is_over_stays_as_it_ended) {
    pb_job *good = submit(nothing, NULL, 10, 2), *bad = submit(fail, NULL, 10, 2);
    CHECK_OK(pb_job_wait(good, -1));
    CHECK_STATUS(pb_job_wait(bad, -1), PB_ERR_TASK_FAILED);
    CHECK_OK(pb_job_cancel(good));
    CHECK_OK(pb_job_cancel(bad));
    CHECK_OK(pb_job_wait(good, -1));
    CHECK_STATUS(pb_job_wait(bad, -1), PB_ERR_TASK_FAILED);
    pb_job_free(good);
    pb_job_free(bad);
}

/* Cancels before, while and after a job runs, as it comes: it is over soon, one way or the other. */
TEST(a_cancel_may_come_at_any_time) {
    const size_t n = rounds(500);
    for (size_t i = 0; i < n; i++) {
        pb_job *job = submit(nothing, NULL, 10 * i, 2);
        CHECK_OK(pb_job_cancel(job));
        const pb_status status = pb_job_wait(job, PATIENCE);
        CHECK(status == PB_ERR_CANCELLED || status == PB_OK);
        pb_job_free(job);
    }
}

TEST(items_that_were_finished_can_still_be_taken) {
    tally t = {COUNTER, COUNTER};
    pb_job *job = submit(until_cancelled, &t, 10, 1);
    size_t index;
    CHECK(counter_wait(&t.started, 1));
    CHECK_STATUS(pb_job_next(job, 0, &index), PB_PENDING);
    CHECK_OK(pb_job_cancel(job));
    CHECK_OK(pb_job_next(job, -1, &index)); /* the one that ran has ended */
    CHECK_INT(0, index);
    CHECK_STATUS(pb_job_next(job, -1, &index), PB_ERR_CANCELLED);
    pb_job_free(job);
}

/* What a task returns because it was asked to stop is no failure. */
static int32_t fail_when_cancelled(void *ctx, size_t index, const void *input, void *output) {
    until_cancelled(ctx, index, input, output);
    return PB_ERR_CANCELLED;
}

TEST(a_task_that_ends_early_because_it_was_asked_is_no_failure) {
    tally t = {COUNTER, COUNTER};
    pb_job *job = submit(fail_when_cancelled, &t, 10, 2);
    CHECK(counter_wait(&t.started, 1));
    CHECK_OK(pb_job_cancel(job));
    CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_CANCELLED);
    pb_job_free(job);
}

TEST(freeing_a_running_job_cancels_it_and_waits) {
    tally t = {COUNTER, COUNTER};
    pb_job *job = submit(until_cancelled, &t, 1000, 2);
    CHECK(counter_wait(&t.started, 1));
    pb_job_free(job);
    CHECK_INT(counter_get(&t.started), counter_get(&t.ended));
    CHECK(counter_get(&t.started) <= 2);
}

TEST(freeing_a_job_at_once_is_fine) {
    const size_t n = rounds(500);
    for (size_t i = 0; i < n; i++)
        pb_job_free(submit(nothing, NULL, 100, 3));
}

typedef struct deep {
    int depth; /* maps between the submitted one and the innermost tasks */
    size_t batch_size;
    tally *tally;
} deep;

/* A chain of maps, of which only the innermost tasks look. Each map on the way ends as cancelled. */
static int32_t go_down(void *ctx, size_t index, const void *input, void *output) {
    const deep *here = ctx;
    if (here->depth == 0)
        return until_cancelled(here->tally, index, input, output);
    deep below = {here->depth - 1, here->batch_size, here->tally};
    /* from level 2 on maps are sequential unless they ask */
    pb_map_options options = {.struct_size = sizeof options,
                              .n_jobs = 2,
                              .flags = PB_PREFER_THREADS,
                              .batch_size = here->batch_size};
    CHECK_STATUS(pb_parallel_map(go_down, &below, 1000, NULL, 0, NULL, 0, &options), PB_ERR_CANCELLED);
    return 0;
}

TEST(a_nested_task_sees_the_outermost_cancel_and_its_map_starts_no_further_item) {
    const size_t batch_sizes[] = {0, 1, 100};
    for (int depth = 1; depth <= 3; depth++)
        for (size_t b = 0; b < 3; b++) {
            tally t = {COUNTER, COUNTER};
            deep top = {depth, batch_sizes[b], &t};
            pb_job *job = submit(go_down, &top, 1000, 2);
            CHECK(counter_wait(&t.started, 1));
            CHECK_OK(pb_job_cancel(job));
            CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_CANCELLED);
            /* each of the 2 * 2^depth workers took one item at most */
            CHECK(counter_get(&t.started) <= (size_t)2 << depth);
            CHECK_INT(counter_get(&t.started), counter_get(&t.ended));
            pb_job_free(job);
        }
}

static int32_t quick_at_first(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    tally *t = ctx;
    counter_raise(&t->started);
    if (index == 1) {
        counter_raise(&t->ended);
        CHECK(wait_cancelled());
    }
    return 0;
}

static int32_t nest_quick_at_first(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    CHECK_STATUS(pb_parallel_map(quick_at_first, ctx, 1000 * 1000, NULL, 0, NULL, 0, NULL), PB_ERR_CANCELLED);
    return 0;
}

TEST(a_nested_map_whose_first_item_was_quick_ends_soon_too) {
    tally t = {COUNTER, COUNTER};
    const pb_scope scope = open_scope("threading", 2);
    pb_job *job = submit(nest_quick_at_first, &t, 3, 2);
    CHECK(counter_wait(&t.ended, 2));
    CHECK_OK(pb_job_cancel(job));
    CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_CANCELLED);
    CHECK(counter_get(&t.started) <= 2 * 16);
    pb_job_free(job);
    close_scope(scope);
}

/* A job submitted inside a task is cancelled with it. */
static int32_t submit_inside(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    pb_job *inner = submit(until_cancelled, ctx, 100, 2);
    CHECK_STATUS(pb_job_wait(inner, -1), PB_ERR_CANCELLED);
    pb_job_free(inner);
    return 0;
}

TEST(a_job_submitted_inside_a_task_is_cancelled_with_it) {
    tally t = {COUNTER, COUNTER};
    pb_job *job = submit(submit_inside, &t, 1000, 2);
    CHECK(counter_wait(&t.started, 1));
    CHECK_OK(pb_job_cancel(job));
    CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_CANCELLED);
    CHECK_INT(counter_get(&t.started), counter_get(&t.ended));
    pb_job_free(job);
}

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return pb_cancelled();
}

TEST(nothing_is_cancelled_where_nobody_cancelled) {
    CHECK_INT(0, pb_cancelled());
    CHECK_OK(pb_parallel_map(look, NULL, 100, NULL, 0, NULL, 0, NULL));
    pb_job *job = submit(look, NULL, 100, 2);
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
}

int main(void) {
    RUN(those_that_run_are_asked_to_stop_and_no_further_one_starts);
    RUN(a_job_that_is_over_stays_as_it_ended);
    RUN(a_cancel_may_come_at_any_time);
    RUN(items_that_were_finished_can_still_be_taken);
    RUN(a_task_that_ends_early_because_it_was_asked_is_no_failure);
    RUN(freeing_a_running_job_cancels_it_and_waits);
    RUN(freeing_a_job_at_once_is_fine);
    RUN(a_nested_task_sees_the_outermost_cancel_and_its_map_starts_no_further_item);
    RUN(a_nested_map_whose_first_item_was_quick_ends_soon_too);
    RUN(a_job_submitted_inside_a_task_is_cancelled_with_it);
    RUN(nothing_is_cancelled_where_nobody_cancelled);
    CHECK_OK(pb_shutdown());
    return check_result();
}
