/* Arguments of the map, blocking and submitted alike: what is refused, with which status, and what the text
 * says. */
#include "sync.h"

static int32_t nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    if (ctx != NULL)
        ++*(size_t *)ctx;
    return 0;
}

/* A call as either function takes it. */
typedef struct call {
    pb_task_fn fn;
    size_t n;
    const void *inputs;
    size_t input_size;
    void *outputs;
    size_t output_size;
    const pb_map_options *options;
} call;

static pb_job *const UNTOUCHED = (pb_job *)-1;

/* Both functions refuse the call with this status and text, and start nothing. */
static void check_refused(call c, pb_status status, const char *text) {
    size_t started = 0;
    CHECK_STATUS(
        pb_parallel_map(c.fn, &started, c.n, c.inputs, c.input_size, c.outputs, c.output_size, c.options),
        status);
    CHECK_TEXT(text);
    pb_job *job = UNTOUCHED;
    CHECK_STATUS(
        pb_submit_map(c.fn, &started, c.n, c.inputs, c.input_size, c.outputs, c.output_size, c.options, &job),
        status);
    CHECK_TEXT(text);
    CHECK(job == UNTOUCHED);
    CHECK_INT(0, started);
}

static void check_options_refused(const pb_map_options *options, pb_status status, const char *text) {
    check_refused((call){.fn = nothing, .n = 2, .options = options}, status, text);
}

TEST(a_task_is_required_even_for_no_items) {
    check_refused((call){.n = 1}, PB_ERR_INVALID_ARGUMENT, "fn is NULL");
    check_refused((call){.n = 0}, PB_ERR_INVALID_ARGUMENT, "fn is NULL");
}

