/* Versions, the names of statuses, and what a thread can learn of its last error. */
#include "scopes.h"

TEST(the_library_has_the_version_of_its_header) {
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", PB_VERSION_MAJOR, PB_VERSION_MINOR, PB_VERSION_PATCH);
    CHECK_STR(version, pb_version());
    CHECK_INT(PB_VERSION_MAJOR * 10000 + PB_VERSION_MINOR * 100 + PB_VERSION_PATCH, PB_VERSION_NUMBER);
    CHECK_INT(PB_ABI_VERSION, pb_abi_version());
}

TEST(every_status_has_the_name_of_its_constant) {
#define NAMED(status) CHECK_STR(#status, pb_status_name(status))
    NAMED(PB_OK);
    NAMED(PB_PENDING);
    NAMED(PB_DONE);
    NAMED(PB_ERR_INVALID_ARGUMENT);
    NAMED(PB_ERR_UNKNOWN_BACKEND);
    NAMED(PB_ERR_BACKEND_UNAVAILABLE);
    NAMED(PB_ERR_SCOPE);
    NAMED(PB_ERR_TASK_FAILED);
    NAMED(PB_ERR_TASK_NOT_PORTABLE);
    NAMED(PB_ERR_WORKER_LOST);
    NAMED(PB_ERR_TIMEOUT);
    NAMED(PB_ERR_CANCELLED);
    NAMED(PB_ERR_UNSUPPORTED);
    NAMED(PB_ERR_OUT_OF_MEMORY);
    NAMED(PB_ERR_IO);
    NAMED(PB_ERR_ABI);
    NAMED(PB_ERR_EXISTS);
    NAMED(PB_ERR_INTERNAL);
#undef NAMED
}

