#include "bodies.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Both shapes of a body from one function, which the compiler copies into them. */
#define BODY(name)                                                                                           \
    static void name##_call(void *ctx, size_t i) { name(ctx, i); }                                           \
    static int32_t name##_task(void *ctx, size_t i, const void *input, void *output) {                       \
        (void)input, (void)output;                                                                           \
        name(ctx, i);                                                                                        \
        return 0;                                                                                            \
    }                                                                                                        \
    const bench_body name##_body = {name##_call, name##_task}

/* ---- the tally: proof that each item ran once, without a cache line that threads would share ---- */

typedef struct slot {
    _Alignas(128) tally sum;
    struct slot *next;      /* of all slots */
    struct slot *next_free; /* of those whose thread has ended */
} slot;

static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t slots_once = PTHREAD_ONCE_INIT;
static pthread_key_t slots_key;
static slot *all_slots, *free_slots;
static __thread slot *my_slot;

static void give_back(void *value) {
    slot *s = value;
    pthread_mutex_lock(&slots_lock);
    s->next_free = free_slots;
    free_slots = s;
    pthread_mutex_unlock(&slots_lock);
}

static void make_key(void) {
    if (pthread_key_create(&slots_key, give_back))
        abort();
}

/* A slot that ended threads leave keeps its sums, so that programs which start threads all the time need only
 * a few. */
static __attribute__((noinline)) slot *take_slot(void) {
    pthread_once(&slots_once, make_key);
    pthread_mutex_lock(&slots_lock);
    slot *s = free_slots;
    if (s) {
        free_slots = s->next_free;
    } else if ((s = aligned_alloc(_Alignof(slot), sizeof *s))) {
        *s = (slot){.next = all_slots};
        all_slots = s;
    }
    pthread_mutex_unlock(&slots_lock);
    if (!s || pthread_setspecific(slots_key, s))
        abort();
    return my_slot = s;
}

static inline uint64_t weight_of(size_t i) { return (i + 1) * 0x9E3779B97F4A7C15u; }
uint64_t tally_weight(size_t i) { return weight_of(i); }

static inline void count(size_t i) {
    slot *s = my_slot ? my_slot : take_slot();
    s->sum.count++;
    s->sum.weight += weight_of(i);
}

tally tally_read(void) {
    tally total = {0, 0};
    pthread_mutex_lock(&slots_lock);
    for (const slot *s = all_slots; s; s = s->next) {
        total.count += s->sum.count;
        total.weight += s->sum.weight;
    }
    pthread_mutex_unlock(&slots_lock);
    return total;
}

/* ---- bodies that only take time ---- */

static inline void turn(uint64_t turns) {
    for (uint64_t x = turns; turns; turns--) {
        x = x * 0x5851F42D4C957F2Du + 1; /* each turn waits for the one before */
        __asm__ volatile("" : "+r"(x));
    }
}

void spin(uint64_t turns) { turn(turns); }

static inline void empty(void *ctx, size_t i) {
    (void)ctx;
    count(i);
}
BODY(empty);

static inline void spin_same(void *ctx, size_t i) {
    const spin_work *work = ctx;
    turn(work->turns);
    count(i);
}
BODY(spin_same);

static inline void spin_each(void *ctx, size_t i) {
    const spin_work *work = ctx;
    turn(work->turns_of[i]);
    count(i);
}
BODY(spin_each);

static inline void nest(void *ctx, size_t i) {
    (void)i;
    const nest_work *work = ctx;
    peer_nested_for(work->n, work->body, work->ctx);
}
BODY(nest);

/* ---- bodies that compute ---- */

static inline void saxpy(void *ctx, size_t i) {
    const saxpy_work *work = ctx;
    work->z[i] = work->a * work->x[i] + work->y[i];
}
BODY(saxpy);

static inline void mandelbrot(void *ctx, size_t row) {
    const mandelbrot_work *work = ctx;
    double y = -1.15 + 2.3 * (double)row / work->height;
    for (int column = 0; column < work->width; column++) {
        double x = -2.1 + 2.7 * column / work->width;
        double re = 0, im = 0;
        int turns = 0;
        while (turns < work->limit && re * re + im * im <= 4) {
            double next = re * re - im * im + x;
            im = 2 * re * im + y;
            re = next;
            turns++;
        }
        work->escape[row * (size_t)work->width + (size_t)column] = (uint16_t)turns;
    }
}
BODY(mandelbrot);

static inline void spmv(void *ctx, size_t row) {
    const spmv_work *work = ctx;
    double sum = 0;
    for (size_t k = work->row_starts[row]; k < work->row_starts[row + 1]; k++)
        sum += work->values[k] * work->x[work->columns[k]];
    work->y[row] = sum;
}
BODY(spmv);

enum { ROW_MAJOR = 101, NOT_TRANSPOSED = 111 }; /* of the C interface to BLAS */

static inline void dgemm(void *ctx, size_t i) {
    const dgemm_work *work = ctx;
    int size = work->size;
    size_t at = i * (size_t)size * (size_t)size;
    work->dgemm(ROW_MAJOR, NOT_TRANSPOSED, NOT_TRANSPOSED, size, size, size, 1, work->a + at, size,
                work->b + at, size, 0, work->c + at, size);
}
BODY(dgemm);

/* Sums of uniform numbers stand in for normal ones: what matters here is that paths end early, each at its
 * own time. */
static inline void monte_carlo(void *ctx, size_t path) {
    const monte_carlo_work *work = ctx;
    uint64_t state = weight_of(path);
    double price = 0;
    for (int step = 0; step < work->steps && price < work->barrier; step++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        double uniform = (double)(state >> 11) * 0x1p-53 - 0.5;
        price += work->drift + work->volatility * uniform;
    }
    work->payoffs[path] = price < work->barrier ? exp(price) : 0;
}
BODY(monte_carlo);

/* ---- a recursion ---- */

enum { SORT_LEAF = 64 };

typedef struct part {
    uint32_t *values, *scratch;
    size_t n;
} part;

static void insertion_sort(uint32_t *values, size_t n) {
    for (size_t i = 1; i < n; i++) {
        uint32_t value = values[i];
        size_t at = i;
        for (; at > 0 && values[at - 1] > value; at--)
            values[at] = values[at - 1];
        values[at] = value;
    }
}

static void merge(uint32_t *values, size_t middle, size_t n, uint32_t *scratch) {
    size_t left = 0, right = middle;
    for (size_t i = 0; i < n; i++) {
        int from_left = right == n || (left < middle && values[left] <= values[right]);
        scratch[i] = values[from_left ? left : right];
        left += (size_t)from_left;
        right += (size_t)!from_left;
    }
    memcpy(values, scratch, n * sizeof *values);
}

static int32_t sort_part(void *ctx) {
    const part *p = ctx;
    if (p->n <= SORT_LEAF) {
        insertion_sort(p->values, p->n);
        return 0;
    }
    size_t middle = p->n / 2;
    part a = {p->values, p->scratch, middle};
    part b = {p->values + middle, p->scratch + middle, p->n - middle};
    peer_join(sort_part, &a, &b);
    merge(p->values, middle, p->n, p->scratch);
    return 0;
}

void merge_sort(void *ctx) {
    const sort_work *work = ctx;
    memcpy(work->to, work->from, work->n * sizeof *work->to);
    part all = {work->to, work->scratch, work->n};
    peer_root(sort_part, &all);
}