TEST(a_place_for_the_job_is_required) {
    size_t started = 0;
    CHECK_STATUS(pb_submit_map(nothing, &started, 1, NULL, 0, NULL, 0, NULL, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("job is NULL");
    CHECK_INT(0, started);
}

TEST(a_job_is_required) {
    size_t index;
    CHECK_STATUS(pb_job_wait(NULL, 0), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("job is NULL");
    CHECK_STATUS(pb_job_next(NULL, 0, &index), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_cancel(NULL), PB_ERR_INVALID_ARGUMENT);
    pb_job_free(NULL);
}

static int32_t notified(void *user) {
    ++*(size_t *)user;
    return 0;
}

TEST(a_jobs_functions_require_what_they_write_and_call) {
    size_t started = 0, index = 99;
    pb_job *job;
    REQUIRE(pb_submit_map(nothing, &started, 1, NULL, 0, NULL, 0, NULL, &job) == PB_OK);
    CHECK_STATUS(pb_job_notify(NULL, notified, &started), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_notify(job, NULL, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("notify is NULL");
    CHECK_STATUS(pb_job_next(job, -1, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("index is NULL");
    CHECK_OK(pb_job_next(job, -1, &index)); /* the item was not lost */
    CHECK_INT(0, index);
    pb_job_free(job);
}

TEST(a_wait_takes_a_number) {
    size_t index, started = 0;
    pb_job *job;
    REQUIRE(pb_submit_map(nothing, &started, 1, NULL, 0, NULL, 0, NULL, &job) == PB_OK);
    const double not_a_number = strtod("nan", NULL);
    CHECK_STATUS(pb_job_wait(job, not_a_number), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("timeout_seconds");
    CHECK_STATUS(pb_job_next(job, not_a_number, &index), PB_ERR_INVALID_ARGUMENT);
    CHECK_OK(pb_job_wait(job, 1e300)); /* longer than any clock counts: for ever */
    pb_job_free(job);
}

TEST(arrays_beyond_memory_are_refused) {
    char byte;
    int32_t status;
    const size_t half = SIZE_MAX / 2;
    check_refused((call){.fn = nothing, .n = half, .inputs = &byte, .input_size = 3}, PB_ERR_INVALID_ARGUMENT,
                  "inputs");
    check_refused((call){.fn = nothing, .n = half, .outputs = &byte, .output_size = 3},
                  PB_ERR_INVALID_ARGUMENT, "outputs");
    /* no overflow, but beyond what pointers can span */
    check_refused((call){.fn = nothing, .n = half + 1, .inputs = &byte, .input_size = 1},
                  PB_ERR_INVALID_ARGUMENT, "inputs");
    const pb_map_options options = {.struct_size = sizeof options, .statuses = &status};
    check_refused((call){.fn = nothing, .n = half, .options = &options}, PB_ERR_INVALID_ARGUMENT, "statuses");
}

static int32_t fail_at_1000(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    return index == 1000;
}

TEST(without_arrays_a_map_may_be_longer_than_memory) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 1};
    CHECK_STATUS(pb_parallel_map(fail_at_1000, NULL, SIZE_MAX, NULL, 0, NULL, 0, &options),
                 PB_ERR_TASK_FAILED);
    CHECK_INT(1000, last_info().task_index);
    for (uint32_t flags = 0; flags <= PB_UNORDERED; flags += PB_UNORDERED) {
        options.flags = flags;
        pb_job *job;
        REQUIRE(pb_submit_map(fail_at_1000, NULL, SIZE_MAX, NULL, 0, NULL, 0, &options, &job) == PB_OK);
        size_t index, n = 0;
        while (pb_job_next(job, -1, &index) == PB_OK)
            CHECK_INT(n++, index);
        CHECK_INT(1000, n);
        CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_TASK_FAILED);
        pb_job_free(job);
    }
}

TEST(flags_that_are_not_defined_are_refused) {
    for (uint32_t bit = 2 * PB_UNORDERED; bit != 0; bit *= 2) {
        pb_map_options options = {.struct_size = sizeof options, .flags = bit | PB_COLLECT_ERRORS};
        check_options_refused(&options, PB_ERR_INVALID_ARGUMENT, "flags");
    }
}

/* joblib: test_parallel.py::test_invalid_backend_hinting_and_constraints */
TEST(wishes_that_exclude_each_other_are_refused) {
    pb_map_options options = {.struct_size = sizeof options,
                              .flags = PB_PREFER_THREADS | PB_PREFER_PROCESSES};
    check_options_refused(&options, PB_ERR_INVALID_ARGUMENT, "exclude each other");
    options.flags = PB_PREFER_PROCESSES | PB_REQUIRE_SHAREDMEM;
    check_options_refused(&options, PB_ERR_INVALID_ARGUMENT, "exclude each other");
}

TEST(a_timeout_is_seconds_or_0) {
    const char *const bad[] = {"-1", "-1e-9", "-inf", "nan"};
    for (size_t i = 0; i < 4; i++) {
        pb_map_options options = {.struct_size = sizeof options, .timeout = strtod(bad[i], NULL)};
        check_options_refused(&options, PB_ERR_INVALID_ARGUMENT, "timeout");
    }
    const char *const good[] = {"0", "-0.0", "1e300", "inf"};
    for (size_t i = 0; i < 4; i++) {
        pb_map_options options = {.struct_size = sizeof options, .timeout = strtod(good[i], NULL)};
        CHECK_OK(pb_parallel_map(nothing, NULL, 10, NULL, 0, NULL, 0, &options));
    }
}

TEST(the_reserved_field_is_0) {
    pb_map_options options = {.struct_size = sizeof options, .reserved = 1};
    check_options_refused(&options, PB_ERR_INVALID_ARGUMENT, "reserved");
}

/* Options as a later version may have them. */
typedef struct later {
    pb_map_options known;
    uint64_t news[2];
} later;

TEST(options_of_a_wrong_size_are_refused) {
    const size_t sizes[] = {0, 1, sizeof(size_t), sizeof(pb_map_options) - 1};
    for (size_t i = 0; i < 4; i++) {
        pb_map_options options = {.struct_size = sizes[i]};
        check_options_refused(&options, PB_ERR_ABI, "struct_size");
    }
}

TEST(options_of_a_later_version_are_fine_as_long_as_they_ask_for_nothing_new) {
    later options = {.known = {.struct_size = sizeof options, .n_jobs = 1}};
    size_t started = 0;
    CHECK_OK(pb_parallel_map(nothing, &started, 3, NULL, 0, NULL, 0, &options.known));
    CHECK_INT(3, started);
    options.news[1] = 1;
    check_options_refused(&options.known, PB_ERR_UNSUPPORTED, pb_version());
}

/* joblib: test_parallel.py::test_invalid_njobs, ours: 0 is "not given" and every other number has a meaning
 */
TEST(any_number_of_workers_can_be_asked_for) {
    const int32_t numbers[] = {INT32_MIN, -1000, 0, 1000, INT32_MAX};
    for (size_t i = 0; i < 5; i++) {
        pb_map_options options = {.struct_size = sizeof options, .n_jobs = numbers[i], .timeout = 10};
        CHECK_OK(pb_parallel_map(nothing, NULL, 3, NULL, 0, NULL, 0, &options));
    }
}

TEST(what_was_refused_left_the_statuses_alone) {
    int32_t statuses[2] = {77, 77};
    pb_map_options options = {.struct_size = sizeof options, .timeout = -1, .statuses = statuses};
    check_options_refused(&options, PB_ERR_INVALID_ARGUMENT, "timeout");
    CHECK_INT(77, statuses[0]);
    CHECK_INT(77, statuses[1]);
}

int main(void) {
    RUN(a_task_is_required_even_for_no_items);
    RUN(a_place_for_the_job_is_required);
    RUN(a_job_is_required);
    RUN(a_jobs_functions_require_what_they_write_and_call);
    RUN(a_wait_takes_a_number);
    RUN(arrays_beyond_memory_are_refused);
    RUN(without_arrays_a_map_may_be_longer_than_memory);
    RUN(flags_that_are_not_defined_are_refused);
    RUN(wishes_that_exclude_each_other_are_refused);
    RUN(a_timeout_is_seconds_or_0);
    RUN(the_reserved_field_is_0);
    RUN(options_of_a_wrong_size_are_refused);
    RUN(options_of_a_later_version_are_fine_as_long_as_they_ask_for_nothing_new);
    RUN(any_number_of_workers_can_be_asked_for);
    RUN(what_was_refused_left_the_statuses_alone);
    CHECK_OK(pb_shutdown());
    return check_result();
}
