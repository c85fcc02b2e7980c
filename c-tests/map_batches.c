/* How items are handed to workers: fixed batches as asked for, adapted ones otherwise, every item exactly
 * once. */
#include "sync.h"

#define MOST 2000

typedef struct record {
    uint32_t calls[MOST]; /* of each item */
    pthread_t thread[MOST];
    size_t turn[MOST]; /* when the item ran, among all */
    size_t turns;
} record;

static int32_t note(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    record *r = ctx;
    __atomic_fetch_add(&r->calls[index], 1, __ATOMIC_RELAXED);
    r->thread[index] = pthread_self();
    r->turn[index] = __atomic_fetch_add(&r->turns, 1, __ATOMIC_RELAXED);
    return 0;
}

static record *map_and_note(size_t n, int32_t n_jobs, size_t batch_size) {
    static record r;
    memset(&r, 0, sizeof r);
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = n_jobs, .batch_size = batch_size};
    CHECK_OK(pb_parallel_map(note, &r, n, NULL, 0, NULL, 0, &options));
    size_t once = 0;
    for (size_t i = 0; i < n; i++)
        once += r.calls[i] == 1;
    CHECK_INT(n, once);
    CHECK_INT(n, r.turns);
    return &r;
}

/* joblib: test_parallel.py::test_dispatch_race_condition, its eleven combinations (there is no pre_dispatch
 * here) */
TEST(every_item_runs_exactly_once_whatever_the_combination) {
    static const struct {
        size_t n;
        int32_t n_jobs;
        size_t batch_size;
    } table[] = {{2, 2, 0},    {2, 2, 0},   {10, 2, 0},   {517, 2, 0},  {10, 2, 0},  {10, 4, 0},
                 {200, 12, 0}, {25, 12, 1}, {250, 12, 1}, {250, 12, 7}, {200, 12, 0}};
    const size_t repeats = rounds(20);
    for (size_t repeat = 0; repeat < repeats; repeat++)
        for (size_t row = 0; row < sizeof table / sizeof *table; row++)
            map_and_note(table[row].n, table[row].n_jobs, table[row].batch_size);
}

/* loky: test_process_executor.py::test_map_chunksize */
TEST(any_batch_size_gives_the_same_results) {
    const size_t sizes[] = {1, 2, 3, 7, 64, 516, 517, 518, SIZE_MAX / 2, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int32_t n_jobs = 1; n_jobs <= 3; n_jobs++)
            map_and_note(517, n_jobs, sizes[i]);
}

/* joblib: test_parallel.py::test_dispatch_one_job, batch 4 */
TEST(the_items_of_a_batch_run_on_one_thread_in_order) {
    for (int32_t n_jobs = 1; n_jobs <= 4; n_jobs++) {
        const record *r = map_and_note(103, n_jobs, 4);
        for (size_t i = 0; i < 103; i++) {
            const size_t first = i / 4 * 4;
            CHECK(pthread_equal(r->thread[i], r->thread[first]));
            CHECK(i == first || r->turn[i] > r->turn[i - 1]);
        }
    }
}

TEST(one_worker_runs_the_items_in_order_on_the_callers_thread) {
    for (size_t batch_size = 0; batch_size <= 4; batch_size++) {
        const record *r = map_and_note(100, 1, batch_size);
        for (size_t i = 0; i < 100; i++) {
            CHECK_INT(i, r->turn[i]);
            CHECK(pthread_equal(r->thread[i], pthread_self()));
        }
    }
}

TEST(a_batch_larger_than_the_map_gives_all_items_to_one_worker) {
    const record *r = map_and_note(50, 3, 1000);
    for (size_t i = 1; i < 50; i++)
        CHECK(pthread_equal(r->thread[i], r->thread[0]));
}

/* A backend that notes the chunks it claims shows what the library would give any worker. It says that there
 * are two workers, and runs all chunks itself. */
typedef struct claims {
    size_t n, sizes[MOST], left[MOST];
} claims;

