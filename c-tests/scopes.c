/* The end of a scope: by its token, on its thread, innermost first. A wrong pop changes nothing and says why.
 */
#include "scopes.h"

/* `scope` cannot be popped now, for the reason that `text` gives, and the backend stays in force. */
static void check_not_popped(pb_scope scope, const char *text) {
    char before[32];
    snprintf(before, sizeof before, "%s", pb_current_backend());
    CHECK_STATUS(pb_pop_backend(scope), PB_ERR_SCOPE);
    CHECK_TEXT(text);
    CHECK_STR(before, pb_current_backend());
}

TEST(zero_is_no_scope) { check_not_popped(0, "0 is never a scope"); }

TEST(scopes_end_innermost_first) {
    const pb_scope outer = open_scope("sequential", 1);
    const pb_scope middle = open_scope("threading", 3);
    const pb_scope inner = open_scope("sequential", 2);
    CHECK(outer != 0 && middle != 0 && inner != 0);
    CHECK(outer != middle && middle != inner && inner != outer);
    check_not_popped(outer, "out of order: 2 inner");
    check_not_popped(middle, "out of order: 1 inner");
    close_scope(inner);
    CHECK_INT(3, pb_effective_n_jobs(0));
    close_scope(middle);
    CHECK_STR("sequential", pb_current_backend());
    close_scope(outer);
    CHECK_STR("threading", pb_current_backend());
}

TEST(a_scope_ends_once) {
    const pb_scope outer = open_scope("sequential", 1);
    const pb_scope inner = open_scope("threading", 3);
    close_scope(inner);
    check_not_popped(inner, "popped already");
    close_scope(outer);
    check_not_popped(outer, "popped already");
    check_not_popped(inner, "popped already");
}

TEST(a_number_that_is_no_token_ends_nothing) {
    const pb_scope scope = open_scope("sequential", 1);
    check_not_popped(scope + 1, "not open");
    check_not_popped(UINT64_MAX, "on another thread");
    close_scope(scope);
}

static void *pop_here(void *scope) {
    const pb_scope own = open_scope("sequential", 1);
    check_not_popped(*(pb_scope *)scope, "on another thread");
    close_scope(own);
    return NULL;
}

TEST(a_scope_ends_on_its_own_thread_only) {
    pb_scope scope = open_scope("threading", 3);
    on_another_thread(pop_here, &scope);
    CHECK_INT(3, pb_effective_n_jobs(0));
    close_scope(scope);
}

static void *push_and_leave(void *scope) {
    *(pb_scope *)scope = open_scope("sequential", 1);
    return NULL;
}

TEST(a_thread_that_ends_takes_its_scopes_along) {
    pb_scope scope = 0;
    on_another_thread(push_and_leave, &scope);
    check_not_popped(scope, "on another thread");
}

TEST(scopes_of_backends_and_of_thread_limits_are_told_apart) {
    pb_scope limit = 0;
    const pb_scope outer = open_scope("sequential", 1);
    CHECK_OK(pb_push_thread_limit(1, PB_API_ALL, &limit));
    const pb_scope inner = open_scope("threading", 3);
    check_not_popped(limit, "pb_push_backend did not make it");
    CHECK_STATUS(pb_pop_thread_limit(inner), PB_ERR_SCOPE);
    CHECK_INT(3, pb_effective_n_jobs(0));
    /* Two stacks: the one's order does not bind the other's. */
    close_scope(inner);
    close_scope(outer);
    CHECK_OK(pb_pop_thread_limit(limit));
}

/* Runs on the caller's thread for the sequential backend, and perhaps on a worker's for the other. */
static int32_t pop_the_callers_scope(void *scope, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    check_not_popped(*(pb_scope *)scope, "this scope was");
    const pb_scope own = open_scope("sequential", 1);
    check_not_popped(*(pb_scope *)scope, "this scope was");
    close_scope(own);
    return 0;
}

