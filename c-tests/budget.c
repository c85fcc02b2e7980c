/* The budget of nested maps: a task owns an exact share of its parent's CPUs, and "all CPUs" means those.
 *
 * This program pretends to run on 16 CPUs: it answers the library's questions in libc's place. Only a quota
 * of the cgroup can lower that, so the tests start from pb_cpu_count(). */
#include "scopes.h"

#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

#define PRETENDED_CPUS 16

int sched_getaffinity(pid_t thread, size_t size, cpu_set_t *mask) {
    (void)thread;
    CPU_ZERO_S(size, mask);
    for (size_t cpu = 0; cpu < PRETENDED_CPUS; cpu++)
        CPU_SET_S(cpu, size, mask);
    return 0;
}

long sysconf(int name) {
    long (*of_libc)(int);
    *(void **)&of_libc = dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_NPROCESSORS_ONLN ? PRETENDED_CPUS : of_libc(name);
}

/* The share of worker `worker`: the first ones get the odd CPUs, nobody gets none. */
static int32_t share_of(int32_t cpus, int32_t workers, int32_t worker) {
    const int32_t share = cpus / workers + (worker < cpus % workers);
    return share > 1 ? share : 1;
}

#define MOST_WORKERS 20

struct shares {
    int32_t workers, cpus;
    int32_t seen[MOST_WORKERS];
    pthread_barrier_t all_at_once; /* so that every worker runs exactly one item */
};

static int32_t see_share(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    struct shares *shares = ctx;
    pthread_barrier_wait(&shares->all_at_once);
    const int32_t worker = pb_worker_index();
    CHECK(worker >= 0 && worker < shares->workers);
    const int32_t share = pb_effective_n_jobs(-1);
    CHECK_INT(share_of(shares->cpus, shares->workers, worker), share);
    CHECK_INT(share, pb_effective_n_jobs(0));
    CHECK_INT(share > 1 ? share - 1 : 1, pb_effective_n_jobs(-2));
    CHECK_INT(0, shares->seen[worker]); /* nobody else has this index now */
    shares->seen[worker] = share;
    return 0;
}

/* The shares of a map's workers, with `cpus` to be divided, sum to the whole. */
static void check_shares(int32_t workers, int32_t cpus) {
    struct shares shares = {.workers = workers, .cpus = cpus};
    CHECK_INT(0, pthread_barrier_init(&shares.all_at_once, NULL, (unsigned)workers));
    CHECK_OK(map_on(workers, see_share, &shares, (size_t)workers));
    pthread_barrier_destroy(&shares.all_at_once);
    int32_t sum = 0;
    for (int32_t worker = 0; worker < workers; worker++)
        sum += shares.seen[worker];
    CHECK_INT(cpus > workers ? cpus : workers, sum);
}

/* joblib gives each nested -1 the whole machine again. */
TEST(the_shares_of_the_workers_sum_to_the_whole) {
    const int32_t cpus = pb_cpu_count(0);
    CHECK(cpus >= 1 && cpus <= PRETENDED_CPUS);
    for (int32_t workers = 2; workers <= MOST_WORKERS; workers++)
        check_shares(workers, cpus);
}

TEST(a_lowered_cpu_count_is_what_is_divided) {
    const int32_t cpus = pb_cpu_count(0);
    for (int32_t limit = 1; limit <= 18; limit++) {
        char text[16];
        snprintf(text, sizeof text, "%d", limit);
        CHECK_INT(0, setenv("PB_MAX_CPU_COUNT", text, 1));
        check_shares(3, limit < cpus ? limit : cpus);
    }
    CHECK_INT(0, unsetenv("PB_MAX_CPU_COUNT"));
}

static int32_t see_whole_share(void *cpus, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    CHECK_INT(*(int32_t *)cpus, pb_effective_n_jobs(-1));
    return 0;
}

TEST(what_too_few_items_leave_idle_goes_to_those_that_run) {
    int32_t cpus = pb_cpu_count(0);
    CHECK_OK(map_on(4, see_whole_share, &cpus, 1));
}

