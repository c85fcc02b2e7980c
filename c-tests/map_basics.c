/* The map: every item once, with its own elements, wherever it is called from. */
#include "sync.h"

static const char *const BACKENDS[] = {"sequential", "threading"};

/* output = input * input + *ctx */
static int32_t square(void *ctx, size_t index, const void *input, void *output) {
    (void)index;
    const int64_t x = *(const int64_t *)input;
    *(int64_t *)output = x * x + *(const int64_t *)ctx;
    return 0;
}

static void check_squares(size_t n, const pb_map_options *options) {
    int64_t plus = 7;
    int64_t *in = malloc((n + 1) * sizeof *in), *out = malloc((n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++)
        in[i] = (int64_t)i - 3;
    CHECK_OK(pb_parallel_map(square, &plus, n, in, sizeof *in, out, sizeof *out, options));
    size_t right = 0;
    for (size_t i = 0; i < n; i++)
        right += out[i] == in[i] * in[i] + plus;
    CHECK_INT(n, right);
    free(in);
    free(out);
}

/* joblib: test_parallel.py::test_simple_parallel */
TEST(a_map_equals_a_serial_loop_on_every_backend_with_any_number_of_workers) {
    const int32_t n_jobs[] = {1, 2, -1, -2, 5, 40};
    const size_t sizes[] = {1, 2, 3, 5, 500};
    for (size_t b = 0; b < 2; b++)
        for (size_t j = 0; j < 6; j++) {
            pb_scope scope = use_backend(BACKENDS[b], n_jobs[j]);
            for (size_t s = 0; s < 5; s++)
                check_squares(sizes[s], NULL);
            CHECK_OK(pb_pop_backend(scope));
        }
}

TEST(the_number_of_workers_may_be_the_calls_own) {
    for (int32_t n_jobs = -2; n_jobs <= 5; n_jobs++) {
        pb_map_options options = {.struct_size = sizeof options, .n_jobs = n_jobs};
        check_squares(100, &options);
    }
}

static int32_t never(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    counter_raise(ctx);
    return 0;
}

/* joblib: test_parallel.py::test_exhausted_iterator */
TEST(a_map_over_nothing_succeeds_and_calls_nothing) {
    counter calls = COUNTER;
    for (size_t b = 0; b < 2; b++) {
        pb_scope scope = use_backend(BACKENDS[b], 2);
        CHECK_OK(pb_parallel_map(never, &calls, 0, NULL, 0, NULL, 0, NULL));
        CHECK_OK(pb_pop_backend(scope));
    }
    CHECK_INT(0, counter_get(&calls));
}

static int32_t note_pointers(void *ctx, size_t index, const void *input, void *output) {
    CHECK(input == NULL);
    CHECK(output == NULL);
    __atomic_fetch_add((size_t *)ctx, index + 1, __ATOMIC_RELAXED);
    return 0;
}

TEST(arrays_that_are_null_stay_null_whatever_their_size) {
    size_t sum = 0;
    CHECK_OK(pb_parallel_map(note_pointers, &sum, 100, NULL, 8, NULL, SIZE_MAX, NULL));
    CHECK_INT(5050, sum);
}

/* An element of size 0 is the array's own address: every item sees the same. */
static int32_t same_place(void *ctx, size_t index, const void *input, void *output) {
    (void)index;
    CHECK(input == ctx);
    CHECK(output == ctx);
    return 0;
}

TEST(elements_of_size_0_are_all_at_the_arrays_address) {
    char byte = 0;
    CHECK_OK(pb_parallel_map(same_place, &byte, 10, &byte, 0, &byte, 0, NULL));
}

/* Doubles the element of the caller's own array, and counts. */
static int32_t mutate(void *ctx, size_t index, const void *input, void *output) {
    (void)output;
    ((int *)ctx)[index] *= 2;
    CHECK(input == (const int *)ctx + index);
    return 0;
}

/* joblib: test_parallel.py::test_mutate_input_with_threads */
TEST(tasks_may_change_the_callers_data) {
    for (size_t b = 0; b < 2; b++) {
        int data[3] = {1, 2, 3};
        pb_scope scope = use_backend(BACKENDS[b], 2);
        CHECK_OK(pb_parallel_map(mutate, data, 3, data, sizeof *data, NULL, 0, NULL));
        CHECK_OK(pb_pop_backend(scope));
        CHECK_INT(2, data[0]);
        CHECK_INT(4, data[1]);
        CHECK_INT(6, data[2]);
    }
}

static void *map_here(void *unused) {
    (void)unused;
    pb_scope scope = use_backend("threading", 2);
    check_squares(50, NULL);
    CHECK_OK(pb_pop_backend(scope));
    return NULL;
}

/* joblib: test_parallel.py::test_background_thread_parallelism */
TEST(a_map_may_be_called_from_any_thread) {
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, map_here, NULL) == 0);
    pthread_join(thread, NULL);
}

