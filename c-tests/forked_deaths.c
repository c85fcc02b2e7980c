/* Workers of "multiprocessing" that die: the item is named, others keep their results, the next map works.
 * joblib: loky/tests/_test_process_executor.py, test_reusable_executor.py (crashes, killed_child,
 * exited_child) */
#include "forked.h"

enum { N = 40 };

typedef enum death { SEGV, ABORT, EXIT_3, EXIT_0, TERM, KILL, NO_MEMORY, DEATHS } death;

static void die(death how) {
    if (how == SEGV)
        *(volatile int *)8 = 1;
    if (how == ABORT)
        abort();
    if (how == EXIT_3)
        exit(3);
    if (how == EXIT_0)
        _exit(0);
    if (how == TERM)
        raise(SIGTERM);
    if (how == KILL)
        raise(SIGKILL);
    /* Out of memory, as a C++ program is: an allocation fails, and nobody catches it. */
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_AS, &none);
    if (malloc(64 << 20) == NULL)
        abort();
}

typedef struct plan {
    size_t index; /* the item that dies */
    death how;
    int times;  /* how often */
    int *count; /* how often each item was started: shared */
} plan;

static int32_t die_at(void *ctx, size_t index, const void *input, void *output) {
    const plan *p = ctx;
    const int started = p->count != NULL ? raise_by_1(&p->count[index]) : 1;
    if (index == p->index && started <= p->times)
        die(p->how);
    return square(ctx, index, input, output);
}

static const struct {
    int32_t exit_code, signal;
    const char *text;
} fates[DEATHS] = {
    [SEGV] = {-1, SIGSEGV, "SIGSEGV"},       [ABORT] = {-1, SIGABRT, "SIGABRT"},
    [EXIT_3] = {3, 0, "exited with code 3"}, [EXIT_0] = {0, 0, "exited with code 0"},
    [TERM] = {-1, SIGTERM, "SIGTERM"},       [KILL] = {-1, SIGKILL, "SIGKILL"},
    [NO_MEMORY] = {-1, SIGABRT, "SIGABRT"},
};

TEST(a_death_names_its_item_with_the_exit_code_or_signal) {
    for (death how = SEGV; how < DEATHS; how++) {
        plan p = {7, how, 1, NULL};
        int32_t outputs[N], statuses[N];
        pb_map_options options = {.struct_size = sizeof options, .statuses = statuses};
        CHECK_STATUS(map_forked(2, die_at, &p, N, outputs, &options), PB_ERR_WORKER_LOST);
        CHECK_TEXT("item 7");
        CHECK_TEXT(fates[how].text);
        const pb_error_info info = last_info();
        CHECK_INT(PB_ERR_WORKER_LOST, info.status);
        CHECK_INT(7, info.task_index);
        CHECK_INT(fates[how].exit_code, info.exit_code);
        CHECK_INT(fates[how].signal, info.signal);
        CHECK_INT(1, info.attempts);
        for (int i = 0; i < N; i++) {
            if (i == 7)
                CHECK_INT(PB_ERR_WORKER_LOST, statuses[i]);
            else
                CHECK(statuses[i] == PB_ERR_CANCELLED || (statuses[i] == 0 && outputs[i] == i * i));
        }
        check_it_works();
    }
}

TEST(where_errors_are_collected_only_the_item_is_lost) {
    for (size_t batch_size = 0; batch_size <= N; batch_size += N / 2) {
        plan p = {7, SEGV, 1, NULL};
        int32_t outputs[N], statuses[N];
        pb_map_options options = {.struct_size = sizeof options,
                                  .statuses = statuses,
                                  .flags = PB_COLLECT_ERRORS,
                                  .batch_size = batch_size};
        CHECK_STATUS(map_forked(2, die_at, &p, N, outputs, &options), PB_ERR_TASK_FAILED);
        CHECK_TEXT("SIGSEGV");
        for (int i = 0; i < N; i++) {
            CHECK_INT(i == 7 ? PB_ERR_WORKER_LOST : 0, statuses[i]);
            if (i != 7)
                CHECK_INT(i * i, outputs[i]);
        }
    }
    check_it_works();
}

static int32_t always_die(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    _exit((int)index);
}

TEST(every_worker_may_die_in_every_item) {
    int32_t outputs[N], statuses[N];
    pb_map_options options = {
        .struct_size = sizeof options, .statuses = statuses, .flags = PB_COLLECT_ERRORS};
    CHECK_STATUS(map_forked(3, always_die, NULL, N, outputs, &options), PB_ERR_TASK_FAILED);
    CHECK_TEXT("40 of 40 items failed");
    for (int i = 0; i < N; i++)
        CHECK_INT(PB_ERR_WORKER_LOST, statuses[i]);
    check_it_works();
}

TEST(a_lost_item_is_tried_again_as_often_as_asked) {
    int *count = shared(N * sizeof *count);
    for (uint32_t retries = 0; retries < 4; retries++)
        for (size_t batch_size = 0; batch_size <= N; batch_size += N) {
            memset(count, 0, N * sizeof *count);
            plan p = {11, KILL, 2, count};
            int32_t outputs[N];
            pb_map_options options = {
                .struct_size = sizeof options, .retries = retries, .batch_size = batch_size};
            const pb_status status = map_forked(2, die_at, &p, N, outputs, &options);
            CHECK_INT(retries < 2 ? PB_ERR_WORKER_LOST : PB_OK, status);
            CHECK_INT(retries < 2 ? retries + 1 : 3, count[11]);
            if (retries < 2) {
                CHECK_INT(retries + 1, last_info().attempts);
            } else {
                for (int i = 0; i < N; i++) {
                    CHECK_INT(i * i, outputs[i]);
                    if (i != 11)
                        CHECK_INT(1, count[i]); /* innocent items are not run twice */
                }
            }
        }
    CHECK_TEXT("after 2 attempts");
    pb_free_shared(count);
    check_it_works();
}

