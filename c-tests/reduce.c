/* pb_reduce: the same bits for any number of workers, on any backend. */
#include "scopes.h"
#include "sync.h"

/* ---- a sum whose bits depend on the order ---- */

enum { N = 100 * 1000 };
static double numbers[N];

/* Of very different sizes, and of both signs: every order of adding them rounds differently. */
static void make_numbers(void) {
    uint64_t x = 1;
    for (int i = 0; i < N; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        const double size[] = {1e-9, 1, 1e3, 1e9};
        numbers[i] = ((double)(x >> 11) * 0x1p-53 - 0.5) * size[i % 4];
    }
}

static int32_t sum_block(void *ctx, size_t begin, size_t end, const void *inputs, void *partial) {
    const double *x = inputs;
    double sum = *(double *)partial;
    (void)ctx;
    for (size_t i = 0; i < end - begin; i++)
        sum += x[i];
    *(double *)partial = sum;
    return 0;
}

static int32_t add(void *ctx, void *left, const void *right) {
    (void)ctx;
    *(double *)left += *(const double *)right;
    return 0;
}

static pb_map_options with_batch(size_t batch_size) {
    pb_map_options options = {.struct_size = sizeof options};
    options.batch_size = batch_size;
    return options;
}

static double sum_on(const char *backend, int32_t n_jobs, size_t n, size_t batch_size) {
    const pb_map_options options = with_batch(batch_size);
    double sum = 0;
    const pb_scope scope = open_scope(backend, n_jobs);
    CHECK_OK(pb_reduce(sum_block, add, NULL, n, numbers, sizeof *numbers, &sum, sizeof sum, &options));
    close_scope(scope);
    return sum;
}

#define SAME_BITS(a, b) (memcmp(&(double){a}, &(double){b}, sizeof(double)) == 0)

TEST(a_sum_has_the_same_bits_for_any_number_of_workers) {
    static const size_t sizes[] = {0, 1, 100, 4096, N};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const double alone = sum_on("sequential", 1, N, sizes[s]);
        for (int32_t n_jobs = 1; n_jobs <= 16; n_jobs++) {
            for (int i = times(sizes[s] == 1 ? 1 : 5, 1); i > 0; i--)
                CHECK(SAME_BITS(alone, sum_on("threading", n_jobs, N, sizes[s])));
        }
    }
}

/* That the test above means something: these numbers, added in another order, give other bits. */
TEST(another_order_would_give_other_bits) {
    double forwards = 0, backwards = 0;
    for (int i = 0; i < N; i++) {
        forwards += numbers[i];
        backwards += numbers[N - 1 - i];
    }
    const double tree = sum_on("threading", 3, N, 0);
    CHECK(!SAME_BITS(forwards, backwards));
    CHECK(!SAME_BITS(forwards, tree));
    CHECK(!SAME_BITS(tree, sum_on("threading", 3, N, 1000)));
    CHECK(SAME_BITS(forwards, sum_on("threading", 3, N, N)));
}

/* ---- order, blocks, edges ---- */

/* Partial results are the ranges that they cover; combining is not commutative. */
typedef struct range {
    size_t begin, end, blocks;
} range;
static const range no_items = {SIZE_MAX, SIZE_MAX, 0};

