/* The same quick map again and again: its caller repeats it alone. Whatever differs from the map before is
 * noticed at once. */
#include "scopes.h"
#include "sync.h"

#include <fenv.h>
#include <stdatomic.h>

typedef struct trial {
    atomic_size_t ran;
    /* The item that fails, and what it says, or NULL. */
    size_t failing;
    const char *says;
    pb_context *captured;
    int scope, text, capture;
    /* Whether the items look at their level and their rounding. */
    int expects, level, mode;
} trial;

enum { NONE = 99 };

static trial quiet(void) {
    const trial nothing = {.failing = NONE};
    return nothing;
}

static int32_t item(void *ctx, size_t index, const void *input, void *output) {
    trial *t = ctx;
    atomic_fetch_add(&t->ran, 1);
    if (output != NULL)
        *(int *)output = *(const int *)input + 1;
    if (t->expects) {
        CHECK_INT(t->level, pb_nesting_level());
        CHECK_INT(t->mode, fegetround());
    }
    if (t->text)
        CHECK_OK(pb_task_fail("not so bad after all"));
    if (t->capture && index == 0)
        t->captured = pb_context_capture();
    if (t->scope) {
        pb_scope left;
        CHECK_OK(pb_push_backend("sequential", 1, 0, NULL, &left));
    }
    if (index != t->failing)
        return 0;
    if (t->says != NULL)
        CHECK_OK(pb_task_fail(t->says));
    return 5;
}

static pb_status two(trial *t) { return pb_parallel_map(item, t, 2, NULL, 0, NULL, 0, NULL); }

/* So many that the map is surely one that is repeated, whose items do nothing special. */
static void warm_up(trial *t) {
    for (int turn = 0; turn < 50; turn++) {
        t->ran = 0;
        CHECK_OK(two(t));
        CHECK_INT(2, t->ran);
    }
}

TEST(an_item_that_fails_once_is_named_once) {
    const pb_scope scope = open_scope("threading", 2);
    trial t = quiet();
    for (size_t round = 0; round < rounds(200); round++) {
        warm_up(&t);
        t.failing = round % 2;
        t.says = round % 3 == 0 ? NULL : "as was to be shown";
        CHECK_STATUS(two(&t), PB_ERR_TASK_FAILED);
        CHECK_TEXT(t.says != NULL ? t.says : "failed with code 5");
        CHECK_INT(t.failing, last_info().task_index);
        CHECK_INT(5, last_info().task_code);
        t.failing = NONE;
        CHECK_OK(two(&t));
    }
    close_scope(scope);
}

TEST(what_an_item_leaves_behind_is_gone) {
    const pb_scope scope = open_scope("threading", 2);
    trial t = quiet();
    for (size_t round = 0; round < rounds(100); round++) {
        warm_up(&t);
        t.text = t.scope = 1;
        CHECK_OK(two(&t));
        CHECK_STR("threading", pb_current_backend());
        t.text = t.scope = 0;
        t.failing = 1;
        t.says = NULL;
        CHECK_STATUS(two(&t), PB_ERR_TASK_FAILED);
        CHECK(strstr(pb_last_error(), "not so bad") == NULL);
        t.failing = NONE;
    }
    close_scope(scope);
}

TEST(each_map_has_its_own_arrays) {
    const pb_scope scope = open_scope("threading", 2);
    trial t = quiet();
    for (int turn = 0; turn < 1000; turn++) {
        int inputs[2][2] = {{turn, -turn}, {7, turn + 7}}, outputs[2][2] = {{0}};
        const int at = turn / 10 % 2;
        CHECK_OK(pb_parallel_map(item, &t, 2, inputs[at], sizeof(int), outputs[at], sizeof(int), NULL));
        for (int i = 0; i < 2; i++) {
            CHECK_INT(inputs[at][i] + 1, outputs[at][i]);
            CHECK_INT(0, outputs[1 - at][i]);
        }
    }
    close_scope(scope);
}

