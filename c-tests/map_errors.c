/* How a map fails: the first error with its item and text, nothing starts after it, and the next call works.
 */
#include "sync.h"

static const char *const BACKENDS[] = {"sequential", "threading"};

typedef struct plan {
    size_t bad;       /* this item fails, with code 7 */
    const char *text; /* what it says, or NULL */
    size_t started;
} plan;

static int32_t follow(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    plan *p = ctx;
    __atomic_fetch_add(&p->started, 1, __ATOMIC_RELAXED);
    if (index != p->bad)
        return 0;
    if (p->text != NULL)
        CHECK_OK(pb_task_fail(p->text));
    return 7;
}

/* joblib: test_parallel.py::test_error_capture */
TEST(the_error_names_the_item_its_code_and_its_text) {
    for (size_t b = 0; b < 2; b++) {
        pb_scope scope = use_backend(BACKENDS[b], 2);
        plan p = {.bad = 42, .text = "row 42 is empty"};
        CHECK_STATUS(pb_parallel_map(follow, &p, 100, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
        CHECK_TEXT("item 42");
        CHECK_TEXT("code 7");
        CHECK_TEXT("row 42 is empty");
        const pb_error_info info = last_info();
        CHECK_INT(PB_ERR_TASK_FAILED, info.status);
        CHECK_INT(42, info.task_index);
        CHECK_INT(7, info.task_code);
        CHECK_INT(-1, info.exit_code);
        CHECK_INT(0, info.signal);
        CHECK_INT(1, info.attempts);
        CHECK_OK(pb_pop_backend(scope));
    }
}

TEST(a_code_without_a_text_is_enough) {
    plan p = {.bad = 3};
    CHECK_STATUS(pb_parallel_map(follow, &p, 10, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
    CHECK_STR("item 3 failed with code 7", pb_last_error());
}

/* joblib: test_parallel.py::test_error_capture, its second half: the pool works after an error, in the same
 * block */
TEST(the_next_map_works) {
    for (size_t b = 0; b < 2; b++) {
        pb_scope scope = use_backend(BACKENDS[b], 2);
        for (int again = 0; again < 3; again++) {
            plan bad = {.bad = 0}, good = {.bad = SIZE_MAX};
            CHECK_STATUS(pb_parallel_map(follow, &bad, 100, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
            CHECK_OK(pb_parallel_map(follow, &good, 100, NULL, 0, NULL, 0, NULL));
            CHECK_INT(100, good.started);
        }
        CHECK_OK(pb_pop_backend(scope));
    }
}

/* joblib: test_parallel.py::test_error_in_task_iterator, items 0, 5 and 19 */
TEST(with_one_worker_no_item_starts_after_the_one_that_failed) {
    const size_t bad[] = {0, 5, 19};
    for (size_t i = 0; i < 3; i++)
        for (size_t batch_size = 0; batch_size <= 30; batch_size += 10) {
            pb_map_options options = {.struct_size = sizeof options, .n_jobs = 1, .batch_size = batch_size};
            plan p = {.bad = bad[i]};
            CHECK_STATUS(pb_parallel_map(follow, &p, 20, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
            CHECK_INT(bad[i] + 1, p.started);
        }
}

/* Item 0 fails once the other worker is in an item; that one waits to be asked to stop. */
typedef struct two {
    counter started;
} two;

static int32_t fail_beside_another(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    two *t = ctx;
    counter_raise(&t->started);
    CHECK(counter_wait(&t->started, 2));
    if (index == 0)
        return 1;
    CHECK(wait_cancelled());
    return 2; /* ends early because it was asked to: no news */
}

/* joblib: test_parallel.py::test_abort_backend: a failing first task and 100 long ones */
TEST(other_workers_are_asked_to_stop_and_take_no_further_item) {
    const size_t batch_sizes[] = {0, 1, 50};
    for (size_t i = 0; i < 3; i++) {
        pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .batch_size = batch_sizes[i]};
        two t = {COUNTER};
        CHECK_STATUS(pb_parallel_map(fail_beside_another, &t, 101, NULL, 0, NULL, 0, &options),
                     PB_ERR_TASK_FAILED);
        CHECK_INT(2, counter_get(&t.started));
        CHECK_INT(0, last_info().task_index);
        CHECK_INT(1, last_info().task_code);
    }
}

static int32_t inner_or_fail(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    two *t = ctx;
    counter_raise(&t->started);
    CHECK(counter_wait(&t->started, 2)); /* both outer tasks run */
    if (index == 0)
        return 1;
    plan inner = {.bad = SIZE_MAX};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    const pb_status status = pb_parallel_map(follow, &inner, 1000, NULL, 0, NULL, 0, &options);
    CHECK(status == PB_OK || status == PB_ERR_CANCELLED);
    return 0;
}

/* joblib: test_parallel.py::test_nested_loop_with_exception_with_loky */
TEST(a_task_fails_while_another_runs_a_nested_map) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    const size_t n = rounds(50);
    for (size_t i = 0; i < n; i++) {
        two t = {COUNTER};
        CHECK_STATUS(pb_parallel_map(inner_or_fail, &t, 2, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
        CHECK_INT(0, last_info().task_index);
    }
}

static int32_t pass_on(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    plan inner = {.bad = 5, .text = "deep down"};
    const pb_status status = pb_parallel_map(follow, &inner, 10, NULL, 0, NULL, 0, NULL);
    CHECK_STATUS(status, PB_ERR_TASK_FAILED);
    CHECK_OK(pb_task_fail(pb_last_error()));
    return status;
}

TEST(a_nested_maps_error_can_be_passed_on_with_its_text) {
    CHECK_STATUS(pb_parallel_map(pass_on, NULL, 1, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
    CHECK_TEXT("item 5 failed with code 7: deep down");
    CHECK_INT(PB_ERR_TASK_FAILED, last_info().task_code);
}

/* Says something first, and calls a nested map whose tasks say and fail too. */
static int32_t say_before_nesting(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    plan inner = {.bad = 0, .text = "inner"};
    CHECK_OK(pb_task_fail("outer"));
    CHECK_STATUS(pb_parallel_map(follow, &inner, 2, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
    return index == 0 ? 3 : 0;
}

TEST(a_nested_map_does_not_disturb_what_the_task_around_it_said) {
    for (int32_t n_jobs = 1; n_jobs <= 2; n_jobs++) {
        pb_map_options options = {.struct_size = sizeof options, .n_jobs = n_jobs};
        CHECK_STATUS(pb_parallel_map(say_before_nesting, NULL, 1, NULL, 0, NULL, 0, &options),
                     PB_ERR_TASK_FAILED);
        CHECK_STR("item 0 failed with code 3: outer", pb_last_error());
    }
}

static int32_t say_then_succeed(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    if (index == 4) {
        CHECK_OK(pb_task_fail("stale"));
        return 0;
    }
    return index == 5 ? 7 : 0;
}

TEST(the_text_of_an_item_that_then_succeeds_is_dropped) {
    for (size_t batch_size = 0; batch_size <= 10; batch_size += 5) {
        pb_map_options options = {.struct_size = sizeof options, .n_jobs = 1, .batch_size = batch_size};
        CHECK_STATUS(pb_parallel_map(say_then_succeed, NULL, 10, NULL, 0, NULL, 0, &options),
                     PB_ERR_TASK_FAILED);
        CHECK_STR("item 5 failed with code 7", pb_last_error());
    }
}

/* Batches {0, 1} and {2, 3} on two workers: item 0 speaks and succeeds, but not before the other worker has
 * gone from item 2 to item 3; then item 1 fails without a word. */
typedef struct beside {
    counter spoken, passed;
} beside;

static int32_t speak_beside_another(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    beside *b = ctx;
    switch (index) {
    case 0:
        CHECK_OK(pb_task_fail("stale"));
        counter_raise(&b->spoken);
        CHECK(counter_wait(&b->passed, 1));
        return 0;
    case 1:
        return 7;
    case 2:
        CHECK(counter_wait(&b->spoken, 1));
        return 0;
    default:
        counter_raise(&b->passed);
        return 0;
    }
}

TEST(it_is_dropped_although_another_worker_went_on_meanwhile) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .batch_size = 2};
    beside b = {COUNTER, COUNTER};
    CHECK_STATUS(pb_parallel_map(speak_beside_another, &b, 4, NULL, 0, NULL, 0, &options),
                 PB_ERR_TASK_FAILED);
    CHECK_STR("item 1 failed with code 7", pb_last_error());
}

static int32_t say_twice(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    char text[] = "second";
    CHECK_OK(pb_task_fail("first"));
    CHECK_STATUS(pb_task_fail(NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_OK(pb_task_fail(text));
    memset(text, 'x', sizeof text - 1); /* it was copied */
    return -1;
}

TEST(the_last_text_counts_and_is_copied) {
    CHECK_STATUS(pb_parallel_map(say_twice, NULL, 1, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
    CHECK_STR("item 0 failed with code -1: second", pb_last_error());
    CHECK_INT(-1, last_info().task_code);
}

TEST(outside_any_task_there_is_nothing_to_fail) {
    CHECK_STATUS(pb_task_fail("text"), PB_ERR_INVALID_ARGUMENT);
}

int main(void) {
    RUN(the_error_names_the_item_its_code_and_its_text);
    RUN(a_code_without_a_text_is_enough);
    RUN(the_next_map_works);
    RUN(with_one_worker_no_item_starts_after_the_one_that_failed);
    RUN(other_workers_are_asked_to_stop_and_take_no_further_item);
    RUN(a_task_fails_while_another_runs_a_nested_map);
    RUN(a_nested_maps_error_can_be_passed_on_with_its_text);
    RUN(a_nested_map_does_not_disturb_what_the_task_around_it_said);
    RUN(the_text_of_an_item_that_then_succeeds_is_dropped);
    RUN(it_is_dropped_although_another_worker_went_on_meanwhile);
    RUN(the_last_text_counts_and_is_copied);
    RUN(outside_any_task_there_is_nothing_to_fail);
    CHECK_OK(pb_shutdown());
    return check_result();
}
