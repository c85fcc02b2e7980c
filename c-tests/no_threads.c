/* A process that may start no thread (RLIMIT_NPROC): what can be done by the calling thread is done by it,
 * the rest says what it lacks, and once the limit is lifted all is as usual. */
#include "child.h"
#include "fibonacci.h"
#include "meet.h"

#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>

enum { NOBODY = 65534 };

static rlim_t usual_limit;

static void set_limit(rlim_t processes) {
    struct rlimit limit;
    CHECK_INT(0, getrlimit(RLIMIT_NPROC, &limit));
    limit.rlim_cur = processes;
    CHECK_INT(0, setrlimit(RLIMIT_NPROC, &limit));
}

static void *do_nothing(void *unused) { return unused; }

/* The test's own means: without them the rest would show nothing. */
static int can_start_a_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, do_nothing, NULL) != 0)
        return 0;
    CHECK_INT(0, pthread_join(thread, NULL));
    return 1;
}

static void forbid_threads(void) {
    set_limit(0);
    CHECK(!can_start_a_thread());
}

static void allow_threads(void) {
    set_limit(usual_limit);
    CHECK(can_start_a_thread());
}

static int32_t note_thread(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(pthread_t *)output = pthread_self();
    return 0;
}

static void map_on_the_caller_alone(void) {
    pthread_t threads[20] = {0};
    CHECK_OK(pb_parallel_map(note_thread, NULL, 20, NULL, 0, threads, sizeof *threads, NULL));
    for (int i = 0; i < 20; i++)
        CHECK(pthread_equal(threads[i], pthread_self()));
}

static void recursion(void) { check_fibonacci(12, 144); }

static void submission_says_why_not(void) {
    pthread_t threads[20];
    pb_job *job = NULL;
    CHECK_STATUS(pb_submit_map(note_thread, NULL, 20, NULL, 0, threads, sizeof *threads, NULL, &job),
                 PB_ERR_BACKEND_UNAVAILABLE);
    CHECK_TEXT("refuses to start a thread");
    CHECK_TEXT("pb_parallel_map works without one");
    CHECK(job == NULL);
}

static void phase_with_nobody_in_it(void) {
    pb_scope phase = 0;
    CHECK_OK(pb_phase_begin(3, &phase));
    map_on_the_caller_alone();
    CHECK_OK(pb_phase_end(phase));
}

static void submission_works(void) {
    pthread_t threads[20] = {0};
    pb_job *job = NULL;
    CHECK_OK(pb_submit_map(note_thread, NULL, 20, NULL, 0, threads, sizeof *threads, NULL, &job));
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
    for (int i = 0; i < 20; i++)
        CHECK(!pthread_equal(threads[i], 0));
}

static void without_threads_and_with(void) {
    for (int i = 0; i < 3; i++) {
        forbid_threads();
        map_on_the_caller_alone();
        submission_says_why_not();
        recursion();
        phase_with_nobody_in_it();
        check_only_one_thread_is_left();
        allow_threads();
        map_with_two_threads();
        submission_works();
        recursion();
        forbid_threads();
        map_with_two_threads(); /* by the thread that there is */
        submission_works();
        CHECK_OK(pb_shutdown());
    }
}

/* The limit does not hold for root. */
static void become_an_ordinary_user(void) {
    if (geteuid() == 0) {
        CHECK_INT(0, setgroups(0, NULL));
        CHECK_INT(0, setgid(NOBODY));
        CHECK_INT(0, setuid(NOBODY));
        CHECK_INT(0, prctl(PR_SET_DUMPABLE, 1)); /* else /proc/self stays root's */
    }
    struct rlimit limit;
    CHECK_INT(0, getrlimit(RLIMIT_NPROC, &limit));
    usual_limit = limit.rlim_cur;
}

static void live_as_an_ordinary_user(void) {
    become_an_ordinary_user();
    without_threads_and_with();
}

TEST(a_process_that_may_start_no_thread) { in_child(live_as_an_ordinary_user); }

int main(void) {
    forget_environment();
    CHECK_INT(0, pthread_barrier_init(&both, NULL, 2));
    const pb_scope scope = open_scope("threading", 3);
    RUN(a_process_that_may_start_no_thread);
    close_scope(scope);
    pthread_barrier_destroy(&both);
    CHECK_OK(pb_shutdown());
    return check_result();
}