TEST(options_of_one_map_are_not_those_of_the_next) {
    const pb_scope scope = open_scope("threading", 2);
    trial t = quiet();
    for (int round = 0; round < 50; round++) {
        warm_up(&t);
        int32_t statuses[2] = {-1, -1};
        pb_map_options options = {.struct_size = sizeof options, .statuses = statuses};
        options.flags = PB_COLLECT_ERRORS;
        t.failing = 0;
        CHECK_STATUS(pb_parallel_map(item, &t, 2, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
        CHECK_INT(5, statuses[0]);
        CHECK_INT(0, statuses[1]);
        t.failing = NONE;
        warm_up(&t);
        options.statuses = NULL;
        t.failing = 0;
        t.ran = 0;
        CHECK_STATUS(pb_parallel_map(item, &t, 2, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
        CHECK_INT(2, t.ran);
        t.failing = NONE;
        t.ran = 0;
        CHECK_OK(pb_parallel_map(item, &t, 1, NULL, 0, NULL, 0, NULL));
        CHECK_INT(1, t.ran);
    }
    close_scope(scope);
}

TEST(scopes_and_rounding_that_change_are_noticed) {
    const pb_scope outer = open_scope("threading", 2);
    trial t = quiet();
    for (int round = 0; round < 50; round++) {
        warm_up(&t);
        const pb_scope inner = open_scope("sequential", 1);
        t.expects = 1;
        t.mode = FE_TONEAREST;
        t.level = 0;
        CHECK_OK(two(&t));
        close_scope(inner);
        t.expects = 0;
        warm_up(&t);
        t.expects = 1;
        t.level = 1;
        t.mode = round % 2 ? FE_UPWARD : FE_TOWARDZERO;
        CHECK_INT(0, fesetround(t.mode));
        CHECK_OK(two(&t));
        CHECK_INT(0, fesetround(FE_TONEAREST));
        t.expects = 0;
    }
    close_scope(outer);
}

/* The scope leaves the inner limit to the environment. */
static int32_t broken_environment(void) {
    trial t = quiet();
    warm_up(&t);
    CHECK_INT(0, setenv("PB_INNER_MAX_NUM_THREADS", "many", 1));
    const pb_status status = two(&t);
    CHECK_INT(0, unsetenv("PB_INNER_MAX_NUM_THREADS"));
    CHECK_OK(two(&t));
    return status;
}

TEST(a_variable_that_is_set_is_noticed) {
    const pb_scope scope = open_scope("threading", 2);
    for (int round = 0; round < 50; round++) {
        CHECK_STATUS(broken_environment(), PB_ERR_INVALID_ARGUMENT);
        CHECK_TEXT("PB_INNER_MAX_NUM_THREADS");
    }
    /* Neither a variable that is there already nor the last of the list. */
    CHECK_INT(0, setenv("PB_INNER_MAX_NUM_THREADS", "1", 1));
    CHECK_INT(0, setenv("THE_LAST_OF_THE_LIST", "1", 1));
    for (int round = 0; round < 50; round++) {
        trial t = quiet();
        CHECK_INT(0, setenv("PB_INNER_MAX_NUM_THREADS", "1", 1));
        warm_up(&t);
        CHECK_INT(0, setenv("PB_INNER_MAX_NUM_THREADS", "0", 1));
        CHECK_STATUS(two(&t), PB_ERR_INVALID_ARGUMENT);
    }
    CHECK_INT(0, unsetenv("PB_INNER_MAX_NUM_THREADS"));
    CHECK_INT(0, unsetenv("THE_LAST_OF_THE_LIST"));
    close_scope(scope);
}

TEST(a_context_that_a_task_has_captured_outlives_its_map) {
    const pb_scope scope = open_scope("threading", 2);
    trial t = quiet();
    for (int round = 0; round < 50; round++) {
        warm_up(&t);
        t.capture = 1;
        CHECK_OK(two(&t));
        t.capture = 0;
        /* What becomes of a later map is nothing to one that is over. */
        t.failing = 0;
        CHECK_STATUS(two(&t), PB_ERR_TASK_FAILED);
        t.failing = NONE;
        pb_scope attached;
        CHECK_OK(pb_context_attach(t.captured, &attached));
        CHECK_INT(1, pb_nesting_level());
        CHECK_OK(two(&t));
        close_scope(attached);
        pb_context_free(t.captured);
        t.captured = NULL;
    }
    close_scope(scope);
}

TEST(a_map_whose_ctx_differs_is_another_map) {
    const pb_scope scope = open_scope("threading", 2);
    trial one = quiet(), other = quiet();
    for (int round = 0; round < 50; round++) {
        warm_up(&one);
        other.ran = 0;
        CHECK_OK(two(&other));
        CHECK_INT(2, other.ran);
        CHECK_INT(2, one.ran);
    }
    close_scope(scope);
}

int main(void) {
    forget_environment();
    RUN(an_item_that_fails_once_is_named_once);
    RUN(what_an_item_leaves_behind_is_gone);
    RUN(each_map_has_its_own_arrays);
    RUN(options_of_one_map_are_not_those_of_the_next);
    RUN(scopes_and_rounding_that_change_are_noticed);
    RUN(a_variable_that_is_set_is_noticed);
    RUN(a_context_that_a_task_has_captured_outlives_its_map);
    RUN(a_map_whose_ctx_differs_is_another_map);
    return check_result();
}