TEST(other_numbers_are_unknown_statuses) {
    const pb_status others[] = {3, -16, 77, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        CHECK_STR("PB_UNKNOWN_STATUS", pb_status_name(others[i]));
}

static pb_error_info last_info(void) {
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_OK(pb_last_error_info(&info));
    return info;
}

static void *look_at_a_thread_without_errors(void *unused) {
    CHECK_STR("", pb_last_error());
    const pb_error_info info = last_info();
    CHECK_INT(PB_OK, info.status);
    CHECK_INT(0, info.task_code);
    CHECK(info.task_index == SIZE_MAX);
    CHECK_INT(-1, info.exit_code);
    CHECK_INT(0, info.signal);
    CHECK_INT(0, info.attempts);
    return unused;
}

TEST(a_thread_on_which_nothing_failed_has_no_error) {
    on_another_thread(look_at_a_thread_without_errors, NULL);
}

static void *fail_in_another_way(void *unused) {
    pb_scope scope;
    CHECK_STATUS(pb_push_backend("no-such-backend", 1, 0, NULL, &scope), PB_ERR_UNKNOWN_BACKEND);
    CHECK_TEXT("no-such-backend");
    CHECK_INT(PB_ERR_UNKNOWN_BACKEND, last_info().status);
    return unused;
}

TEST(each_thread_has_its_own_last_error) {
    CHECK_STATUS(pb_pop_backend(0), PB_ERR_SCOPE);
    on_another_thread(look_at_a_thread_without_errors, NULL);
    on_another_thread(fail_in_another_way, NULL);
    CHECK_TEXT("0 is never a scope");
    CHECK_INT(PB_ERR_SCOPE, last_info().status);
    CHECK(last_info().task_index == SIZE_MAX);
}

static int32_t succeed(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

TEST(calls_that_succeed_leave_the_last_error_as_it_is) {
    CHECK_STATUS(pb_pop_backend(0), PB_ERR_SCOPE);
    const char *text = pb_last_error();
    const pb_scope scope = open_scope("sequential", 1);
    CHECK_OK(map_on(0, succeed, NULL, 4));
    close_scope(scope);
    CHECK(pb_cpu_count(0) >= 1);
    CHECK(pb_last_error() == text);
    CHECK_TEXT("0 is never a scope");
    CHECK_INT(PB_ERR_SCOPE, last_info().status);
}

TEST(a_call_that_fails_writes_no_output) {
    pb_scope scope = 42;
    CHECK_STATUS(pb_push_backend("no-such-backend", 1, 0, NULL, &scope), PB_ERR_UNKNOWN_BACKEND);
    CHECK_INT(42, scope);
    CHECK_STATUS(pb_context_attach(NULL, &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_INT(42, scope);
}

/* Item 3 of a map fails with 17. */
static int32_t fail_at_three(void *text, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    if (index != 3)
        return 0;
    if (text != NULL)
        CHECK_OK(pb_task_fail(text));
    return 17;
}

TEST(the_error_of_a_map_tells_which_item_failed_and_how) {
    for (int32_t n_jobs = 1; n_jobs <= 2; n_jobs++) {
        CHECK_STATUS(map_on(n_jobs, fail_at_three, NULL, 6), PB_ERR_TASK_FAILED);
        CHECK_TEXT("item 3");
        CHECK_TEXT("17");
        const pb_error_info info = last_info();
        CHECK_INT(sizeof info, info.struct_size);
        CHECK_INT(PB_ERR_TASK_FAILED, info.status);
        CHECK_INT(17, info.task_code);
        CHECK_INT(3, info.task_index);
        CHECK_INT(-1, info.exit_code);
        CHECK_INT(0, info.signal);
        CHECK_INT(1, info.attempts);
        CHECK_INT(0, info.reserved);
    }
}

TEST(a_task_adds_a_text_to_its_failure) {
    char text[] = "the matrix is singular";
    CHECK_STATUS(map_on(2, fail_at_three, text, 6), PB_ERR_TASK_FAILED);
    CHECK_TEXT("item 3");
    CHECK_TEXT("the matrix is singular");
}

/* Item 0 speaks of a failure that it does not return. */
static int32_t change_its_mind(void *ctx, size_t index, const void *input, void *output) {
    if (index == 0)
        CHECK_OK(pb_task_fail("never mind"));
    return fail_at_three(ctx, index, input, output);
}

TEST(the_text_of_an_item_that_succeeded_after_all_is_dropped) {
    CHECK_STATUS(map_on(1, change_its_mind, NULL, 6), PB_ERR_TASK_FAILED);
    CHECK(strstr(pb_last_error(), "never mind") == NULL);
}

static int32_t fail_without_a_text(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    CHECK_STATUS(pb_task_fail(NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("message");
    return 5;
}

TEST(a_text_for_a_failure_needs_a_task_and_a_text) {
    CHECK_STATUS(pb_task_fail("not in a task"), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("pb_task_fail");
    CHECK_STATUS(map_on(1, fail_without_a_text, NULL, 1), PB_ERR_TASK_FAILED);
    CHECK_INT(5, last_info().task_code);
}

TEST(an_error_info_that_is_too_small_is_refused_and_left_alone) {
    const size_t sizes[] = {0, 1, sizeof(size_t), sizeof(pb_error_info) - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pb_error_info info;
        memset(&info, 0x5a, sizeof info);
        info.struct_size = sizes[i];
        const pb_error_info before = info;
        CHECK_STATUS(pb_last_error_info(&info), PB_ERR_ABI);
        CHECK_TEXT("struct_size of pb_error_info");
        CHECK(memcmp(&info, &before, sizeof info) == 0);
    }
}

/* A program that was compiled with a later header. */
struct later_info {
    pb_error_info known;
    unsigned char added[16];
};

TEST(a_larger_error_info_is_filled_as_far_as_it_is_known) {
    CHECK_STATUS(pb_pop_backend(0), PB_ERR_SCOPE);
    struct later_info info;
    memset(&info, 0x5a, sizeof info);
    info.known.struct_size = sizeof info;
    CHECK_OK(pb_last_error_info(&info.known));
    CHECK_INT(sizeof info, info.known.struct_size);
    CHECK_INT(PB_ERR_SCOPE, info.known.status);
    for (size_t i = 0; i < sizeof info.added; i++)
        CHECK_INT(0x5a, info.added[i]);
}

TEST(an_error_info_must_be_given) {
    CHECK_STATUS(pb_last_error_info(NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("NULL");
}

TEST(options_that_are_too_small_are_refused) {
    pb_map_options options = {.struct_size = sizeof options - 1};
    CHECK_STATUS(pb_parallel_map(succeed, NULL, 1, NULL, 0, NULL, 0, &options), PB_ERR_ABI);
    CHECK_TEXT("struct_size of pb_map_options");
    options.struct_size = 0;
    CHECK_STATUS(pb_parallel_map(succeed, NULL, 1, NULL, 0, NULL, 0, &options), PB_ERR_ABI);
}

struct later_options {
    pb_map_options known;
    int64_t added;
};

/* What this library does not know it must not drop silently. */
TEST(larger_options_are_taken_unless_they_ask_for_something_unknown) {
    struct later_options options = {.known = {.struct_size = sizeof options}};
    CHECK_OK(pb_parallel_map(succeed, NULL, 1, NULL, 0, NULL, 0, &options.known));
    options.added = 1;
    CHECK_STATUS(pb_parallel_map(succeed, NULL, 1, NULL, 0, NULL, 0, &options.known), PB_ERR_UNSUPPORTED);
    CHECK_TEXT("pb_map_options");
}

int main(void) {
    forget_environment();
    RUN(the_library_has_the_version_of_its_header);
    RUN(every_status_has_the_name_of_its_constant);
    RUN(other_numbers_are_unknown_statuses);
    RUN(a_thread_on_which_nothing_failed_has_no_error);
    RUN(each_thread_has_its_own_last_error);
    RUN(calls_that_succeed_leave_the_last_error_as_it_is);
    RUN(a_call_that_fails_writes_no_output);
    RUN(the_error_of_a_map_tells_which_item_failed_and_how);
    RUN(a_task_adds_a_text_to_its_failure);
    RUN(the_text_of_an_item_that_succeeded_after_all_is_dropped);
    RUN(a_text_for_a_failure_needs_a_task_and_a_text);
    RUN(an_error_info_that_is_too_small_is_refused_and_left_alone);
    RUN(a_larger_error_info_is_filled_as_far_as_it_is_known);
    RUN(an_error_info_must_be_given);
    RUN(options_that_are_too_small_are_refused);
    RUN(larger_options_are_taken_unless_they_ask_for_something_unknown);
    CHECK_OK(pb_shutdown());
    return check_result();
}
