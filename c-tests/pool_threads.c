/* What a task finds on a pool thread: a name, blocked signals, and the caller's floating-point mode. */
#include "sync.h"

#include <fenv.h>
#include <signal.h>
#include <unistd.h>
#ifdef __x86_64__
#include <pmmintrin.h>
#include <xmmintrin.h>
#endif

#define WORKERS 4

static pthread_t caller;
static int is_caller(void) { return pthread_equal(caller, pthread_self()); }

/* As many tasks as workers, which meet, so that each is on a worker of its own. */
typedef struct meeting {
    counter here;
    void (*look)(void);
} meeting;

static int32_t meet(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    meeting *m = ctx;
    counter_raise(&m->here);
    CHECK(counter_wait(&m->here, WORKERS));
    m->look();
    return 0;
}

static void on_every_worker(void (*look)(void)) {
    meeting m = {COUNTER, look};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = WORKERS, .flags = PB_PREFER_THREADS};
    CHECK_OK(pb_parallel_map(meet, &m, WORKERS, NULL, 0, NULL, 0, &options));
}

static void check_name(void) {
    char name[16];
    CHECK_INT(0, pthread_getname_np(pthread_self(), name, sizeof name));
    if (!is_caller())
        CHECK(strncmp(name, "pb-", 3) == 0);
}

TEST(pool_threads_have_names) { on_every_worker(check_name); }

static int is_blocked(int signal) {
    sigset_t mask;
    CHECK_INT(0, pthread_sigmask(SIG_BLOCK, NULL, &mask));
    return sigismember(&mask, signal);
}

static void check_signals(void) {
    const int process[] = {SIGUSR1, SIGUSR2, SIGINT, SIGTERM, SIGCHLD, SIGALRM, SIGPIPE, SIGHUP};
    for (size_t i = 0; i < sizeof process / sizeof *process; i++)
        CHECK_INT(!is_caller(), is_blocked(process[i]));
    const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGPROF};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        CHECK_INT(0, is_blocked(own[i]));
}

TEST(signals_are_blocked_but_for_those_that_a_thread_causes_itself) {
    on_every_worker(check_signals);
    CHECK_INT(0, is_blocked(SIGUSR1));
}

static volatile sig_atomic_t handled_by_caller, handled_elsewhere;
static void handle(int signal) {
    (void)signal;
    if (is_caller())
        handled_by_caller++;
    else
        handled_elsewhere++;
}

static int32_t signal_the_process(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    counter_raise(ctx);
    CHECK(counter_wait(ctx, WORKERS));
    if (is_caller())
        return 0; /* waits for the others now */
    const sig_atomic_t before = handled_by_caller;
    CHECK_INT(0, kill(getpid(), SIGUSR1));
    const double end = seconds() + PATIENCE;
    while (handled_by_caller == before)
        REQUIRE(seconds() < end && handled_elsewhere == 0);
    return 0;
}

TEST(a_signal_to_the_process_is_handled_by_a_thread_of_the_program) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    CHECK_INT(0, sigaction(SIGUSR1, &action, NULL));
    counter here = COUNTER;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = WORKERS};
    CHECK_OK(pb_parallel_map(signal_the_process, &here, WORKERS, NULL, 0, NULL, 0, &options));
    CHECK(handled_by_caller > 0);
    CHECK_INT(0, handled_elsewhere);
}

/* The quotient is rounded when it is computed, not by the compiler. */
static double third(void) {
    volatile double one = 1, three = 3;
    return one / three;
}

static int expected_mode;
static double expected_third;

static void expect_mode(int mode) {
    CHECK_INT(0, fesetround(mode));
    expected_mode = mode;
    expected_third = third();
}

static void check_mode(void) {
    CHECK_INT(expected_mode, fegetround());
    CHECK(third() == expected_third);
}

TEST(every_worker_rounds_as_the_caller_does) {
    const int modes[] = {FE_UPWARD, FE_TOWARDZERO, FE_TONEAREST};
    double thirds[3];
    for (size_t i = 0; i < 3; i++) {
        expect_mode(modes[i]);
        thirds[i] = expected_third;
        on_every_worker(check_mode);
        check_mode();
    }
    if (getenv("PB_TEST_VALGRIND") == NULL) /* whose processor rounds to nearest */
        CHECK(thirds[0] > thirds[1]);
}