TEST(a_sequential_map_hands_the_whole_share_on) {
    int32_t cpus = pb_cpu_count(0);
    CHECK_OK(map_on(1, see_whole_share, &cpus, 4));
    const pb_scope scope = open_scope("sequential", 4);
    int32_t one = 1; /* whatever the share: sequential is still the backend in force */
    CHECK_OK(map_on(0, see_whole_share, &one, 4));
    close_scope(scope);
}

static int32_t ask_for_more(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    CHECK_INT(7, pb_effective_n_jobs(7));
    const pb_scope scope = open_scope("threading", 6);
    CHECK_INT(6, pb_effective_n_jobs(0));
    close_scope(scope);
    return 0;
}

TEST(a_positive_number_is_honoured_beyond_the_share) { CHECK_OK(map_on(3, ask_for_more, NULL, 3)); }

/* Two levels of two workers each: what the second one divides. */
static int32_t divide_again(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    CHECK_INT(share_of(*(int32_t *)ctx, 2, pb_worker_index()), pb_effective_n_jobs(-1));
    return 0;
}

static int32_t check_two_levels(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    int32_t share = pb_effective_n_jobs(-1);
    const pb_scope scope = open_scope("threading", -1);
    CHECK_INT(share, pb_effective_n_jobs(0));
    close_scope(scope);
    return 0;
}

TEST(all_cpus_of_a_scope_inside_a_task_are_its_share) { CHECK_OK(map_on(2, check_two_levels, NULL, 4)); }

static int32_t check_level_two(void *share, size_t index, const void *input, void *output) {
    CHECK_INT(2, pb_nesting_level());
    CHECK_STR("sequential", pb_current_backend());
    CHECK_INT(1, pb_effective_n_jobs(0));
    CHECK_INT(1, pb_effective_n_jobs(8)); /* as joblib: the only brake of its own is here */
    const pb_scope scope = open_scope("threading", -1);
    divide_again(share, index, input, output);
    close_scope(scope);
    return 0;
}

static int32_t nest_two_workers(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    int32_t share = pb_effective_n_jobs(-1);
    CHECK_OK(map_on(2, check_level_two, &share, 4));
    return 0;
}

TEST(level_two_defaults_to_sequential_and_owns_a_share_of_the_share) {
    CHECK_OK(map_on(2, nest_two_workers, NULL, 4));
}

/* Counts how many tasks run at the same time. */
struct crowd {
    int now, most;
};

static int32_t join_the_crowd(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    struct crowd *crowd = ctx;
    const int now = __atomic_add_fetch(&crowd->now, 1, __ATOMIC_SEQ_CST);
    int most = __atomic_load_n(&crowd->most, __ATOMIC_SEQ_CST);
    while (now > most &&
           !__atomic_compare_exchange_n(&crowd->most, &most, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    sched_yield();
    __atomic_sub_fetch(&crowd->now, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static int32_t nest_by_default(void *crowd, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    return map_on(0, join_the_crowd, crowd, 50);
}

/* joblib#1824: 6 outer times 12 inner workers ran 72 threads on 12 CPUs. */
TEST(nested_maps_that_ask_for_nothing_never_run_more_tasks_than_cpus) {
    const int32_t cpus = pb_cpu_count(0);
    for (int32_t workers = 1; workers <= PRETENDED_CPUS; workers++) {
        struct crowd crowd = {0, 0};
        CHECK_OK(map_on(workers, nest_by_default, &crowd, 20));
        CHECK(crowd.most >= 1);
        CHECK(crowd.most <= (cpus > workers ? cpus : workers));
    }
}

int main(void) {
    forget_environment();
    RUN(the_shares_of_the_workers_sum_to_the_whole);
    RUN(a_lowered_cpu_count_is_what_is_divided);
    RUN(what_too_few_items_leave_idle_goes_to_those_that_run);
    RUN(a_sequential_map_hands_the_whole_share_on);
    RUN(a_positive_number_is_honoured_beyond_the_share);
    RUN(all_cpus_of_a_scope_inside_a_task_are_its_share);
    RUN(level_two_defaults_to_sequential_and_owns_a_share_of_the_share);
    RUN(nested_maps_that_ask_for_nothing_never_run_more_tasks_than_cpus);
    CHECK_OK(pb_shutdown());
    return check_result();
}
