/* PB_COLLECT_ERRORS and `statuses`: the fate of every item. */
#include "sync.h"

#define N 60

static const char *const BACKENDS[] = {"sequential", "threading"};

/* Item i: every third fails with code i. */
static int32_t every_third_fails(void *ctx, size_t index, const void *input, void *output) {
    (void)input;
    if (ctx != NULL)
        counter_raise(ctx);
    *(size_t *)output = index + 1;
    if (index % 3 != 0 || index == 0)
        return 0;
    if (index == 3)
        CHECK_OK(pb_task_fail("the third"));
    return (int32_t)index;
}

TEST(everything_runs_and_statuses_has_each_items_fate) {
    for (size_t b = 0; b < 2; b++)
        for (size_t batch_size = 0; batch_size < 10; batch_size += 4) {
            size_t outputs[N] = {0};
            int32_t statuses[N];
            counter calls = COUNTER;
            pb_scope scope = use_backend(BACKENDS[b], 3);
            pb_map_options options = {.struct_size = sizeof options,
                                      .flags = PB_COLLECT_ERRORS,
                                      .batch_size = batch_size,
                                      .statuses = statuses};
            CHECK_STATUS(
                pb_parallel_map(every_third_fails, &calls, N, NULL, 0, outputs, sizeof *outputs, &options),
                PB_ERR_TASK_FAILED);
            CHECK_TEXT("19 of 60 items failed");
            CHECK_INT(N, counter_get(&calls));
            for (size_t i = 0; i < N; i++) {
                CHECK_INT(i % 3 == 0 ? i : 0, statuses[i]);
                CHECK_INT(i + 1, outputs[i]);
            }
            CHECK_OK(pb_pop_backend(scope));
        }
}

TEST(with_one_worker_the_first_failure_is_the_lowest_item) {
    size_t outputs[N];
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 1, .flags = PB_COLLECT_ERRORS};
    CHECK_STATUS(pb_parallel_map(every_third_fails, NULL, N, NULL, 0, outputs, sizeof *outputs, &options),
                 PB_ERR_TASK_FAILED);
    CHECK_INT(3, last_info().task_index);
    CHECK_INT(3, last_info().task_code);
    CHECK_TEXT("the third");
}

TEST(a_single_failure_is_told_like_any_other) {
    size_t outputs[4];
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .flags = PB_COLLECT_ERRORS};
    CHECK_STATUS(pb_parallel_map(every_third_fails, NULL, 4, NULL, 0, outputs, sizeof *outputs, &options),
                 PB_ERR_TASK_FAILED);
    CHECK_STR("item 3 failed with code 3: the third", pb_last_error());
}

TEST(without_failures_the_call_succeeds_and_all_statuses_are_0) {
    size_t outputs[3];
    int32_t statuses[3] = {9, 9, 9};
    pb_map_options options = {
        .struct_size = sizeof options, .flags = PB_COLLECT_ERRORS, .statuses = statuses};
    CHECK_OK(pb_parallel_map(every_third_fails, NULL, 3, NULL, 0, outputs, sizeof *outputs, &options));
    for (size_t i = 0; i < 3; i++)
        CHECK_INT(0, statuses[i]);
}

TEST(statuses_without_collecting_show_where_the_map_stopped) {
    size_t outputs[N];
    int32_t statuses[N];
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 1, .statuses = statuses};
    CHECK_STATUS(pb_parallel_map(every_third_fails, NULL, N, NULL, 0, outputs, sizeof *outputs, &options),
                 PB_ERR_TASK_FAILED);
    for (size_t i = 0; i < N; i++)
        CHECK_INT(i < 3 ? 0 : i == 3 ? 3 : PB_ERR_CANCELLED, statuses[i]);
}

/* Items 1 and 3 take longer than they may; the others are quick. */
static int32_t two_are_late(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    if (index % 2 == 1 && index < 4)
        CHECK(wait_cancelled());
    return index == 4 ? 40 : 0;
}

