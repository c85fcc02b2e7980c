/* A process forks a thousand times while its threads are everywhere in the library: in maps, nested maps,
 * submitted jobs, recursions, scopes, limits, phases, in threads that start and end. Each child uses all of
 * it anew. */
#include "child.h"
#include "fibonacci.h"
#include "scopes.h"

static int32_t square(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    *(int64_t *)output = *(const int64_t *)input * *(const int64_t *)input;
    return 0;
}

enum { N = 40 };

static const int64_t *numbers(void) {
    static int64_t inputs[N];
    for (int i = 0; i < N; i++)
        __atomic_store_n(&inputs[i], i, __ATOMIC_RELAXED);
    return inputs;
}

static void check_squares(const int64_t *outputs) {
    for (int64_t i = 0; i < N; i++)
        CHECK_INT(i * i, outputs[i]);
}

static void map(void) {
    int64_t outputs[N] = {0};
    CHECK_OK(pb_parallel_map(square, NULL, N, numbers(), sizeof(int64_t), outputs, sizeof *outputs, NULL));
    check_squares(outputs);
}

static int32_t map_inside(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    map();
    return 0;
}

static void nested_map(void) { CHECK_OK(map_on(3, map_inside, NULL, 6)); }

static void submitted_map(void) {
    int64_t outputs[N] = {0};
    pb_job *job = NULL;
    const pb_status status =
        pb_submit_map(square, NULL, N, numbers(), sizeof(int64_t), outputs, sizeof *outputs, NULL, &job);
    CHECK_STATUS(status, PB_OK);
    CHECK_OK(pb_job_wait(job, -1));
    check_squares(outputs);
    pb_job_free(job);
}

static void recursion(void) { check_fibonacci(12, 144); }

static void scopes_and_limits(void) {
    pb_scope limit = 0, phase = 0;
    const pb_scope scope = open_scope("threading", 2);
    CHECK_OK(pb_push_thread_limit(1, PB_API_ALL, &limit));
    CHECK_OK(pb_phase_begin(2, &phase));
    CHECK_OK(pb_set_default_backend("threading", 3, 0, NULL));
    map();
    CHECK_OK(pb_phase_end(phase));
    CHECK_OK(pb_pop_thread_limit(limit));
    close_scope(scope);
}

static void shutdown(void) { CHECK_OK(pb_shutdown()); }

/* ---- the parent's threads ---- */

static void (*const trades[])(void) = {nested_map, submitted_map, recursion, scopes_and_limits, shutdown};
enum { TRADES = sizeof trades / sizeof *trades };
static int stop;

static int stopped(void) { return __atomic_load_n(&stop, __ATOMIC_RELAXED); }

static void *ply(void *trade) {
    while (!stopped()) {
        (*(void (*const *)(void))trade)();
        sched_yield(); /* leaves the CPU to children, too */
    }
    return NULL;
}

/* ---- the children ---- */

static void live_as_child(int number, int generation);

static void fork_once(int number, int generation) {
    const pid_t child = fork();
    if (child != 0) {
        await(child);
        return;
    }
    alarm(generation == 1 ? 40 : 30);
    live_as_child(number, generation);
    _exit(0);
}

static void live_as_child(int number, int generation) {
    CHECK_INT(1, count_threads());
    /* Each begins with something else: what comes first meets the library as the fork has left it. */
    for (int i = 0; i < TRADES - 1; i++)
        trades[(number + i) % (TRADES - 1)]();
    if (number % 10 == 0 && generation == 1)
        fork_once(number / 10, 2);
    if (number % 3 == 0) {
        shutdown();
        map();
    }
}

static int count_files(void) {
    DIR *files = opendir("/proc/self/fd");
    CHECK(files != NULL);
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(files)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(files);
    return count;
}

TEST(a_thousand_forks_in_the_middle_of_everything) {
    pthread_t threads[TRADES];
    const int files = count_files();
    for (int i = 0; i < TRADES; i++)
        CHECK_INT(0, pthread_create(&threads[i], NULL, ply, (void *)&trades[i]));
    for (int i = times(1000, 15); i > 0; i--)
        fork_once(i, 1);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < TRADES; i++)
        CHECK_INT(0, pthread_join(threads[i], NULL));
    shutdown();
    check_only_one_thread_is_left();
    CHECK_INT(files, count_files());
}

int main(void) {
    forget_environment();
    const pb_scope scope = open_scope("threading", 3);
    RUN(a_thousand_forks_in_the_middle_of_everything);
    close_scope(scope);
    CHECK_OK(pb_shutdown());
    return check_result();
}