static pb_status claim_all(void *state, void *session, pb_job *job) {
    (void)session;
    claims *c = state;
    c->n = 0;
    pb_chunk chunk;
    while (pb_job_claim(job, &chunk) == PB_OK) {
        REQUIRE(c->n < MOST);
        c->left[c->n] = pb_job_n_items(job) - chunk.begin;
        c->sizes[c->n++] = chunk.end - chunk.begin;
        CHECK_OK(pb_job_run(job, &chunk));
    }
    return PB_OK;
}

static claims noted;

static const claims *claims_of(pb_task_fn fn, size_t n, size_t batch_size) {
    pb_map_options options = {.struct_size = sizeof options, .batch_size = batch_size};
    CHECK_OK(pb_parallel_map(fn, NULL, n, NULL, 0, NULL, 0, &options));
    size_t sum = 0;
    for (size_t i = 0; i < noted.n; i++)
        sum += noted.sizes[i];
    CHECK_INT(n, sum);
    return &noted;
}

static int32_t tiny(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

static int32_t slow(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    work_for(100e-6);
    return 0;
}

TEST(a_batch_size_is_honoured_exactly) {
    const claims *c = claims_of(tiny, 10, 4);
    REQUIRE(c->n == 3);
    CHECK_INT(4, c->sizes[0]);
    CHECK_INT(4, c->sizes[1]);
    CHECK_INT(2, c->sizes[2]);
    CHECK_INT(10, claims_of(slow, 10, 1)->n);
    CHECK_INT(10, claims_of(tiny, 10, 1)->n);
}

/* joblib: test_parallel.py::check_batching_auto: the size grows above 10 for no-op tasks */
TEST(tiny_tasks_go_in_large_batches) {
    const claims *c = claims_of(tiny, 100000, 0);
    size_t largest = 0;
    for (size_t i = 0; i < c->n; i++)
        largest = c->sizes[i] > largest ? c->sizes[i] : largest;
    CHECK(largest > 10);
}

/* The reference's pain 10 (joblib#1220): a batch of slow tasks keeps the others waiting. */
TEST(slow_tasks_go_one_by_one) { CHECK_INT(100, claims_of(slow, 100, 0)->n); }

/* joblib#373, from the other end: no worker takes the last large batch while the other has nothing left. */
TEST(a_batch_is_never_more_than_half_a_workers_share_of_what_is_left) {
    const claims *c = claims_of(tiny, 100000, 0);
    for (size_t i = 0; i < c->n; i++)
        CHECK(c->sizes[i] <= 1 || c->sizes[i] <= c->left[i] / 4); /* two workers */
    CHECK_INT(1, c->sizes[c->n - 1]);
}

/* joblib: test_parallel.py::test_backend_batch_statistics_reset */
TEST(every_map_learns_anew) {
    claims_of(tiny, 100000, 0);
    CHECK_INT(1, claims_of(tiny, 100000, 0)->sizes[0]);
}

int main(void) {
    pb_scope scope = use_backend("threading", 4);
    RUN(every_item_runs_exactly_once_whatever_the_combination);
    RUN(any_batch_size_gives_the_same_results);
    RUN(the_items_of_a_batch_run_on_one_thread_in_order);
    RUN(one_worker_runs_the_items_in_order_on_the_callers_thread);
    RUN(a_batch_larger_than_the_map_gives_all_items_to_one_worker);
    CHECK_OK(pb_pop_backend(scope));

    const pb_backend_vtable noting = {.struct_size = sizeof noting,
                                      .abi_version = PB_BACKEND_ABI_VERSION,
                                      .capabilities = PB_BACKEND_SHARES_MEMORY,
                                      .run = claim_all};
    REQUIRE(pb_register_backend("noting", &noting, &noted, 0) == PB_OK);
    scope = use_backend("noting", 2);
    RUN(a_batch_size_is_honoured_exactly);
    RUN(tiny_tasks_go_in_large_batches);
    RUN(slow_tasks_go_one_by_one);
    RUN(a_batch_is_never_more_than_half_a_workers_share_of_what_is_left);
    RUN(every_map_learns_anew);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_shutdown());
    return check_result();
}