static void *map_often(void *unused) {
    (void)unused;
    const size_t n = rounds(200);
    for (size_t i = 0; i < n; i++) {
        pb_map_options options = {.struct_size = sizeof options, .n_jobs = (int32_t)(i % 4)};
        check_squares(i % 37, &options);
    }
    return NULL;
}

/* loky: test_reusable_executor.py::test_reusable_executor_thread_safety */
TEST(many_threads_may_call_maps_at_once) {
    pthread_t threads[8];
    for (size_t i = 0; i < 8; i++)
        REQUIRE(pthread_create(&threads[i], NULL, map_often, NULL) == 0);
    for (size_t i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
}

/* Each worker of a map of three is a thread of its own; `seen` has one slot for each thread that ever came.
 */
typedef struct crew {
    counter arrived;
    pthread_mutex_t mutex;
    pthread_t seen[1000];
    size_t n_seen;
} crew;

static int32_t sign_in(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    crew *c = ctx;
    const size_t turn = counter_raise(&c->arrived) / 3;
    CHECK(counter_wait(&c->arrived, 3 * turn + 3)); /* until all three workers of this map are here */
    pthread_mutex_lock(&c->mutex);
    size_t at = 0;
    while (at < c->n_seen && !pthread_equal(c->seen[at], pthread_self()))
        at++;
    if (at == c->n_seen)
        c->seen[c->n_seen++] = pthread_self();
    pthread_mutex_unlock(&c->mutex);
    return 0;
}

/* joblib: test_parallel.py::test_parallel_as_context_manager; loky: test_loky_reuse_workers. 200 maps need
 * 400 helpers: they are few threads that come again, a thread more now and then when a helper was slow to
 * leave the last map. */
TEST(successive_maps_use_the_same_threads) {
    static crew c = {COUNTER, PTHREAD_MUTEX_INITIALIZER, {0}, 0};
    const size_t n = 200;
    pb_scope scope = use_backend("threading", 3);
    for (size_t i = 0; i < n; i++)
        CHECK_OK(pb_parallel_map(sign_in, &c, 3, NULL, 0, NULL, 0, NULL));
    CHECK_OK(pb_pop_backend(scope));
    CHECK(c.n_seen >= 3);
    CHECK(c.n_seen < 60);
}

TEST(the_library_may_be_used_again_after_a_shutdown) {
    check_squares(100, NULL);
    CHECK_OK(pb_shutdown());
    CHECK_OK(pb_shutdown());
    check_squares(100, NULL);
}

/* joblib: test_parallel.py::test_no_stale_references, in C's terms: what the call was given may be freed when
 * it returns. Memcheck and sanitizers see a helper that comes late and looks. */
TEST(nothing_is_touched_after_the_call) {
    pb_scope scope = use_backend("threading", 4);
    const size_t n = rounds(500);
    for (size_t i = 0; i < n; i++) {
        char *everything = malloc(3 * sizeof(int64_t) + sizeof(pb_map_options));
        pb_map_options *options = (pb_map_options *)(void *)(everything + 3 * sizeof(int64_t));
        *options = (pb_map_options){.struct_size = sizeof *options, .batch_size = 1};
        int64_t *plus = (int64_t *)(void *)everything;
        plus[0] = 1;
        plus[1] = 2;
        CHECK_OK(pb_parallel_map(square, plus, 1 + i % 2, plus + 1, 0, plus + 2, 0, options));
        CHECK_INT(5, plus[2]);
        memset(everything, 0xff, 3 * sizeof(int64_t) + sizeof *options);
        free(everything);
    }
    CHECK_OK(pb_pop_backend(scope));
}

int main(void) {
    RUN(a_map_equals_a_serial_loop_on_every_backend_with_any_number_of_workers);
    RUN(the_number_of_workers_may_be_the_calls_own);
    RUN(a_map_over_nothing_succeeds_and_calls_nothing);
    RUN(arrays_that_are_null_stay_null_whatever_their_size);
    RUN(elements_of_size_0_are_all_at_the_arrays_address);
    RUN(tasks_may_change_the_callers_data);
    RUN(a_map_may_be_called_from_any_thread);
    RUN(many_threads_may_call_maps_at_once);
    RUN(successive_maps_use_the_same_threads);
    RUN(the_library_may_be_used_again_after_a_shutdown);
    RUN(nothing_is_touched_after_the_call);
    CHECK_OK(pb_shutdown());
    return check_result();
}
