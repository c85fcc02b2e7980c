/* Several threads, several sessions, and the life of both. */
#include "conformance.h"
#include <malloc.h>

enum { THREADS = 4, N = 300 };

static int32_t add_seed(void *ctx, size_t index, const void *input, void *output) {
    (void)input;
    *(int64_t *)output = *(const int64_t *)ctx + (int64_t)index;
    return 0;
}

static void check_maps(int64_t seed, int32_t rounds) {
    int64_t outputs[N];
    const pb_map_options options = with_ctx_size(sizeof seed);
    for (int32_t round = 0; round < rounds; ++round, ++seed) {
        memset(outputs, 0xff, sizeof outputs);
        CHECK_OK(pb_parallel_map(add_seed, &seed, N, NULL, 0, outputs, sizeof *outputs, &options));
        for (int64_t i = 0; i < N; ++i)
            CHECK_INT(seed + i, outputs[i]);
    }
}

/* ---- maps from several threads at once ---- */

struct caller {
    pthread_barrier_t *start;
    const pb_context *context; /* NULL: it opens a scope of its own, or takes the default */
    int opens_scope;
    int64_t seed;
};

static void *call_maps(void *arg) {
    const struct caller *caller = arg;
    pb_scope scope = 0;
    if (caller->context != NULL)
        CHECK_OK(pb_context_attach(caller->context, &scope));
    else if (caller->opens_scope)
        scope = use_backend(3);
    CHECK_STR(suite.backend, pb_current_backend());
    pthread_barrier_wait(caller->start);
    check_maps(caller->seed, suite.is_slow ? 3 : 25);
    if (scope != 0)
        CHECK_OK(pb_pop_backend(scope));
    return NULL;
}

static void call_from_threads(const pb_context *context, int opens_scope) {
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, THREADS);
    pthread_t threads[THREADS];
    struct caller callers[THREADS];
    for (int i = 0; i < THREADS; ++i) {
        callers[i] = (struct caller){&start, context, opens_scope, 1000 * i};
        CHECK(pthread_create(&threads[i], NULL, call_maps, &callers[i]) == 0);
    }
    for (int i = 0; i < THREADS; ++i)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
}

TEST(threads_with_scopes_of_their_own_map_at_once) { call_from_threads(NULL, 1); }

TEST(threads_map_at_once_in_one_session) {
    const pb_scope scope = use_backend(2);
    pb_context *context = pb_context_capture();
    CHECK(context != NULL);
    CHECK_OK(pb_pop_backend(scope));
    call_from_threads(context, 0); /* the context keeps the session */
    pb_context_free(context);
}

TEST(threads_map_at_once_on_the_default_backend) {
    CHECK_OK(pb_set_default_backend(suite.backend, 2, 0, suite.params));
    call_from_threads(NULL, 0);
    CHECK_OK(pb_set_default_backend(NULL, 0, 0, NULL));
}

/* ---- sessions ---- */

TEST(two_sessions_may_be_open_on_one_thread) {
    const pb_scope outer = use_backend(2);
    check_maps(0, 2);
    const pb_scope inner = use_backend(3);
    check_maps(10, 2);
    CHECK_OK(pb_pop_backend(inner));
    check_maps(20, 2);
    CHECK_OK(pb_pop_backend(outer));
}

TEST(sessions_may_follow_one_another) {
    for (int64_t seed = 0; seed < (suite.is_slow ? 5 : 30); ++seed) {
        const pb_scope scope = use_backend(2 + (int32_t)seed % 3);
        check_maps(seed, 1);
        CHECK_OK(pb_pop_backend(scope));
    }
}

TEST(a_session_survives_a_shutdown) {
    const pb_scope scope = use_backend(2);
    for (int64_t seed = 0; seed < 3; ++seed) {
        check_maps(seed, 1);
        CHECK_OK(pb_shutdown());
    }
    CHECK_OK(pb_pop_backend(scope));
}

static size_t bytes_in_use(void) {
    return mallinfo2().uordblks;
} /* under memcheck 0, which sees leaks itself */

/* Maps so short that they end before a helper has come. */
TEST(many_short_maps_leave_no_memory_behind) {
    enum { MAPS = 20000 };
    const int32_t maps = suite.is_slow || !suite.shares_memory ? 100 : MAPS;
    int64_t seed = 0, outputs[2];
    const pb_map_options options = with_ctx_size(sizeof seed);
    const pb_scope scope = use_backend(2);
    check_maps(0, 10);
    const size_t before = bytes_in_use();
    for (int32_t i = 0; i < maps; ++i)
        CHECK_OK(pb_parallel_map(add_seed, &seed, 2, NULL, 0, outputs, sizeof *outputs, &options));
    CHECK(bytes_in_use() < before + 20 * MAPS);
    CHECK_OK(pb_pop_backend(scope));
}

void test_threads(void) {
    RUN(threads_with_scopes_of_their_own_map_at_once);
    RUN(threads_map_at_once_in_one_session);
    RUN(threads_map_at_once_on_the_default_backend);
    RUN(two_sessions_may_be_open_on_one_thread);
    RUN(sessions_may_follow_one_another);
    RUN(a_session_survives_a_shutdown);
    RUN(many_short_maps_leave_no_memory_behind);
}