static void round_upward(void) { CHECK_INT(0, fesetround(FE_UPWARD)); }

TEST(a_task_that_changes_the_mode_changes_it_for_no_other_map) {
    expect_mode(FE_TONEAREST);
    on_every_worker(round_upward);
    check_mode();
    on_every_worker(check_mode);
}

static void nest(void) {
    CHECK_INT(0, fesetround(FE_UPWARD));
    on_every_worker(check_mode);
    check_mode();
}

TEST(a_map_inside_a_task_has_the_mode_of_that_task) {
    expect_mode(FE_UPWARD);
    CHECK_INT(0, fesetround(FE_TONEAREST));
    on_every_worker(nest);
    CHECK_INT(FE_TONEAREST, fegetround());
}

TEST(a_submitted_map_has_the_mode_of_when_it_was_submitted) {
    meeting m = {COUNTER, check_mode};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = WORKERS};
    pb_job *job;
    expect_mode(FE_UPWARD);
    CHECK_OK(pb_submit_map(meet, &m, WORKERS, NULL, 0, NULL, 0, &options, &job));
    CHECK_INT(0, fesetround(FE_TONEAREST));
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
}

#ifdef __x86_64__
static unsigned int expected_flush, expected_denormals;

static void check_denormals(void) {
    CHECK_INT(expected_flush, _MM_GET_FLUSH_ZERO_MODE());
    CHECK_INT(expected_denormals, _MM_GET_DENORMALS_ZERO_MODE());
}

static void set_denormals(unsigned int flush, unsigned int denormals) {
    _MM_SET_FLUSH_ZERO_MODE(flush);
    _MM_SET_DENORMALS_ZERO_MODE(denormals);
    /* what there is: memcheck's processor has no such mode */
    expected_flush = _MM_GET_FLUSH_ZERO_MODE();
    expected_denormals = _MM_GET_DENORMALS_ZERO_MODE();
}

TEST(denormals_are_zero_on_every_worker_if_they_are_for_the_caller) {
    set_denormals(_MM_FLUSH_ZERO_ON, _MM_DENORMALS_ZERO_ON);
    on_every_worker(check_denormals);
    set_denormals(_MM_FLUSH_ZERO_OFF, _MM_DENORMALS_ZERO_OFF);
    on_every_worker(check_denormals);
}

static int expected_traps;
static void check_traps(void) {
    CHECK_INT(expected_traps, fegetexcept());
    volatile long double one = 1; /* x87 would report here what it has put off */
    CHECK(one + one == 2);
}

static void raise_flags(void) { CHECK_INT(0, feraiseexcept(FE_DIVBYZERO | FE_INEXACT)); }

TEST(exceptions_that_trap_in_the_caller_trap_in_workers_and_old_flags_do_not) {
    CHECK_OK(pb_shutdown()); /* from here on there are as many threads as workers: the same in each map */
    on_every_worker(raise_flags);
    CHECK_INT(0, feclearexcept(FE_ALL_EXCEPT));
    feenableexcept(FE_DIVBYZERO | FE_INEXACT);
    expected_traps = fegetexcept();
    on_every_worker(check_traps);
    fedisableexcept(FE_ALL_EXCEPT);
    expected_traps = 0;
    on_every_worker(check_traps);
}
#endif

int main(void) {
    caller = pthread_self();
    RUN(pool_threads_have_names);
    RUN(signals_are_blocked_but_for_those_that_a_thread_causes_itself);
    RUN(a_signal_to_the_process_is_handled_by_a_thread_of_the_program);
    RUN(every_worker_rounds_as_the_caller_does);
    RUN(a_task_that_changes_the_mode_changes_it_for_no_other_map);
    RUN(a_map_inside_a_task_has_the_mode_of_that_task);
    RUN(a_submitted_map_has_the_mode_of_when_it_was_submitted);
#ifdef __x86_64__
    RUN(denormals_are_zero_on_every_worker_if_they_are_for_the_caller);
    RUN(exceptions_that_trap_in_the_caller_trap_in_workers_and_old_flags_do_not);
#endif
    CHECK_OK(pb_shutdown());
    return check_result();
}