static int32_t cover(void *longest, size_t begin, size_t end, const void *inputs, void *partial) {
    range *r = partial;
    if (begin >= end || r->begin != SIZE_MAX || inputs != NULL || (uintptr_t)partial % 128 != 0)
        return 1;
    *r = (range){begin, end, 1};
    size_t seen = __atomic_load_n((size_t *)longest, __ATOMIC_RELAXED);
    while (end - begin > seen && !__atomic_compare_exchange_n((size_t *)longest, &seen, end - begin, 0,
                                                              __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return 0;
}

static int32_t follow(void *ctx, void *left, const void *right) {
    range *l = left;
    const range *r = right;
    (void)ctx;
    if (l->end != r->begin)
        return 2;
    *l = (range){l->begin, r->end, l->blocks + r->blocks};
    return 0;
}

TEST(neighbours_are_combined_in_order_whatever_the_numbers) {
    static const size_t counts[] = {1, 2, 3, 5, 255, 256, 257, 513, 10007};
    static const size_t batches[] = {0, 1, 2, 3, 64, 20000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            const size_t n = counts[c], batch = batches[b];
            const pb_map_options options = with_batch(batch);
            const pb_scope scope = open_scope("threading", 4);
            size_t longest = 0;
            range all = no_items;
            CHECK_OK(pb_reduce(cover, follow, &longest, n, NULL, 8, &all, sizeof all, &options));
            CHECK_INT(0, all.begin);
            CHECK_INT(n, all.end);
            CHECK_INT(batch ? (n + batch - 1) / batch : n < 256 ? n : 256, all.blocks);
            CHECK_INT(batch ? (n < batch ? n : batch) : (n + 255) / 256, longest);
            close_scope(scope);
        }
    }
}

TEST(no_items_give_the_identity) {
    size_t longest = 0;
    range all = no_items;
    CHECK_OK(pb_reduce(cover, follow, &longest, 0, NULL, 0, &all, sizeof all, NULL));
    CHECK_INT(0, memcmp(&no_items, &all, sizeof all));
    CHECK_INT(0, longest);
}

/* ---- failures ---- */

static int32_t fail_where_777_is(void *ctx, size_t begin, size_t end, const void *inputs, void *partial) {
    (void)inputs, (void)partial, (void)ctx;
    if (begin > 777 || end <= 777)
        return 0;
    CHECK_OK(pb_task_fail("no number"));
    return 9;
}

static int32_t fail_to_combine(void *ctx, void *left, const void *right) {
    (void)ctx, (void)left, (void)right;
    CHECK_OK(pb_task_fail("too different"));
    return 5;
}

TEST(a_failed_block_names_its_items_and_leaves_the_result) {
    static const struct place {
        const char *backend;
        int32_t n_jobs;
    } places[] = {{"sequential", 1}, {"threading", 2}, {"threading", 7}};
    for (int p = 0; p < 3; p++) {
        const pb_scope scope = open_scope(places[p].backend, places[p].n_jobs);
        pb_map_options options = with_batch(100);
        double sum = 12.5;
        CHECK_STATUS(pb_reduce(fail_where_777_is, add, NULL, 1000, NULL, 0, &sum, sizeof sum, &options),
                     PB_ERR_TASK_FAILED);
        CHECK_STR("items 700 to 799 failed with code 9: no number", pb_last_error());
        CHECK_INT(700, last_info().task_index);
        CHECK_INT(9, last_info().task_code);
        CHECK(sum == 12.5);
        close_scope(scope);
    }
}

TEST(a_failed_combination_names_the_items_of_both_sides) {
    const pb_map_options options = with_batch(50);
    double sum = 12.5;
    CHECK_STATUS(pb_reduce(sum_block, fail_to_combine, NULL, 100, numbers, sizeof *numbers, &sum, sizeof sum,
                           &options),
                 PB_ERR_TASK_FAILED);
    CHECK_TEXT("failed with code 5: when items 0 to 49 were combined with items 50 to 99: too different");
    CHECK(sum == 12.5);
}

TEST(what_cannot_be_used_is_refused) {
    double sum = 0;
    int32_t statuses[1] = {77};
    pb_map_options options = with_batch(0);
    CHECK_STATUS(pb_reduce(NULL, add, NULL, 1, NULL, 0, &sum, sizeof sum, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("fold is NULL");
    CHECK_STATUS(pb_reduce(sum_block, NULL, NULL, 1, NULL, 0, &sum, sizeof sum, NULL),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("combine is NULL");
    CHECK_STATUS(pb_reduce(sum_block, add, NULL, 1, NULL, 0, NULL, sizeof sum, NULL),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("result is NULL");
    CHECK_STATUS(pb_reduce(sum_block, add, NULL, SIZE_MAX, &sum, 8, &sum, sizeof sum, NULL),
                 PB_ERR_INVALID_ARGUMENT);
    options.statuses = statuses;
    CHECK_STATUS(pb_reduce(sum_block, add, NULL, 1, numbers, 8, &sum, sizeof sum, &options),
                 PB_ERR_INVALID_ARGUMENT);
    options.statuses = NULL;
    options.flags = PB_COLLECT_ERRORS;
    CHECK_STATUS(pb_reduce(sum_block, add, NULL, 1, numbers, 8, &sum, sizeof sum, &options),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_reduce(sum_block, add, NULL, 1, numbers, 8, &sum, SIZE_MAX, NULL), PB_ERR_OUT_OF_MEMORY);
    CHECK(sum == 0);
    CHECK_INT(77, statuses[0]);
}

/* ---- like a map ---- */

typedef struct cancelled {
    int32_t begun;
    double sum;
} cancelled;

static int32_t fold_until_cancelled(void *ctx, size_t begin, size_t end, const void *inputs, void *partial) {
    cancelled *c = ctx;
    (void)begin, (void)end, (void)inputs, (void)partial;
    __atomic_fetch_add(&c->begun, 1, __ATOMIC_RELAXED);
    return wait_cancelled() ? 0 : 1;
}

static int32_t reduce_until_cancelled(void *ctx, size_t index, const void *input, void *output) {
    cancelled *c = ctx;
    (void)index, (void)input, (void)output;
    CHECK_STATUS(pb_reduce(fold_until_cancelled, add, c, N, NULL, 0, &c->sum, sizeof c->sum, NULL),
                 PB_ERR_CANCELLED);
    CHECK_TEXT("blocks of items");
    return 0;
}

TEST(a_reduction_sees_that_the_map_around_it_is_cancelled) {
    cancelled c = {0, 12.5};
    const pb_scope scope = open_scope("threading", 2);
    cancel_once_begun(reduce_until_cancelled, &c, &c.begun);
    close_scope(scope);
    CHECK(c.begun <= 2);
    CHECK(c.sum == 12.5);
}

static int32_t reduce_in_task(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(double *)output = 0;
    return pb_reduce(sum_block, add, NULL, N / 10, numbers, sizeof *numbers, output, sizeof(double), NULL);
}

TEST(reductions_nest_in_tasks) {
    double sums[6];
    const double alone = sum_on("sequential", 1, N / 10, 0);
    const pb_scope scope = open_scope("threading", 3);
    CHECK_OK(pb_parallel_map(reduce_in_task, NULL, 6, NULL, 0, sums, sizeof *sums, NULL));
    close_scope(scope);
    for (int i = 0; i < 6; i++)
        CHECK(SAME_BITS(alone, sums[i]));
}

int main(void) {
    forget_environment();
    make_numbers();
    RUN(a_sum_has_the_same_bits_for_any_number_of_workers);
    RUN(another_order_would_give_other_bits);
    RUN(neighbours_are_combined_in_order_whatever_the_numbers);
    RUN(no_items_give_the_identity);
    RUN(a_failed_block_names_its_items_and_leaves_the_result);
    RUN(a_failed_combination_names_the_items_of_both_sides);
    RUN(what_cannot_be_used_is_refused);
    RUN(a_reduction_sees_that_the_map_around_it_is_cancelled);
    RUN(reductions_nest_in_tasks);
    CHECK_OK(pb_shutdown());
    return check_result();
}