TEST(what_must_not_run_twice_does_not) {
    int *count = shared(N * sizeof *count);
    plan p = {11, SEGV, 1, count};
    int32_t outputs[N], statuses[N];
    pb_map_options options = {.struct_size = sizeof options,
                              .statuses = statuses,
                              .retries = 5,
                              .flags = PB_NON_IDEMPOTENT | PB_COLLECT_ERRORS,
                              .batch_size = N / 2};
    CHECK_STATUS(map_forked(2, die_at, &p, N, outputs, &options), PB_ERR_TASK_FAILED);
    for (int i = 0; i < N; i++) {
        CHECK_INT(1, count[i]);
        CHECK_INT(i == 11 ? PB_ERR_WORKER_LOST : 0, statuses[i]);
    }
    pb_free_shared(count);
    check_it_works();
}

/* joblib: loky test_crash_races: workers that kill each other, 1, 2, 5, 13 of them. */
typedef struct arena {
    int count;
    int pids[64];
} arena;

static int32_t kill_another(void *ctx, size_t index, const void *input, void *output) {
    arena *a = ctx;
    const int mine = raise_by_1(&a->count) - 1;
    store(&a->pids[mine % 64], (int)getpid());
    const int other = look_at(&a->pids[(mine * 7 + 3) % 64]);
    /* A pid of an earlier victim may be gone; it is not given anew while its parent has other things to do.
     */
    if (other != 0 && other != getpid() && index % 3 == 0)
        kill(other, SIGKILL);
    return square(ctx, index, input, output);
}

TEST(workers_that_kill_each_other_end_in_results_or_an_error) {
    static const int32_t crowds[] = {1, 2, 5, 13};
    for (size_t c = 0; c < 4; c++) {
        arena *a = shared(sizeof *a);
        int32_t outputs[N], statuses[N];
        pb_map_options options = {.struct_size = sizeof options,
                                  .statuses = statuses,
                                  .retries = 2,
                                  .flags = PB_COLLECT_ERRORS,
                                  .batch_size = 1};
        const pb_status status = map_forked(crowds[c], kill_another, a, N, outputs, &options);
        CHECK(status == PB_OK || status == PB_ERR_TASK_FAILED);
        for (int i = 0; i < N; i++)
            CHECK(statuses[i] == PB_ERR_WORKER_LOST || (statuses[i] == 0 && outputs[i] == i * i));
        pb_free_shared(a);
        check_it_works();
    }
}

/* ---- killed from outside, at any moment of its life ---- */

static int over;

/* Kills a child of this process, whichever comes first, again and again. */
static void *kill_children(void *main_thread) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", *(int *)main_thread);
    for (unsigned i = 0; !look_at(&over); i++) {
        FILE *list = fopen(path, "r");
        int pid = 0;
        if (list != NULL) {
            if (fscanf(list, "%d", &pid) != 1)
                pid = 0;
            fclose(list);
        }
        if (pid > 0)
            kill(pid, SIGKILL);
        work_for(1e-4 * (i % 13));
    }
    return main_thread;
}

static int32_t take_a_moment(void *ctx, size_t index, const void *input, void *output) {
    work_for(1e-5 * (double)(index % 5));
    return square(ctx, index, input, output);
}

/* Each item counts once, however often its end was told. */
static int32_t count_once(void *last, size_t done, size_t failed, size_t total, double elapsed) {
    (void)elapsed;
    CHECK_INT(0, failed);
    CHECK(done <= total);
    *(size_t *)last = done;
    return 0;
}

TEST(workers_that_are_killed_at_any_moment_lose_nothing_that_is_tried_again) {
    enum { MANY = 2000 };
    static int32_t outputs[MANY];
    int main_thread = (int)getpid();
    pthread_t killer;
    CHECK_INT(0, pthread_create(&killer, NULL, kill_children, &main_thread));
    for (size_t round = rounds(30); round > 0; round--) {
        memset(outputs, 0xff, sizeof outputs);
        size_t done = 0;
        pb_map_options options = {.struct_size = sizeof options,
                                  .retries = 1000,
                                  .progress = round % 2 ? count_once : NULL,
                                  .progress_user = &done};
        const pb_status status = map_forked(3, take_a_moment, NULL, MANY, outputs, &options);
        if (status != PB_OK) { /* so many that died before they could begin */
            CHECK_INT(PB_ERR_WORKER_LOST, status);
            CHECK_TEXT("before they began an item");
            continue;
        }
        CHECK_INT(round % 2 ? MANY : 0, done);
        for (int i = 0; i < MANY; i++)
            CHECK_INT(i * i, outputs[i]);
    }
    store(&over, 1);
    CHECK_INT(0, pthread_join(killer, NULL));
    check_it_works();
}

int main(void) {
    RUN(a_death_names_its_item_with_the_exit_code_or_signal);
    RUN(where_errors_are_collected_only_the_item_is_lost);
    RUN(every_worker_may_die_in_every_item);
    RUN(a_lost_item_is_tried_again_as_often_as_asked);
    RUN(what_must_not_run_twice_does_not);
    RUN(workers_that_kill_each_other_end_in_results_or_an_error);
    RUN(workers_that_are_killed_at_any_moment_lose_nothing_that_is_tried_again);
    CHECK_OK(pb_shutdown());
    return check_result();
}
