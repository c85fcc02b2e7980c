/* pb_join: both branches run once, inside what the scope chose, and their failures come back. */
#include "fibonacci.h"
#include "places.h"
#include "scopes.h"
#include "sync.h"

/* ---- results ---- */

TEST(a_recursion_gives_what_it_gives_without_pb) {
    ON_EACH_PLACE(p) {
        const pb_scope scope = open_scope(p->backend, p->n_jobs);
        for (int i = times(20, 2); i > 0; i--)
            check_fibonacci(18, 2584);
        close_scope(scope);
    }
}

/* Each level forks one leaf: deeper than what a worker can offer at once. */
typedef struct chain {
    int32_t left;
    int32_t *ran;
} chain;

static int32_t leaf(void *ctx) {
    __atomic_fetch_add((int32_t *)ctx, 1, __ATOMIC_RELAXED);
    return 0;
}

static int32_t descend(void *ctx) {
    const chain *c = ctx;
    if (c->left == 0)
        return 0;
    chain rest = {c->left - 1, c->ran};
    return pb_join(descend, &rest, leaf, c->ran);
}

TEST(a_chain_may_be_long) {
    ON_EACH_PLACE(p) {
        int32_t ran = 0;
        chain c = {1000, &ran};
        const pb_scope scope = open_scope(p->backend, p->n_jobs);
        CHECK_OK(descend(&c));
        close_scope(scope);
        CHECK_INT(1000, ran);
    }
}

/* ---- where branches run ---- */

static int32_t note_order(void *ctx) {
    static __thread char order[8];
    strncat(order, ctx, 1);
    return strcmp(order, "ab") == 0 || strcmp(order, "a") == 0 ? 0 : 1;
}

static void *join_in_order(void *unused) {
    const pb_scope scope = open_scope("sequential", 0);
    CHECK_OK(pb_join(note_order, "a", note_order, "b"));
    close_scope(scope);
    return unused;
}

TEST(sequential_runs_a_and_then_b_on_the_caller) { on_another_thread(join_in_order, NULL); }

static int32_t meet(void *both) {
    pthread_barrier_wait(both);
    return 0;
}

/* Ends only if the two run at the same time. */
TEST(two_workers_run_the_branches_at_the_same_time) {
    pthread_barrier_t both;
    CHECK_INT(0, pthread_barrier_init(&both, NULL, 2));
    const pb_scope scope = open_scope("threading", 2);
    for (int i = times(200, 10); i > 0; i--)
        CHECK_OK(pb_join(meet, &both, meet, &both));
    close_scope(scope);
    pthread_barrier_destroy(&both);
}

typedef struct four {
    pthread_barrier_t *all;
    int deep;
} four;

static int32_t meet_below(void *ctx) {
    four *f = ctx;
    four below = {f->all, 0};
    return f->deep ? pb_join(meet_below, &below, meet_below, &below) : meet(f->all);
}

/* Four leaves that all wait for each other: the branches of one thread are offered even while it does not
 * join. */
TEST(four_workers_run_four_leaves_at_the_same_time) {
    pthread_barrier_t all;
    CHECK_INT(0, pthread_barrier_init(&all, NULL, 4));
    four f = {&all, 1};
    const pb_scope scope = open_scope("threading", 4);
    for (int i = times(100, 5); i > 0; i--)
        CHECK_OK(pb_join(meet_below, &f, meet_below, &f));
    close_scope(scope);
    pthread_barrier_destroy(&all);
}

typedef struct tree {
    int32_t depth, n_jobs;
    int32_t *inside, *most, *busy;
} tree;

