/* Maps that a task makes one after the other: what the first has chosen serves the next, and nobody can tell.
 */
#include "meet.h"
#include "sync.h"

#include <fenv.h>

enum { ITEMS = 12, MAPS = 10 };

typedef struct seen {
    int32_t ran, level, fails; /* `fails`: the index of the item that fails, plus 1 */
    int rounding;
} seen;

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    seen *s = ctx;
    (void)input, (void)output;
    __atomic_fetch_add(&s->ran, 1, __ATOMIC_RELAXED);
    s->level = pb_nesting_level();
    s->rounding = fegetround();
    return s->fails == (int32_t)index + 1 ? 7 : 0;
}

/* A map of `n` items whose last one has seen `level`, and that rounding. */
static void map_and_look(size_t n, int32_t level, int rounding) {
    seen s = {0, -1, 0, -1};
    CHECK_OK(pb_parallel_map(look, &s, n, NULL, 0, NULL, 0, NULL));
    CHECK_INT(n, s.ran);
    CHECK_INT(level, s.level);
    CHECK_INT(rounding, s.rounding);
}

/* Runs `task` as each item of maps on threads that stay from one to the next, so that they come with what the
 * maps before left, if that is anything. */
static void in_tasks(pb_task_fn task) {
    for (int i = times(20, 3); i > 0; i--)
        CHECK_OK(map_on(2, task, NULL, ITEMS));
}

static int32_t of_any_length(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    for (size_t i = 0; i < MAPS; i++)
        map_and_look((index + i) % 5 + 1, pb_nesting_level(), FE_TONEAREST);
    return 0;
}

TEST(each_has_its_own_items_and_ctx) { in_tasks(of_any_length); }

static int32_t between_scopes(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    const int32_t level = pb_nesting_level();
    for (int i = 0; i < MAPS; i++) {
        map_and_look(3, level, FE_TONEAREST);
        const pb_scope scope = open_scope("threading", 2);
        map_and_look(3, level + 1, FE_TONEAREST);
        close_scope(scope);
        map_and_look(3, level, FE_TONEAREST);
    }
    return 0;
}

TEST(a_scope_that_is_opened_between_two_counts_until_it_is_closed) { in_tasks(between_scopes); }

/* One of two items, so that nobody else is at the barrier. */
static int32_t meet_in_between(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    for (int i = 0; index == 0 && i < MAPS; i++) {
        map_and_look(2, pb_nesting_level(), FE_TONEAREST);
        map_with_two_threads();
    }
    return 0;
}

TEST(one_that_asks_for_more_workers_has_them) {
    CHECK_INT(0, pthread_barrier_init(&both, NULL, 2));
    CHECK_OK(map_on(2, meet_in_between, NULL, 2));
    CHECK_INT(0, pthread_barrier_destroy(&both));
}

static int32_t rounding(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    const int modes[] = {FE_UPWARD, FE_TONEAREST, FE_TOWARDZERO};
    for (size_t i = 0; i < MAPS; i++) {
        CHECK_INT(0, fesetround(modes[i % 3]));
        map_and_look(2, pb_nesting_level(), modes[i % 3]);
    }
    CHECK_INT(0, fesetround(FE_TONEAREST));
    return 0;
}

TEST(rounding_that_changes_is_noticed) { in_tasks(rounding); }

static int32_t failing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    for (int32_t i = 0; i < MAPS; i++) {
        seen s = {.fails = i % 3 + 1};
        CHECK_STATUS(pb_parallel_map(look, &s, 3, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
        pb_error_info info = {.struct_size = sizeof info};
        CHECK_OK(pb_last_error_info(&info));
        CHECK_INT(i % 3, info.task_index);
        CHECK_INT(i % 3 + 1, s.ran);
        map_and_look(3, pb_nesting_level(), FE_TONEAREST);
    }
    return 0;
}

TEST(a_failure_is_that_maps_own) { in_tasks(failing); }

/* A map before the cancel, and one after it. */
static int32_t before_and_after(void *begun, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    seen s = {0, 0, 0, 0};
    CHECK_OK(pb_parallel_map(look, &s, 2, NULL, 0, NULL, 0, NULL));
    __atomic_fetch_add((int32_t *)begun, 1, __ATOMIC_RELAXED);
    CHECK(wait_cancelled());
    CHECK_STATUS(pb_parallel_map(look, &s, 2, NULL, 0, NULL, 0, NULL), PB_ERR_CANCELLED);
    CHECK_INT(2, s.ran);
    return 0;
}

TEST(they_end_with_the_map_around_them) {
    for (int i = times(20, 3); i > 0; i--) {
        int32_t begun = 0;
        cancel_once_begun(before_and_after, &begun, &begun);
        CHECK_INT(1, begun);
    }
}

/* Inside a map of a map of the task there are tasks again. */
static int32_t deeper(void *depth, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    const int left = *(const int *)depth - 1;
    for (int i = 0; i < 3; i++) {
        map_and_look(2, pb_nesting_level(), FE_TONEAREST);
        if (left > 0)
            CHECK_OK(pb_parallel_map(deeper, (void *)&left, 2, NULL, 0, NULL, 0, NULL));
    }
    return 0;
}

TEST(they_nest) {
    int depth = 4;
    CHECK_OK(map_on(2, deeper, &depth, ITEMS));
}

int main(void) {
    forget_environment();
    RUN(each_has_its_own_items_and_ctx);
    RUN(a_scope_that_is_opened_between_two_counts_until_it_is_closed);
    RUN(one_that_asks_for_more_workers_has_them);
    RUN(rounding_that_changes_is_noticed);
    RUN(a_failure_is_that_maps_own);
    RUN(they_end_with_the_map_around_them);
    RUN(they_nest);
    return check_result();
}