TEST(a_task_cannot_end_a_scope_of_its_caller) {
    const char *const backends[] = {"sequential", "threading"};
    for (int i = 0; i < 2; i++) {
        pb_scope scope = open_scope(backends[i], 2);
        CHECK_OK(map_on(0, pop_the_callers_scope, &scope, 8));
        CHECK_STR(backends[i], pb_current_backend());
        close_scope(scope);
    }
}

static int32_t say_why_not(void *scope, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    check_not_popped(*(pb_scope *)scope, "outside the task");
    return 0;
}

TEST(the_text_tells_a_task_why_it_cannot) {
    pb_scope scope = open_scope("threading", 2);
    CHECK_OK(map_on(1, say_why_not, &scope, 1));
    close_scope(scope);
}

static pb_scope left_open;

static int32_t leave_scopes_open(void *two_workers, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    if (two_workers != NULL)
        pthread_barrier_wait(two_workers);
    open_scope("sequential", 1);
    const pb_scope scope = open_scope(NULL, 5);
    if (two_workers == NULL)
        left_open = scope;
    return 0;
}

static int32_t find_no_scope(void *two_workers, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    pthread_barrier_wait(two_workers);
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(pb_effective_n_jobs(-1), pb_effective_n_jobs(0));
    return 0;
}

TEST(scopes_that_a_task_leaves_open_end_with_its_map) {
    const pb_scope scope = open_scope("threading", 3);
    CHECK_OK(map_on(1, leave_scopes_open, NULL, 1));
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(3, pb_effective_n_jobs(0));
    check_not_popped(left_open, "popped already");
    close_scope(scope);
}

static int32_t look_then_leave_open(void *limit_scopes, size_t index, const void *input, void *output) {
    (void)limit_scopes, (void)index, (void)input, (void)output;
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(2, pb_effective_n_jobs(0));
    pb_scope limit;
    open_scope("sequential", 1);
    CHECK_OK(pb_push_thread_limit(1, PB_API_ALL, &limit));
    return 0;
}

TEST(the_next_item_of_a_worker_finds_no_scope_that_an_earlier_one_left) {
    const pb_scope scope = open_scope("threading", 2);
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 1};
    CHECK_OK(pb_parallel_map(look_then_leave_open, NULL, 5, NULL, 0, NULL, 0, &options));
    options.batch_size = 5;
    CHECK_OK(pb_parallel_map(look_then_leave_open, NULL, 5, NULL, 0, NULL, 0, &options));
    close_scope(scope);
}

TEST(the_next_map_of_a_worker_finds_no_scope_that_an_earlier_one_left) {
    pthread_barrier_t two_workers;
    CHECK_INT(0, pthread_barrier_init(&two_workers, NULL, 2));
    for (int i = 0; i < 10; i++) {
        CHECK_OK(map_on(2, leave_scopes_open, &two_workers, 2));
        CHECK_OK(map_on(2, find_no_scope, &two_workers, 2));
    }
    pthread_barrier_destroy(&two_workers);
}

int main(void) {
    forget_environment();
    RUN(zero_is_no_scope);
    RUN(scopes_end_innermost_first);
    RUN(a_scope_ends_once);
    RUN(a_number_that_is_no_token_ends_nothing);
    RUN(a_scope_ends_on_its_own_thread_only);
    RUN(a_thread_that_ends_takes_its_scopes_along);
    RUN(scopes_of_backends_and_of_thread_limits_are_told_apart);
    RUN(a_task_cannot_end_a_scope_of_its_caller);
    RUN(the_text_tells_a_task_why_it_cannot);
    RUN(scopes_that_a_task_leaves_open_end_with_its_map);
    RUN(the_next_item_of_a_worker_finds_no_scope_that_an_earlier_one_left);
    RUN(the_next_map_of_a_worker_finds_no_scope_that_an_earlier_one_left);
    CHECK_OK(pb_shutdown());
    return check_result();
}
