/* Phases: threads stay awake between calls. What they did is read from the timeline, in which each sleep that
 * a thread has woken from is an event. */
#include "child.h"
#include "meet.h"
#include "trace_file.h"

#include <time.h>

static pb_scope begin_phase(int32_t max_workers) {
    pb_scope phase = 0;
    CHECK_OK(pb_phase_begin(max_workers, &phase));
    CHECK(phase != 0);
    return phase;
}

static void end_phase(pb_scope phase) { CHECK_OK(pb_phase_end(phase)); }

static int32_t do_nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

/* Much longer than any thread stays awake by itself. */
static void gap(void) {
    const struct timespec ten_ms = {0, 10 * 1000 * 1000};
    nanosleep(&ten_ms, NULL);
}

/* The number of the pool's first thread in a timeline; -1 where nothing is told of it. */
static long long first_thread(const struct trace *trace) {
    for (size_t i = 0; i < trace->n_events; i++)
        if (strstr(trace->events[i].line, "\"thread_name\"") && strstr(trace->events[i].line, "\"pb-0\""))
            return trace->events[i].tid;
    return -1;
}

/* How often the pool's first thread was woken from sleep while `work` ran. It is the one that a phase of two
 * workers keeps awake; where a call found it still busy with the one before, there may be others. */
static size_t wakes_during(void (*work)(void)) {
    CHECK_OK(pb_trace_start(in_folder("timeline.json")));
    work();
    CHECK_OK(pb_trace_stop());
    struct trace trace = read_trace(in_folder("timeline.json"));
    const long long thread = first_thread(&trace);
    size_t wakes = 0;
    for (size_t i = 0; i < trace.n_events; i++)
        wakes += strcmp(trace.events[i].category, "park") == 0 && trace.events[i].tid == thread;
    free_trace(&trace);
    return wakes;
}

/* A thread sleeps as soon as it gets the CPU: on a loaded machine that may be later than it should. */
static void check_sometimes_wakes_during(void (*work)(void)) {
    const time_t patience = time(NULL) + 30;
    while (wakes_during(work) == 0)
        CHECK(time(NULL) < patience);
}

static void check_never_wakes_during(void (*work)(void)) {
    work(); /* the thread may have been about to sleep when the phase began */
    CHECK_INT(0, wakes_during(work));
}

static void maps_with_gaps(void) {
    for (int i = times(10, 2); i > 0; i--) {
        map_with_two_threads();
        gap();
        map_with_two_threads();
    }
}

TEST(without_a_phase_threads_sleep_between_calls) { check_sometimes_wakes_during(maps_with_gaps); }

TEST(in_a_phase_they_do_not) {
    const pb_scope phase = begin_phase(2);
    check_never_wakes_during(maps_with_gaps);
    end_phase(phase);
}

TEST(after_it_they_do_again) {
    end_phase(begin_phase(2));
    check_sometimes_wakes_during(maps_with_gaps);
}

/* No map follows that could wake the thread which sleeps. */
static void sleep_and_begin(void) {
    map_with_two_threads();
    gap();
    const pb_scope phase = begin_phase(2);
    gap();
    end_phase(phase);
}

TEST(its_begin_wakes_threads) { check_sometimes_wakes_during(sleep_and_begin); }

/* spin_us is about threads that nobody wants awake. */
TEST(it_is_stronger_than_spin_us) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("threading", 2, 0, "spin_us=0", &scope));
    const pb_scope phase = begin_phase(2);
    check_never_wakes_during(maps_with_gaps);
    end_phase(phase);
    check_sometimes_wakes_during(maps_with_gaps);
    close_scope(scope);
    CHECK_OK(map_on(2, do_nothing, NULL, 2)); /* the pool goes by the last map's scope */
}

static void shut_down(void) {
    CHECK_OK(pb_shutdown());
    check_only_one_thread_is_left();
}

TEST(its_begin_starts_the_threads_that_are_missing_and_no_others) {
    shut_down();
    const pb_scope none = begin_phase(1);
    CHECK_INT(1, count_threads());
    const pb_scope outer = begin_phase(3);
    CHECK_INT(3, count_threads());
    for (int i = 0; i < 100; i++)
        end_phase(begin_phase(3));
    const pb_scope larger = begin_phase(5), smaller = begin_phase(2);
    CHECK_INT(5, count_threads());
    end_phase(none);
    end_phase(outer);
    end_phase(smaller);
    end_phase(larger);
}

TEST(zero_is_as_many_workers_as_a_map_would_have) {
    shut_down();
    const pb_scope scope = open_scope("threading", 4);
    const pb_scope phase = begin_phase(0);
    CHECK_INT(4, count_threads());
    end_phase(phase);
    close_scope(scope);
}

TEST(under_another_backend_it_keeps_no_thread) {
    shut_down();
    const pb_scope scope = open_scope("sequential", 4);
    const pb_scope phase = begin_phase(4);
    CHECK_INT(1, count_threads());
    end_phase(phase);
    close_scope(scope);
}

