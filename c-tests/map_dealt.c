/* Maps in which each worker has one item, with helpers that are awake: the items are dealt, not claimed. */
#include "meet.h"
#include "scopes.h"
#include "sync.h"

#include <stdatomic.h>

enum { WORKERS = 4 };

static int32_t double_it(void *ctx, size_t index, const void *input, void *output) {
    atomic_fetch_add((atomic_int *)ctx, 1);
    *(size_t *)output = 2 * *(const size_t *)input + index;
    return 0;
}

TEST(each_item_runs_once_and_its_output_is_there) {
    const pb_scope scope = open_scope("threading", WORKERS);
    for (size_t round = 0; round < rounds(4000); round++) {
        const size_t n = 2 + round % (WORKERS - 1);
        size_t inputs[WORKERS], outputs[WORKERS] = {0};
        atomic_int ran = 0;
        for (size_t i = 0; i < n; i++)
            inputs[i] = round + 10 * i;
        CHECK_OK(pb_parallel_map(double_it, &ran, n, inputs, sizeof *inputs, outputs, sizeof *outputs, NULL));
        CHECK_INT(n, ran);
        for (size_t i = 0; i < n; i++)
            CHECK_INT(2 * (round + 10 * i) + i, outputs[i]);
    }
    close_scope(scope);
}

TEST(two_items_have_two_threads) {
    for (size_t round = 0; round < rounds(500); round++)
        map_with_two_threads();
}

/* ---- failures ---- */

static int32_t the_last_fails(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    const size_t last = *(const size_t *)ctx;
    return index == last ? (pb_task_fail("it is the last"), 7) : 0;
}

TEST(an_item_that_fails_is_named) {
    const pb_scope scope = open_scope("threading", WORKERS);
    for (size_t round = 0; round < rounds(500); round++) {
        size_t last = 1 + round % (WORKERS - 1);
        const pb_status status = pb_parallel_map(the_last_fails, &last, last + 1, NULL, 0, NULL, 0, NULL);
        CHECK_INT(PB_ERR_TASK_FAILED, status);
        CHECK_TEXT("it is the last");
        CHECK_INT(last, last_info().task_index);
        CHECK_INT(7, last_info().task_code);
    }
    close_scope(scope);
}

static int32_t one_fails_the_other_is_told(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    pthread_barrier_wait(&both);
    if (index == *(const size_t *)ctx)
        return 3;
    CHECK(wait_cancelled());
    return 0;
}

TEST(an_item_that_runs_is_told_of_the_others_failure) {
    for (size_t round = 0; round < rounds(200); round++) {
        size_t culprit = round % 2;
        CHECK_STATUS(map_on(2, one_fails_the_other_is_told, &culprit, 2), PB_ERR_TASK_FAILED);
        CHECK_INT(culprit, last_info().task_index);
    }
}

/* ---- the same map after a pause ---- */

typedef struct calls {
    atomic_size_t ran;
    size_t failing;
} calls;

static int32_t count_or_fail(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    calls *c = ctx;
    atomic_fetch_add(&c->ran, 1);
    return index == c->failing ? 7 : 0;
}

TEST(the_same_map_after_a_pause_runs_whole_and_tells_of_its_own_failures) {
    const pb_scope scope = open_scope("threading", 2);
    calls c = {0};
    for (size_t round = 0; round < rounds(1000); round++) {
        /* Up to 0.1 ms: the helper is awake, asleep, or about to be either. */
        for (const double end = seconds() + 1e-5 * (double)(round % 11); seconds() < end;) {
        }
        c.ran = 0;
        c.failing = round % 7 == 0 ? 1 : 2; /* 2: none */
        const pb_status status = pb_parallel_map(count_or_fail, &c, 2, NULL, 0, NULL, 0, NULL);
        if (c.failing == 1) {
            CHECK_INT(PB_ERR_TASK_FAILED, status);
            CHECK_INT(1, last_info().task_index);
        } else {
            CHECK_INT(PB_OK, status);
            CHECK_INT(2, c.ran);
        }
    }
    close_scope(scope);
}

/* ---- what an item finds ---- */

static int32_t leave_a_scope_open(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(1, pb_nesting_level());
    CHECK(pb_worker_index() >= 0 && pb_worker_index() < 2);
    pb_scope left;
    CHECK_OK(pb_push_backend("sequential", 1, 0, NULL, &left));
    return 0;
}

TEST(what_an_item_leaves_behind_does_not_reach_the_next_map) {
    for (size_t round = 0; round < rounds(500); round++)
        CHECK_OK(map_on(2, leave_a_scope_open, NULL, 2));
    CHECK_INT(0, pb_nesting_level());
    CHECK_INT(-1, pb_worker_index());
}

/* ---- several callers, nested maps ---- */

typedef struct crowd {
    atomic_int inside, most, ran;
} crowd;

static int32_t be_inside(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    crowd *c = ctx;
    const int now = atomic_fetch_add(&c->inside, 1) + 1;
    int most = atomic_load(&c->most);
    while (most < now && !atomic_compare_exchange_weak(&c->most, &most, now)) {
    }
    atomic_fetch_add(&c->ran, 1);
    atomic_fetch_sub(&c->inside, 1);
    return 0;
}

static void *call_many(void *unused) {
    (void)unused;
    for (size_t round = 0; round < rounds(1000); round++) {
        const int n = 2 + (int)(round % (WORKERS - 1));
        crowd c = {0, 0, 0};
        CHECK_OK(map_on(n, be_inside, &c, (size_t)n));
        CHECK_INT(n, c.ran);
        CHECK(c.most <= n);
    }
    return NULL;
}

TEST(callers_at_once_share_the_helpers) { on_other_threads(WORKERS, call_many, NULL); }

static int32_t map_inside(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    return map_on(2, be_inside, ctx, 2) == PB_OK ? 0 : 1;
}

TEST(items_make_maps_of_their_own) {
    for (size_t round = 0; round < rounds(500); round++) {
        crowd c = {0, 0, 0};
        CHECK_OK(map_on(2, map_inside, &c, 2));
        CHECK_INT(4, c.ran);
        CHECK(c.most <= 4);
    }
}

static void all(void) {
    RUN(each_item_runs_once_and_its_output_is_there);
    RUN(two_items_have_two_threads);
    RUN(an_item_that_fails_is_named);
    RUN(an_item_that_runs_is_told_of_the_others_failure);
    RUN(the_same_map_after_a_pause_runs_whole_and_tells_of_its_own_failures);
    RUN(what_an_item_leaves_behind_does_not_reach_the_next_map);
    RUN(callers_at_once_share_the_helpers);
    RUN(items_make_maps_of_their_own);
}

int main(void) {
    forget_environment();
    CHECK_INT(0, pthread_barrier_init(&both, NULL, 2));
    CHECK_OK(pb_set_default_backend("threading", WORKERS, 0, NULL));
    all();
    /* Helpers that never sleep. */
    pb_scope phase;
    CHECK_OK(pb_phase_begin(WORKERS, &phase));
    all();
    CHECK_OK(pb_phase_end(phase));
    return check_result();
}