/* joblib#1251, #522: one slow task does not ruin the others */
TEST(a_late_item_concerns_only_itself) {
    for (size_t b = 0; b < 2; b++) {
        const int32_t expected[6] = {0, PB_ERR_TIMEOUT, 0, PB_ERR_TIMEOUT, 40, 0};
        int32_t statuses[6];
        pb_scope scope = use_backend(BACKENDS[b], 2);
        pb_map_options options = {
            .struct_size = sizeof options, .flags = PB_COLLECT_ERRORS, .timeout = 0.25, .statuses = statuses};
        CHECK_STATUS(pb_parallel_map(two_are_late, NULL, 6, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
        CHECK_TEXT("3 of 6 items failed");
        for (size_t i = 0; i < 6; i++)
            CHECK_INT(expected[i], statuses[i]);
        CHECK_OK(pb_pop_backend(scope));
    }
}

static int32_t cancel_at_10(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    if (index == 10)
        CHECK_OK(pb_job_cancel(*(pb_job **)ctx));
    return index == 2 ? 5 : 0;
}

/* The handle is there before the items need it: the first one waits for it. */
typedef struct handle {
    pb_job *job;
    counter known;
} handle;

static int32_t cancel_itself_at_10(void *ctx, size_t index, const void *input, void *output) {
    handle *h = ctx;
    if (index == 10)
        CHECK(counter_wait(&h->known, 1));
    return cancel_at_10(&h->job, index, input, output);
}

TEST(items_that_a_cancel_left_out_say_cancelled) {
    int32_t statuses[N];
    handle h = {NULL, COUNTER};
    pb_map_options options = {
        .struct_size = sizeof options, .n_jobs = 1, .flags = PB_COLLECT_ERRORS, .statuses = statuses};
    REQUIRE(pb_submit_map(cancel_itself_at_10, &h, N, NULL, 0, NULL, 0, &options, &h.job) == PB_OK);
    counter_raise(&h.known);
    CHECK_STATUS(pb_job_wait(h.job, -1), PB_ERR_CANCELLED);
    for (size_t i = 0; i < N; i++)
        CHECK_INT(i > 10 ? PB_ERR_CANCELLED : i == 2 ? 5 : 0, statuses[i]);
    pb_job_free(h.job);
}

/* A backend that gives up after its first chunk. */
static pb_status give_up(void *state, void *session, pb_job *job) {
    (void)state, (void)session;
    pb_chunk chunk;
    REQUIRE(pb_job_claim(job, &chunk) == PB_OK);
    CHECK_OK(pb_job_run(job, &chunk));
    CHECK_OK(pb_job_fail(job, PB_ERR_IO, "the cable is out"));
    CHECK_INT(1, pb_job_cancelled(job));
    return PB_OK;
}

static int32_t fail_if_asked(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    return *(int32_t *)ctx;
}

TEST(the_backends_own_failure_is_the_calls_even_if_items_failed_before) {
    const pb_backend_vtable table = {.struct_size = sizeof table,
                                     .abi_version = PB_BACKEND_ABI_VERSION,
                                     .capabilities = PB_BACKEND_SHARES_MEMORY,
                                     .run = give_up};
    REQUIRE(pb_register_backend("fragile", &table, NULL, 0) == PB_OK);
    pb_scope scope = use_backend("fragile", 2);
    for (int32_t code = 0; code < 2; code++) {
        int32_t statuses[3];
        pb_map_options options = {
            .struct_size = sizeof options, .flags = PB_COLLECT_ERRORS, .statuses = statuses};
        CHECK_STATUS(pb_parallel_map(fail_if_asked, &code, 3, NULL, 0, NULL, 0, &options), PB_ERR_IO);
        CHECK_TEXT("the cable is out");
        CHECK_INT(code, statuses[0]);
        CHECK_INT(PB_ERR_CANCELLED, statuses[1]);
    }
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_unregister_backend("fragile"));
}

int main(void) {
    RUN(everything_runs_and_statuses_has_each_items_fate);
    RUN(with_one_worker_the_first_failure_is_the_lowest_item);
    RUN(a_single_failure_is_told_like_any_other);
    RUN(without_failures_the_call_succeeds_and_all_statuses_are_0);
    RUN(statuses_without_collecting_show_where_the_map_stopped);
    RUN(a_late_item_concerns_only_itself);
    RUN(items_that_a_cancel_left_out_say_cancelled);
    RUN(the_backends_own_failure_is_the_calls_even_if_items_failed_before);
    CHECK_OK(pb_shutdown());
    return check_result();
}
