/* The parameters of `threading`: what they may be, and who is pinned by pin=. */
#include "pinned.h"

TEST(a_value_that_makes_no_sense_is_told_with_what_would) {
    pb_scope scope;
    CHECK_STATUS(pb_push_backend("threading", 2, 0, "pin=socket", &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("pin is 'socket': it must be cores, llc, numa or none");
    CHECK_STATUS(pb_push_backend("threading", 2, 0, "spin_us=2000000", &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("from 0 to 1000000");
    CHECK_STATUS(pb_push_backend("threading", 2, 0, "stack_size=1K", &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("from 64K to 64G");
    CHECK_STATUS(pb_push_backend("threading", 2, 0, "affinity=1", &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("it knows: pin, spin_us, stack_size");
    CHECK_STATUS(pb_push_backend("sequential", 1, 0, "spin_us=1", &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("takes no parameters");
}

TEST(workers_are_pinned_where_the_scope_says_so_and_free_elsewhere) {
    check_free(3);
    pb_scope scope = use_params(3, "pin=cores");
    check_pinned(3);
    check_pinned(3);
    CHECK_OK(pb_pop_backend(scope));
    scope = use_params(3, "spin_us=0");
    check_free(3);
    CHECK_OK(pb_pop_backend(scope));
    scope = use_params(2, "pin=cores");
    check_pinned(2);
    CHECK_OK(pb_pop_backend(scope));
    check_free(3);
}

/* A node, or what is behind a cache, may be the whole machine: the caller's mask and its CPU count hold on
 * any. */
TEST(larger_domains_keep_to_the_callers_mask) {
    const char *params[] = {"pin=llc", "pin=numa"};
    for (size_t i = 0; i < 2; i++) {
        const pb_scope scope = use_params(3, params[i]);
        masks_of(3, pb_cpu_count(0));
        CHECK_OK(pb_pop_backend(scope));
    }
}

TEST(a_caller_that_may_use_one_cpu_has_workers_there) {
    const cpu_set_t before = mask_here();
    const int32_t cpus = pb_cpu_count(0);
    check_free(2); /* threads that may run everywhere */
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    CHECK_INT(0, sched_setaffinity(0, sizeof one, &one));
    const pb_scope scope = use_params(2, "pin=cores");
    masks_of(2, cpus); /* none but those of the caller's mask */
    CHECK_OK(pb_pop_backend(scope));
    CHECK_INT(0, sched_setaffinity(0, sizeof before, &before));
    check_free(2);
}

/* joblib users would find their whole program on one core. */
TEST(a_caller_without_a_scope_is_left_alone_too) {
    CHECK_OK(pb_set_default_backend("threading", 2, 0, "pin=cores"));
    check_pinned(2);
    CHECK_OK(pb_set_default_backend(NULL, 0, 0, NULL));
    check_free(2);
}

TEST(workers_of_a_map_inside_a_pinned_task_are_free) {
    const pb_scope scope = use_params(2, "pin=cores");
    check_nested();
    CHECK_OK(pb_pop_backend(scope));
}

int main(void) {
    caller = pthread_self();
    RUN(a_value_that_makes_no_sense_is_told_with_what_would);
    RUN(workers_are_pinned_where_the_scope_says_so_and_free_elsewhere);
    RUN(larger_domains_keep_to_the_callers_mask);
    RUN(a_caller_that_may_use_one_cpu_has_workers_there);
    RUN(a_caller_without_a_scope_is_left_alone_too);
    RUN(workers_of_a_map_inside_a_pinned_task_are_free);
    CHECK_OK(pb_shutdown());
    return check_result();
}
