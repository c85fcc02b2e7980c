/* pb_join when things go wrong: failures and cancellation. */
#include "places.h"
#include "scopes.h"
#include "sync.h"

/* A branch that only counts itself. */
static int32_t leaf(void *ctx) {
    __atomic_fetch_add((int32_t *)ctx, 1, __ATOMIC_RELAXED);
    return 0;
}

/* ---- failures ---- */

static int32_t succeed(void *ran) { return leaf(ran); }

static int32_t fail_with_7(void *ran) {
    leaf(ran);
    CHECK_OK(pb_task_fail("seven"));
    return 7;
}

static int32_t fail_with_8(void *ran) {
    leaf(ran);
    return 8;
}

TEST(a_failed_branch_is_the_error_of_the_join_and_both_run) {
    ON_EACH_PLACE(p) {
        const pb_scope scope = open_scope(p->backend, p->n_jobs);
        int32_t ran = 0;
        CHECK_STATUS(pb_join(fail_with_7, &ran, succeed, &ran), PB_ERR_TASK_FAILED);
        CHECK_STR("branch a failed with code 7: seven", pb_last_error());
        CHECK_INT(0, last_info().task_index);
        CHECK_INT(7, last_info().task_code);
        CHECK_STATUS(pb_join(succeed, &ran, fail_with_8, &ran), PB_ERR_TASK_FAILED);
        CHECK_STR("branch b failed with code 8", pb_last_error());
        CHECK_INT(1, last_info().task_index);
        CHECK_STATUS(pb_join(fail_with_7, &ran, fail_with_8, &ran), PB_ERR_TASK_FAILED);
        CHECK_STR("branch a failed with code 7: seven", pb_last_error());
        CHECK_INT(6, ran);
        close_scope(scope);
    }
}

typedef struct deep {
    int32_t depth, *ran;
} deep;

static int32_t fail_deep_down(void *ctx) {
    deep *d = ctx, below = {d->depth - 1, d->ran};
    return d->depth == 0 ? fail_with_7(d->ran) : pb_join(succeed, d->ran, fail_deep_down, &below);
}

TEST(a_status_that_is_passed_on_keeps_its_failure) {
    ON_EACH_PLACE(p) {
        const pb_scope scope = open_scope(p->backend, p->n_jobs);
        int32_t ran = 0;
        deep d = {20, &ran};
        CHECK_STATUS(pb_join(succeed, &ran, fail_deep_down, &d), PB_ERR_TASK_FAILED);
        CHECK_STR("branch b failed with code 7: seven", pb_last_error());
        CHECK_INT(22, ran);
        close_scope(scope);
    }
}

static int32_t recover(void *ran) {
    CHECK_STATUS(pb_join(fail_with_7, ran, fail_with_8, ran), PB_ERR_TASK_FAILED);
    CHECK_OK(pb_task_fail("not said in the end"));
    return 0;
}

static int32_t recover_and_return_its_status(void *ran) {
    CHECK_INT(0, pb_join(recover, ran, recover, ran));
    return PB_ERR_TASK_FAILED; /* its own: no join in it has failed */
}

TEST(what_a_branch_recovered_from_is_forgotten) {
    ON_EACH_PLACE(p) {
        const pb_scope scope = open_scope(p->backend, p->n_jobs);
        int32_t ran = 0;
        CHECK_OK(pb_join(recover, &ran, recover, &ran));
        CHECK_STATUS(pb_join(recover_and_return_its_status, &ran, recover, &ran), PB_ERR_TASK_FAILED);
        CHECK_STR("branch a failed with code -5", pb_last_error());
        close_scope(scope);
    }
}

TEST(functions_are_required) {
    int32_t ran = 0;
    CHECK_STATUS(pb_join(NULL, NULL, succeed, &ran), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("fn_a is NULL");
    CHECK_STATUS(pb_join(succeed, &ran, NULL, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("fn_b is NULL");
    CHECK_INT(0, ran);
}

/* ---- cancellation ---- */

static int32_t stop_when_cancelled(void *ctx) {
    leaf(ctx);
    return wait_cancelled() ? 0 : 1;
}

typedef struct cancelled {
    int32_t begun, late;
} cancelled;

static int32_t join_until_cancelled(void *ctx, size_t index, const void *input, void *output) {
    cancelled *c = ctx;
    (void)index, (void)input, (void)output;
    CHECK_OK(pb_join(stop_when_cancelled, &c->begun, stop_when_cancelled, &c->begun));
    CHECK_STATUS(pb_join(leaf, &c->late, leaf, &c->late), PB_ERR_CANCELLED);
    return 0;
}

TEST(branches_see_that_the_map_around_them_is_cancelled) {
    cancelled c = {0, 0};
    const pb_scope scope = open_scope("threading", 2);
    cancel_once_begun(join_until_cancelled, &c, &c.begun);
    close_scope(scope);
    CHECK_INT(2, c.begun);
    CHECK_INT(0, c.late);
}

int main(void) {
    forget_environment();
    RUN(a_failed_branch_is_the_error_of_the_join_and_both_run);
    RUN(a_status_that_is_passed_on_keeps_its_failure);
    RUN(what_a_branch_recovered_from_is_forgotten);
    RUN(functions_are_required);
    RUN(branches_see_that_the_map_around_them_is_cancelled);
    CHECK_OK(pb_shutdown());
    return check_result();
}
