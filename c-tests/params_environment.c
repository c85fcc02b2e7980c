/* PB_PIN, PB_SPIN_US and PB_STACK_SIZE: for maps whose scope says nothing else. params_environment.cmake sets
 * them. */
#include "pinned.h"
#include "stack.h"

TEST(the_environment_pins_and_a_scope_may_say_no) {
    check_pinned(2);
    const pb_scope scope = use_params(2, "pin=none");
    check_free(2);
    CHECK_OK(pb_pop_backend(scope));
    check_pinned(2);
}

TEST(workers_of_a_map_inside_a_pinned_task_are_free) { check_nested(); }

TEST(the_environments_stack_is_large_enough) { check_deep_recursion(2); }

TEST(what_the_environment_says_is_read_once) {
    CHECK_INT(0, setenv("PB_PIN", "nonsense", 1));
    CHECK_OK(pb_shutdown());
    check_pinned(2);
}

int main(void) {
    caller = pthread_self();
    CHECK_OK(pb_set_default_backend("threading", 2, 0, NULL));
    RUN(the_environment_pins_and_a_scope_may_say_no);
    RUN(workers_of_a_map_inside_a_pinned_task_are_free);
    RUN(the_environments_stack_is_large_enough);
    RUN(what_the_environment_says_is_read_once);
    CHECK_OK(pb_shutdown());
    return check_result();
}