TEST(the_largest_open_one_counts_in_whatever_order_they_end) {
    const pb_scope first = begin_phase(2), second = begin_phase(1);
    check_never_wakes_during(maps_with_gaps);
    end_phase(begin_phase(2));
    check_never_wakes_during(maps_with_gaps);
    end_phase(first);
    check_sometimes_wakes_during(maps_with_gaps);
    end_phase(second);
}

static void *end_it(void *phase) {
    end_phase(*(pb_scope *)phase);
    return NULL;
}

TEST(it_may_end_on_another_thread_and_once) {
    pb_scope phase = begin_phase(2);
    on_another_thread(end_it, &phase);
    CHECK_STATUS(pb_phase_end(phase), PB_ERR_SCOPE);
    CHECK_TEXT("not open: it was ended already");
}

TEST(a_token_of_something_else_ends_nothing) {
    CHECK_STATUS(pb_phase_end(0), PB_ERR_SCOPE);
    CHECK_TEXT("0 is never a phase");
    const pb_scope scope = open_scope("threading", 2);
    const pb_scope phase = begin_phase(2);
    CHECK_STATUS(pb_phase_end(scope), PB_ERR_SCOPE);
    CHECK_STATUS(pb_pop_backend(phase), PB_ERR_SCOPE);
    close_scope(scope);
    end_phase(phase);
}

TEST(arguments_that_make_no_sense_begin_nothing) {
    CHECK_STATUS(pb_phase_begin(2, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("phase is NULL");
    pb_scope phase = 7;
    CHECK_INT(0, setenv("PB_N_JOBS", "many", 1));
    CHECK_STATUS(pb_phase_begin(0, &phase), PB_ERR_INVALID_ARGUMENT);
    CHECK_INT(0, unsetenv("PB_N_JOBS"));
    CHECK_INT(7, phase);
}

static int32_t phase_in_a_task(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    const pb_scope phase = begin_phase(3);
    CHECK_OK(map_on(3, do_nothing, NULL, 9));
    end_phase(phase);
    return 0;
}

TEST(a_task_may_have_one) {
    for (int i = times(20, 2); i > 0; i--)
        CHECK_OK(map_on(3, phase_in_a_task, NULL, 6));
}

TEST(shutdown_ends_threads_and_later_ones_stay_awake_again) {
    const pb_scope phase = begin_phase(2);
    map_with_two_threads();
    shut_down();
    check_never_wakes_during(maps_with_gaps);
    end_phase(phase);
}

static void *phases_until_stopped(void *stop) {
    while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED))
        end_phase(begin_phase(3));
    return NULL;
}

TEST(phases_may_come_and_go_during_calls) {
    pthread_t thread;
    int stop = 0;
    CHECK_INT(0, pthread_create(&thread, NULL, phases_until_stopped, &stop));
    for (int i = times(2000, 50); i > 0; i--) {
        CHECK_OK(map_on(3, do_nothing, NULL, 3));
        if (i % 100 == 0)
            CHECK_OK(pb_shutdown());
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    CHECK_INT(0, pthread_join(thread, NULL));
}

/* What a forked child finds. */
static void use_in_child(pb_scope of_parent) {
    CHECK_STATUS(pb_phase_end(of_parent), PB_ERR_SCOPE);
    CHECK_TEXT("a forked child has none of its parent's");
    CHECK_INT(1, count_threads());
    check_sometimes_wakes_during(maps_with_gaps);
    const pb_scope own = begin_phase(2);
    check_never_wakes_during(maps_with_gaps);
    end_phase(own);
}

TEST(a_forked_child_has_none) {
    const pb_scope phase = begin_phase(2);
    map_with_two_threads();
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        use_in_child(phase);
        _exit(0);
    }
    await(child);
    check_never_wakes_during(maps_with_gaps);
    end_phase(phase);
}

int main(void) {
    forget_environment();
    make_folder();
    CHECK_INT(0, pthread_barrier_init(&both, NULL, 2));
    RUN(without_a_phase_threads_sleep_between_calls);
    RUN(in_a_phase_they_do_not);
    RUN(after_it_they_do_again);
    RUN(its_begin_wakes_threads);
    RUN(it_is_stronger_than_spin_us);
    RUN(the_largest_open_one_counts_in_whatever_order_they_end);
    RUN(its_begin_starts_the_threads_that_are_missing_and_no_others);
    RUN(zero_is_as_many_workers_as_a_map_would_have);
    RUN(under_another_backend_it_keeps_no_thread);
    RUN(it_may_end_on_another_thread_and_once);
    RUN(a_token_of_something_else_ends_nothing);
    RUN(arguments_that_make_no_sense_begin_nothing);
    RUN(shutdown_ends_threads_and_later_ones_stay_awake_again);
    RUN(a_task_may_have_one);
    RUN(phases_may_come_and_go_during_calls);
    RUN(a_forked_child_has_none);
    pthread_barrier_destroy(&both);
    remove_folder();
    CHECK_OK(pb_shutdown());
    return check_result();
}
