/* pb_push_thread_limit and pb_pop_thread_limit on real libraries: threadpoolctl's tests of them, and scopes
 * of two threads that overlap. */
#include "native_library.h"

static void check_count(int expected) {
    CHECK_INT(count_of(expected), library.get());
    CHECK_INT(count_of(expected), library.used());
    CHECK_INT(count_of(expected), listed_count());
}

static pb_scope push(int limit, uint32_t user_api) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_thread_limit(limit, user_api, &scope));
    return scope;
}

static void pop(pb_scope scope) { CHECK_OK(pb_pop_thread_limit(scope)); }

/* threadpoolctl: test_controller_info_actualized, test_openmp_limit_num_threads[1, 2, 4] */
TEST(a_limit_holds_until_it_is_popped) {
    const int limits[] = {1, 2, 4};
    for (int i = 0; i < 3; i++) {
        pb_scope scope = push(limits[i], PB_API_ALL);
        check_count(limits[i]);
        pop(scope);
        check_count(ORIGINAL);
    }
}

/* threadpoolctl: test_threadpool_limits_by_prefix, test_set_threadpool_limits_by_api. Limits are by API here,
 * not by file name. */
TEST(only_the_libraries_of_the_named_api_are_limited) {
    int is_blas = strcmp(library.user_api, "blas") == 0;
    /* OpenBLAS on OpenMP has no other count than its runtime's. */
    int follows_openmp = !is_blas || strcmp(library.layer, "openmp") == 0;
    for (int limit = 1; limit < ORIGINAL; limit++) {
        pb_scope scope = push(limit, PB_API_BLAS);
        check_count(is_blas ? limit : ORIGINAL);
        pop(scope);
        scope = push(limit, PB_API_OPENMP);
        check_count(follows_openmp ? limit : ORIGINAL);
        pop(scope);
        scope = push(limit, PB_API_TBB);
        check_count(ORIGINAL);
        pop(scope);
        scope = push(limit, PB_API_BLAS | PB_API_OPENMP);
        check_count(limit);
        pop(scope);
        check_count(ORIGINAL);
    }
}

/* threadpoolctl: test_nested_limits */
TEST(of_nested_limits_the_innermost_holds) {
    pb_scope outer = push(1, PB_API_ALL);
    check_count(1);
    pb_scope inner = push(2, PB_API_ALL);
    check_count(2);
    pop(inner);
    check_count(1);
    pop(outer);
    check_count(ORIGINAL);
}

/* threadpoolctl: test_threadpool_limits_manual_restore. A token restores once, and in its turn. */
TEST(a_limit_is_undone_once_and_in_its_turn) {
    pb_scope outer = push(1, PB_API_ALL);
    pb_scope inner = push(2, PB_API_ALL);
    CHECK_STATUS(pb_pop_thread_limit(outer), PB_ERR_SCOPE);
    check_count(2);
    pop(inner);
    CHECK_STATUS(pb_pop_thread_limit(inner), PB_ERR_SCOPE);
    check_count(1);
    pop(outer);
    CHECK_STATUS(pb_pop_thread_limit(outer), PB_ERR_SCOPE);
    check_count(ORIGINAL);
}

/* threadpoolctl: test_threadpool_limits_bad_input; test_set_threadpool_limits_no_limit, where "no limit" is
 * no call here */
