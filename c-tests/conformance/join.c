/* Recursion and reductions: they run in the backend under test, as a map does. */
#include "conformance.h"

typedef struct tree {
    int32_t depth;
    int64_t leaves;
    int32_t worst; /* worker index of a leaf */
} tree;

static int32_t grow(void *ctx) {
    tree *t = ctx;
    if (t->depth == 0) {
        t->leaves = 1;
        t->worst = pb_worker_index();
        return 0;
    }
    tree a = {.depth = t->depth - 1}, b = a;
    const pb_status status = pb_join(grow, &a, grow, &b);
    t->leaves = a.leaves + b.leaves;
    t->worst = a.worst > b.worst ? a.worst : b.worst;
    return status;
}

TEST(joins_recurse_on_the_backend) {
    for (int32_t n_jobs = 1; n_jobs <= 4; ++n_jobs) {
        const pb_scope scope = use_backend(n_jobs);
        for (int round = suite.is_slow ? 2 : 20; round > 0; --round) {
            tree t = {.depth = suite.is_slow ? 6 : 10};
            CHECK_OK(grow(&t));
            CHECK_INT(suite.is_slow ? 64 : 1024, t.leaves);
            /* Without shared memory the branches run on threads of this process. */
            CHECK(t.worst >= 0 && t.worst < (suite.shares_memory ? pb_effective_n_jobs(0) : n_jobs));
        }
        CHECK_OK(pb_pop_backend(scope));
    }
}

static int32_t add_range(void *ctx, size_t begin, size_t end, const void *inputs, void *partial) {
    (void)ctx, (void)inputs;
    for (size_t i = begin; i < end; ++i)
        *(double *)partial += 1.0 / (double)(i + 1);
    return 0;
}

static int32_t add(void *ctx, void *left, const void *right) {
    (void)ctx;
    *(double *)left += *(const double *)right;
    return 0;
}

TEST(reductions_have_the_same_bits_on_every_backend) {
    double expected = 0;
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("sequential", 1, 0, NULL, &scope));
    CHECK_OK(pb_reduce(add_range, add, NULL, 10000, NULL, 0, &expected, sizeof expected, NULL));
    CHECK_OK(pb_pop_backend(scope));
    for (int32_t n_jobs = 1; n_jobs <= 5; ++n_jobs) {
        double sum = 0;
        scope = use_backend(n_jobs);
        CHECK_OK(pb_reduce(add_range, add, NULL, 10000, NULL, 0, &sum, sizeof sum, NULL));
        CHECK_OK(pb_pop_backend(scope));
        CHECK(memcmp(&expected, &sum, sizeof sum) == 0);
    }
}

void test_joins(void) {
    RUN(joins_recurse_on_the_backend);
    RUN(reductions_have_the_same_bits_on_every_backend);
}