/* Counts the threads in branches of this tree; each index belongs to one of them at a time. */
static int32_t count_inside(void *ctx) {
    const tree *t = ctx;
    if (t->depth > 0) {
        tree a = *t, b = *t;
        a.depth = b.depth = t->depth - 1;
        return pb_join(count_inside, &a, count_inside, &b);
    }
    const int32_t worker = pb_worker_index();
    if (worker < 0 || worker >= t->n_jobs || __atomic_exchange_n(&t->busy[worker], 1, __ATOMIC_RELAXED))
        return 1;
    const int32_t now = __atomic_add_fetch(t->inside, 1, __ATOMIC_RELAXED);
    int32_t most = __atomic_load_n(t->most, __ATOMIC_RELAXED);
    while (now > most &&
           !__atomic_compare_exchange_n(t->most, &most, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    sched_yield();
    __atomic_sub_fetch(t->inside, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&t->busy[worker], 0, __ATOMIC_RELAXED);
    return 0;
}

TEST(never_more_threads_than_n_jobs_at_any_depth) {
    for (int32_t n_jobs = 1; n_jobs <= 4; n_jobs++) {
        int32_t inside = 0, most = 0, busy[4] = {0};
        tree t = {times(10, 6), n_jobs, &inside, &most, busy};
        const pb_scope scope = open_scope("threading", n_jobs);
        CHECK_OK(count_inside(&t));
        close_scope(scope);
        CHECK(most >= 1 && most <= n_jobs);
    }
}

typedef struct sight {
    int32_t level, n_jobs, cpus;
} sight;

static int32_t look(void *ctx) {
    sight *s = ctx;
    *s = (sight){pb_nesting_level(), pb_effective_n_jobs(0), pb_effective_n_jobs(-1)};
    return 0;
}

static int32_t look_deeper(void *ctx) {
    sight *two = ctx;
    return pb_join(look, &two[0], look, &two[1]);
}

/* As a map's tasks: level 1, and each of two workers has half of the CPUs. Inner joins do not divide them
 * again. */
TEST(branches_see_what_a_maps_tasks_see) {
    sight sights[4];
    const int32_t cpus = pb_cpu_count(0), less = cpus / 2 > 0 ? cpus / 2 : 1;
    const pb_scope scope = open_scope("threading", 2);
    CHECK_OK(pb_join(look_deeper, sights, look_deeper, sights + 2));
    close_scope(scope);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(1, sights[i].level);
        CHECK(sights[i].cpus == less || sights[i].cpus == cpus - less);
    }
    CHECK_INT(0, pb_nesting_level());
    CHECK_INT(-1, pb_worker_index());
}

TEST(one_worker_changes_nothing_around_its_branches) {
    sight a, b;
    const pb_scope scope = open_scope("sequential", 0);
    CHECK_OK(pb_join(look, &a, look, &b));
    close_scope(scope);
    CHECK_INT(0, a.level);
    CHECK_INT(0, b.level);
}

/* ---- scopes, maps and joins in one another ---- */

static int32_t join_on_three(void *ctx) {
    const pb_scope scope = open_scope("threading", 3);
    sight *two = ctx;
    const pb_status status = pb_join(look, &two[0], look, &two[1]);
    close_scope(scope);
    return status;
}

TEST(a_scope_in_a_branch_is_respected) {
    sight sights[4];
    const pb_scope scope = open_scope("threading", 2);
    CHECK_OK(pb_join(join_on_three, sights, join_on_three, sights + 2));
    close_scope(scope);
    for (int i = 0; i < 4; i++)
        CHECK_INT(2, sights[i].level);
}

static int32_t leave_a_scope_open(void *ctx) {
    pb_scope limit = 0;
    (void)ctx;
    open_scope("sequential", 0);
    CHECK_OK(pb_push_thread_limit(1, PB_API_ALL, &limit));
    return 0;
}

static int32_t current_is(void *ctx) { return strcmp(pb_current_backend(), ctx) == 0 ? 0 : 1; }

static int32_t leave_scopes_open_and_look(void *ctx) {
    CHECK_OK(pb_join(leave_a_scope_open, NULL, leave_a_scope_open, NULL));
    CHECK_INT(0, current_is(ctx));
    return pb_join(current_is, ctx, current_is, ctx);
}

TEST(scopes_left_open_end_with_the_branch) {
    ON_EACH_PLACE(p) {
        const pb_scope scope = open_scope(p->backend, p->n_jobs);
        char inside[] = "threading";
        char *const expected = p->n_jobs == 1 ? (char *)p->backend : inside;
        CHECK_OK(pb_join(leave_scopes_open_and_look, expected, leave_scopes_open_and_look, expected));
        CHECK_STR(p->backend, pb_current_backend());
        close_scope(scope);
    }
}

static int32_t join_in_task(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    fib f = {(int64_t)(index % 12), -1};
    const int32_t code = fibonacci(&f);
    *(int64_t *)output = f.result;
    return code;
}

static int32_t map_in_branch(void *ctx) {
    int64_t *outputs = ctx;
    return pb_parallel_map(join_in_task, NULL, 12, NULL, 0, outputs, sizeof *outputs, NULL);
}

TEST(joins_in_maps_in_joins) {
    static const int64_t expected[12] = {0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89};
    ON_EACH_PLACE(p) {
        const pb_scope scope = open_scope(p->backend, p->n_jobs);
        int64_t a[12], b[12];
        CHECK_OK(pb_join(map_in_branch, a, map_in_branch, b));
        CHECK_INT(0, memcmp(expected, a, sizeof a));
        CHECK_INT(0, memcmp(expected, b, sizeof b));
        close_scope(scope);
    }
}

/* ---- locks ---- */

static struct {
    pthread_mutex_t lock;
    counter b_begun, q_begun, b1_begun, a_over;
} held = {PTHREAD_MUTEX_INITIALIZER, COUNTER, COUNTER, COUNTER, COUNTER};

static int32_t wait_for_q(void *unused) {
    (void)unused;
    return counter_wait(&held.q_begun, 1) ? 0 : 1;
}

/* Ends a while after the other worker's branch that wants the lock has become free for anybody. */
static int32_t be_q(void *unused) {
    (void)unused;
    counter_raise(&held.q_begun);
    const int begun = counter_wait(&held.b1_begun, 1);
    for (int i = 0; i < 1000; i++)
        sched_yield();
    return begun ? 0 : 1;
}

static int32_t join_under_the_lock(void *unused) {
    const int begun = counter_wait(&held.b_begun, 1);
    pthread_mutex_lock(&held.lock);
    const int32_t code = pb_join(wait_for_q, unused, be_q, unused);
    pthread_mutex_unlock(&held.lock);
    counter_raise(&held.a_over);
    return begun ? code : 1;
}

static int32_t wait_for_a(void *unused) {
    (void)unused;
    counter_raise(&held.b1_begun);
    return counter_wait(&held.a_over, 1) ? 0 : 1;
}

static int32_t want_the_lock(void *unused) {
    (void)unused;
    pthread_mutex_lock(&held.lock);
    pthread_mutex_unlock(&held.lock);
    return 0;
}

static int32_t fork_who_wants_the_lock(void *unused) {
    counter_raise(&held.b_begun);
    const int begun = counter_wait(&held.q_begun, 1);
    return begun ? pb_join(wait_for_a, unused, want_the_lock, unused) : 1;
}

/* One worker holds the lock and waits for a branch that a second one has taken; a third one offers a branch
 * that wants the lock. If the first one took it, it would wait for itself. */
TEST(who_waits_inside_a_lock_takes_no_unrelated_branch) {
    const pb_scope scope = open_scope("threading", 3);
    CHECK_OK(pb_join(join_under_the_lock, NULL, fork_who_wants_the_lock, NULL));
    close_scope(scope);
}

int main(void) {
    forget_environment();
    RUN(a_recursion_gives_what_it_gives_without_pb);
    RUN(a_chain_may_be_long);
    RUN(sequential_runs_a_and_then_b_on_the_caller);
    RUN(two_workers_run_the_branches_at_the_same_time);
    RUN(four_workers_run_four_leaves_at_the_same_time);
    RUN(never_more_threads_than_n_jobs_at_any_depth);
    RUN(branches_see_what_a_maps_tasks_see);
    RUN(one_worker_changes_nothing_around_its_branches);
    RUN(a_scope_in_a_branch_is_respected);
    RUN(scopes_left_open_end_with_the_branch);
    RUN(joins_in_maps_in_joins);
    RUN(who_waits_inside_a_lock_takes_no_unrelated_branch);
    CHECK_OK(pb_shutdown());
    return check_result();
}