TEST(a_limit_that_makes_no_sense_is_an_error_and_changes_nothing) {
    pb_scope scope = 7;
    CHECK_STATUS(pb_push_thread_limit(0, PB_API_ALL, &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_push_thread_limit(-1, PB_API_ALL, &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_push_thread_limit(1, 0x8, &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_push_thread_limit(1, PB_API_BLAS | 0x80000000u, &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_push_thread_limit(1, PB_API_ALL, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_pop_thread_limit(0), PB_ERR_SCOPE);
    CHECK_INT(7, scope);
    check_count(ORIGINAL);
}

/* threadpoolctl: test_threadpool_limits_function_with_side_effect. The user's own call holds inside the
 * scope; the process's count stays as he has set it, a thread's count goes back with the scope. */
TEST(the_users_own_call_inside_a_limit) {
    pb_scope scope = push(1, PB_API_ALL);
    library.set(2);
    check_count(2);
    pop(scope);
    check_count(count_is_per_thread() ? ORIGINAL : 2);
    library.set(ORIGINAL);
}

/* threadpoolctl: test_threadpool_controller_as_decorator */
static void limited_to_two(void (*body)(void)) {
    pb_scope scope = push(2, PB_API_ALL);
    body();
    check_count(2);
    pop(scope);
}

static void inside(void) {
    pb_scope scope = push(1, PB_API_ALL);
    check_count(1);
    pop(scope);
}

TEST(functions_that_limit_may_call_each_other) {
    limited_to_two(inside);
    check_count(ORIGINAL);
}

TEST(many_limits_in_a_row_leave_no_trace) {
    int rounds = under_valgrind() ? 1000 : 100000;
    for (int i = 0; i < rounds; i++) {
        pb_scope scope = 0;
        REQUIRE(pb_push_thread_limit(1 + i % 4, PB_API_ALL, &scope) == PB_OK);
        REQUIRE(pb_pop_thread_limit(scope) == PB_OK);
    }
    check_count(ORIGINAL);
}

/* ---- limits of two threads ------------------------------------------------------------------------- */

/* The other thread does one step at a time, so that every order of events can be played. */
struct other {
    pthread_t thread;
    pthread_barrier_t step;
    int limit;
    int limited, popped; /* what it reads after each step */
};

static void *live(void *argument) {
    struct other *other = argument;
    library.set(ORIGINAL);
    pthread_barrier_wait(&other->step);
    pb_scope scope = push(other->limit, PB_API_ALL);
    pthread_barrier_wait(&other->step);
    pthread_barrier_wait(&other->step);
    other->limited = library.get();
    pop(scope);
    other->popped = library.get();
    pthread_barrier_wait(&other->step);
    return NULL;
}

static void other_start(struct other *other, int limit) {
    other->limit = limit;
    REQUIRE(pthread_barrier_init(&other->step, NULL, 2) == 0);
    REQUIRE(pthread_create(&other->thread, NULL, live, other) == 0);
    pthread_barrier_wait(&other->step);
}

static void other_push(struct other *other) { pthread_barrier_wait(&other->step); }

static void other_pop(struct other *other) {
    pthread_barrier_wait(&other->step);
    pthread_barrier_wait(&other->step);
    pthread_join(other->thread, NULL);
    pthread_barrier_destroy(&other->step);
}

/* What a thread whose own limit is `own` (0: none) has while another one's is `others`. */
static int together(int own, int others) {
    if (count_is_per_thread() || others == 0)
        return own != 0 ? own : ORIGINAL;
    return own != 0 ? least(own, others) : others;
}

static void overlap(int mine, int theirs, int i_enter_first, int i_leave_first) {
    struct other other = {.limit = 0};
    pb_scope scope = 0;
    other_start(&other, theirs);
    if (i_enter_first)
        scope = push(mine, PB_API_ALL);
    other_push(&other);
    check_count(together(i_enter_first ? mine : 0, theirs));
    if (!i_enter_first)
        scope = push(mine, PB_API_ALL);
    check_count(together(mine, theirs));
    if (i_leave_first) {
        pop(scope);
        check_count(together(0, theirs));
    }
    other_pop(&other);
    CHECK_INT(count_of(together(theirs, i_leave_first ? 0 : mine)), other.limited);
    CHECK_INT(count_of(together(0, i_leave_first ? 0 : mine)), other.popped);
    if (!i_leave_first) {
        check_count(together(mine, 0));
        pop(scope);
    }
    check_count(ORIGINAL);
}

/* threadpoolctl issues 176 and 205: scopes that save and restore by themselves leave the wrong count behind.
 */
TEST(limits_of_two_threads_may_overlap_in_every_order) {
    const int limits[][2] = {{1, 2}, {2, 1}, {4, 2}, {2, 4}, {2, 2}};
    for (int i = 0; i < 5; i++)
        for (int order = 0; order < 4; order++)
            overlap(limits[i][0], limits[i][1], order & 1, order & 2);
}

static void *end_inside(void *limit) {
    push(*(int *)limit, PB_API_ALL);
    return NULL;
}

TEST(a_thread_that_ends_inside_a_limit_takes_it_along) {
    pthread_t thread;
    int limit = 1;
    REQUIRE(pthread_create(&thread, NULL, end_inside, &limit) == 0);
    pthread_join(thread, NULL);
    check_count(ORIGINAL);
}

/* ---- limits and maps ------------------------------------------------------------------------------- */

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int *)output = library.get();
    return 0;
}

static int32_t limit_and_forget(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    push(2, PB_API_ALL);
    *(int *)output = library.get();
    return 0;
}

static void check_in_map(pb_task_fn task, int expected) {
    int seen = 0;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    CHECK_OK(pb_parallel_map(task, NULL, 1, NULL, 0, &seen, sizeof seen, &options));
    CHECK_INT(count_of(expected), seen);
}

TEST(a_map_inside_a_limit_keeps_below_both) {
    pb_scope scope = push(1, PB_API_ALL);
    check_in_map(look, 1);
    pop(scope);
    scope = push(4, PB_API_ALL);
    check_in_map(look, pb_cpu_count(0)); /* the share of a map's only task */
    check_count(4);
    pop(scope);
    check_count(ORIGINAL);
}

TEST(a_limit_that_a_task_leaves_open_ends_with_the_task) {
    pb_scope inner = 0;
    CHECK_OK(pb_push_backend(NULL, 0, 4, NULL, &inner));
    check_in_map(limit_and_forget, 2);
    check_count(ORIGINAL);
    check_in_map(look, 4);
    CHECK_OK(pb_pop_backend(inner));
}

int main(int argc, char **argv) {
    library_start(argc, argv);
    RUN(a_limit_holds_until_it_is_popped);
    RUN(only_the_libraries_of_the_named_api_are_limited);
    RUN(of_nested_limits_the_innermost_holds);
    RUN(a_limit_is_undone_once_and_in_its_turn);
    RUN(a_limit_that_makes_no_sense_is_an_error_and_changes_nothing);
    RUN(the_users_own_call_inside_a_limit);
    RUN(functions_that_limit_may_call_each_other);
    RUN(many_limits_in_a_row_leave_no_trace);
    RUN(limits_of_two_threads_may_overlap_in_every_order);
    RUN(a_thread_that_ends_inside_a_limit_takes_it_along);
    RUN(a_map_inside_a_limit_keeps_below_both);
    RUN(a_limit_that_a_task_leaves_open_ends_with_the_task);
    CHECK_OK(pb_shutdown());
    return check_result();
}
