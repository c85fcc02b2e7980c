/* Tasks that fail, and parameters that a backend does not have. */
#include "conformance.h"

enum { N = 100 };

typedef struct failure {
    size_t index;
    int32_t code;
} failure;

/* Fails at one index, with a text; succeeds elsewhere, where it leaves one too and does not mean it. */
static int32_t fail_at(void *ctx, size_t index, const void *input, void *output) {
    const failure *f = ctx;
    (void)input, (void)output;
    pb_task_fail(index == f->index ? "the matrix is singular" : "never mind");
    return index == f->index ? f->code : 0;
}

TEST(the_error_of_a_map_is_its_failed_task) {
    failure f = {77, -1234};
    int32_t statuses[N];
    pb_map_options options = with_ctx_size(sizeof f);
    options.statuses = statuses;
    const pb_scope scope = use_backend(2);
    CHECK_STATUS(pb_parallel_map(fail_at, &f, N, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
    CHECK_TEXT("item 77");
    CHECK_TEXT("-1234");
    CHECK_TEXT("the matrix is singular");
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_OK(pb_last_error_info(&info));
    CHECK_INT(PB_ERR_TASK_FAILED, info.status);
    CHECK_INT(77, info.task_index);
    CHECK_INT(-1234, info.task_code);
    CHECK_INT(-1, info.exit_code);
    CHECK_INT(0, info.signal);
    CHECK_INT(1, info.attempts);
    /* The other items were finished or not started. */
    for (size_t i = 0; i < N; ++i)
        CHECK(i == 77 ? statuses[i] == -1234 : statuses[i] == 0 || statuses[i] == PB_ERR_CANCELLED);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_failed_map_leaves_the_backend_usable) {
    failure bad = {0, 5}, none = {N, 5};
    const pb_map_options options = with_ctx_size(sizeof bad);
    const pb_scope scope = use_backend(3);
    for (int round = 0; round < 20; ++round) {
        CHECK_STATUS(pb_parallel_map(fail_at, &bad, N, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
        CHECK_OK(pb_parallel_map(fail_at, &none, N, NULL, 0, NULL, 0, &options));
    }
    CHECK_OK(pb_pop_backend(scope));
}

/* Item 0 fails; every other one lasts until it is asked to stop. */
static int32_t fail_first(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    return index == 0 ? 4 : wait_until_cancelled() ? 0 : 99;
}

TEST(after_a_failure_tasks_are_asked_to_stop_and_none_starts) {
    int32_t statuses[N];
    pb_map_options options = with_ctx_size(0);
    options.statuses = statuses;
    options.batch_size = 1;
    const pb_scope scope = use_backend(3);
    CHECK_STATUS(pb_parallel_map(fail_first, NULL, N, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
    CHECK_INT(4, statuses[0]);
    int32_t started = 1;
    for (size_t i = 1; i < N; ++i) {
        CHECK(statuses[i] == 0 || statuses[i] == PB_ERR_CANCELLED);
        started += statuses[i] == 0;
    }
    CHECK(started <= pb_effective_n_jobs(0));
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- all errors ---- */

static int32_t fail_every_tenth(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    *(int32_t *)output = (int32_t)index * 2;
    return index % 10 == 0 ? (int32_t)index + 1 : 0;
}

TEST(collected_errors_leave_nothing_undone) {
    int32_t statuses[N], outputs[N] = {0};
    pb_map_options options = with_ctx_size(0);
    options.flags = PB_COLLECT_ERRORS;
    options.statuses = statuses;
    const pb_scope scope = use_backend(2);
    for (size_t batch_size = 0; batch_size < 8; batch_size += 7) {
        options.batch_size = batch_size;
        memset(statuses, 0x55, sizeof statuses);
        CHECK_STATUS(pb_parallel_map(fail_every_tenth, NULL, N, NULL, 0, outputs, sizeof *outputs, &options),
                     PB_ERR_TASK_FAILED);
        CHECK_TEXT("10 of 100 items failed");
        for (size_t i = 0; i < N; ++i) {
            CHECK_INT(i % 10 == 0 ? (int32_t)i + 1 : 0, statuses[i]);
            /* What a failed item left in its output is not for use. */
            if (i % 10 != 0)
                CHECK_INT((int32_t)i * 2, outputs[i]);
        }
    }
    CHECK_OK(pb_pop_backend(scope));
}

TEST(statuses_of_a_good_map_are_0) {
    failure none = {N, 5};
    int32_t statuses[N];
    memset(statuses, 0x55, sizeof statuses);
    pb_map_options options = with_ctx_size(sizeof none);
    options.statuses = statuses;
    const pb_scope scope = use_backend(2);
    CHECK_OK(pb_parallel_map(fail_at, &none, N, NULL, 0, NULL, 0, &options));
    for (size_t i = 0; i < N; ++i)
        CHECK_INT(0, statuses[i]);
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- parameters ---- */

TEST(parameters_that_a_backend_does_not_have_are_named) {
    pb_scope scope = 0;
    CHECK_STATUS(pb_push_backend(suite.backend, 2, 0, "no_such_key=1", &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("no_such_key");
    CHECK_TEXT(suite.backend);
    CHECK_STATUS(pb_push_backend(suite.backend, 2, 0, "not_a_pair", &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("not_a_pair");
    CHECK_INT(0, scope);
    CHECK_OK(pb_push_backend(suite.backend, 2, 0, suite.params, &scope));
    CHECK_STR(suite.backend, pb_current_backend());
    CHECK_OK(pb_pop_backend(scope));
}

void test_errors(void) {
    RUN(the_error_of_a_map_is_its_failed_task);
    RUN(a_failed_map_leaves_the_backend_usable);
    RUN(after_a_failure_tasks_are_asked_to_stop_and_none_starts);
    RUN(collected_errors_leave_nothing_undone);
    RUN(statuses_of_a_good_map_are_0);
    RUN(parameters_that_a_backend_does_not_have_are_named);
}
