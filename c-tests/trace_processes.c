/* PB_TRACE, the end of a process, and forks: whose file is written, and when. Each test runs this program
 * again with the name of what it is to do, as a user's program with the variable set. */
#include "child.h"
#include "scopes.h"
#include "trace_file.h"

static const char *program;

static int32_t nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

static void map_once(void) { CHECK_OK(map_on(2, nothing, NULL, 10)); }

/* Runs this program again, with PB_TRACE as given; its process number. */
static pid_t run_with(const char *variable, const char *what) {
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        setenv("PB_TRACE", variable, 1);
        execl(program, program, what, folder, (char *)NULL);
        _exit(9);
    }
    await(child);
    return child;
}

/* The path of `trace.NUMBER.json`. */
static const char *of_process(pid_t process) {
    char name[64];
    snprintf(name, sizeof name, "trace.%d.json", (int)process);
    return in_folder(name);
}

static void forget_files(void) {
    remove_folder();
    CHECK_INT(0, mkdir(folder, 0700));
}

static void two_maps(void) {
    map_once();
    map_once();
}

TEST(the_variable_records_all_maps_until_the_exit) {
    run_with(in_folder("trace.json"), "two_maps");
    CHECK_INT(2, maps_in(in_folder("trace.json")));
    CHECK_INT(1, count_files());
}

static void no_map(void) { CHECK_OK(pb_shutdown()); }

TEST(a_process_without_maps_writes_nothing) {
    run_with(in_folder("trace.json"), "no_map");
    CHECK_INT(0, count_files());
}

static void shut_down(void) {
    map_once();
    CHECK_OK(pb_shutdown());
    CHECK_INT(1, maps_in(in_folder("trace.json")));
    map_once();
}

TEST(shutdown_writes_the_file_and_the_exit_writes_it_again) {
    run_with(in_folder("trace.json"), "shut_down");
    CHECK_INT(2, maps_in(in_folder("trace.json")));
}

static void stop(void) {
    map_once();
    CHECK_STATUS(pb_trace_start(in_folder("other.json")), PB_ERR_EXISTS);
    CHECK_OK(pb_trace_stop());
    map_once();
}

TEST(a_program_may_stop_what_the_variable_began) {
    run_with(in_folder("trace.json"), "stop");
    CHECK_INT(1, maps_in(in_folder("trace.json")));
    CHECK_INT(1, count_files());
}

static void start_first(void) {
    CHECK_OK(pb_trace_start(in_folder("own.json")));
    map_once();
    CHECK_OK(pb_trace_stop());
    map_once();
}

TEST(a_program_that_starts_its_own_timeline_first_keeps_it) {
    run_with(in_folder("trace.json"), "start_first");
    CHECK_INT(1, maps_in(in_folder("own.json")));
    CHECK_INT(1, count_files());
}

static void never_stop(void) {
    CHECK_OK(pb_trace_start(in_folder("own.json")));
    map_once();
}

TEST(a_timeline_that_is_not_stopped_is_written_at_the_exit) {
    run_with("", "never_stop");
    CHECK_INT(1, maps_in(in_folder("own.json")));
}

static void *map_for_ever(void *unused) {
    for (;;)
        map_once();
    return unused;
}

static void exit_while_threads_map(void) {
    pthread_t thread;
    map_once();
    for (int i = 0; i < 3; i++)
        CHECK_INT(0, pthread_create(&thread, NULL, map_for_ever, NULL));
    map_once();
}

TEST(an_exit_while_threads_still_run_writes_a_whole_file) {
    for (int i = times(20, 3); i > 0; i--) {
        run_with(in_folder("trace.json"), "exit_while_threads_map");
        CHECK(maps_in(in_folder("trace.json")) >= 2);
    }
}

static int32_t count(void *ran, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    ++*(int *)ran;
    return 0;
}

static void wrong_path(void) {
    int ran = 0;
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(map_on(1, count, &ran, 5), PB_ERR_IO);
        CHECK_TEXT("PB_TRACE");
        CHECK_TEXT("/no/such/folder/trace.json");
        CHECK_TEXT("No such file or directory");
    }
    CHECK_INT(0, ran);
    CHECK_INT(0, setenv("PB_TRACE", in_folder("right.json"), 1));
    CHECK_OK(map_on(1, count, &ran, 5));
    CHECK_INT(5, ran);
}

TEST(a_variable_that_cannot_be_written_to_is_an_error_of_every_map_until_it_is_put_right) {
    run_with("/no/such/folder/trace.json", "wrong_path");
    CHECK_INT(1, maps_in(in_folder("right.json")));
}

TEST(percent_p_is_the_number_of_the_process) {
    const pid_t process = run_with(in_folder("trace.%p.json"), "two_maps");
    CHECK_INT(2, maps_in(of_process(process)));
}

static void fork_idle(void) {
    map_once();
    const pid_t child = fork();
    if (child == 0)
        exit(0); /* with its handlers */
    await(child);
    CHECK_INT(0, fork() == 0 ? (_exit(0), 1) : 0);
    CHECK(wait(NULL) > 0);
    map_once();
}

TEST(a_child_without_maps_writes_nothing_and_leaves_its_parents_file_alone) {
    run_with(in_folder("trace.json"), "fork_idle");
    CHECK_INT(2, maps_in(in_folder("trace.json")));
    CHECK_INT(1, count_files());
}

static void fork_mapping(void) {
    two_maps();
    const pid_t child = fork();
    if (child == 0) {
        map_once();
        exit(0);
    }
    await(child);
    CHECK_INT(1, maps_in(of_process(child)));
    CHECK(access(in_folder("trace.json"), F_OK) == 0);
}

TEST(a_child_with_maps_writes_them_and_no_others_to_a_file_of_its_own) {
    run_with(in_folder("trace.json"), "fork_mapping");
    CHECK_INT(2, maps_in(in_folder("trace.json")));
    CHECK_INT(2, count_files());
}

static void fork_shutting_down(void) {
    map_once();
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        CHECK_STATUS(pb_trace_stop(), PB_ERR_SCOPE);
        map_once();
        CHECK_OK(pb_shutdown()); /* as a worker process that ends by _exit would */
        _exit(0);
    }
    await(child);
    CHECK_INT(1, maps_in(of_process(child)));
}

TEST(a_child_that_ends_without_handlers_writes_by_shutdown) {
    run_with(in_folder("trace.json"), "fork_shutting_down");
    CHECK_INT(2, count_files());
}

static int forks_over;

static void *map_until_forks_are_over(void *unused) {
    while (!__atomic_load_n(&forks_over, __ATOMIC_RELAXED))
        map_once();
    return unused;
}

static void fork_while_threads_map(void) {
    pthread_t thread;
    map_once();
    CHECK_INT(0, pthread_create(&thread, NULL, map_until_forks_are_over, NULL));
    for (int i = times(20, 5); i > 0; i--) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(60);
            map_once();
            exit(0);
        }
        await(child);
        CHECK_INT(1, maps_in(of_process(child)));
    }
    __atomic_store_n(&forks_over, 1, __ATOMIC_RELAXED);
    CHECK_INT(0, pthread_join(thread, NULL));
}

TEST(forks_at_any_moment_of_other_threads) {
    run_with(in_folder("trace.json"), "fork_while_threads_map");
    CHECK(maps_in(in_folder("trace.json")) >= 2);
}

#define ACTIONS(DO)                                                                                          \
    DO(two_maps)                                                                                             \
    DO(no_map)                                                                                               \
    DO(shut_down)                                                                                            \
    DO(stop)                                                                                                 \
    DO(start_first)                                                                                          \
    DO(never_stop)                                                                                           \
    DO(exit_while_threads_map)                                                                               \
    DO(wrong_path)                                                                                           \
    DO(fork_idle)                                                                                            \
    DO(fork_mapping)                                                                                         \
    DO(fork_shutting_down)                                                                                   \
    DO(fork_while_threads_map)

static int act(const char *what) {
#define DO(name)                                                                                             \
    if (strcmp(what, #name) == 0)                                                                            \
        return name(), 0;
    ACTIONS(DO)
    return 8;
}

/* A test in a folder that is empty. */
#define RUN_ALONE(name) RUN(name), forget_files()

int main(int argc, char **argv) {
    program = argv[0];
    if (argc == 3) {
        strcpy(folder, argv[2]);
        return act(argv[1]);
    }
    forget_environment();
    make_folder();
    RUN_ALONE(the_variable_records_all_maps_until_the_exit);
    RUN_ALONE(a_process_without_maps_writes_nothing);
    RUN_ALONE(shutdown_writes_the_file_and_the_exit_writes_it_again);
    RUN_ALONE(a_program_may_stop_what_the_variable_began);
    RUN_ALONE(a_program_that_starts_its_own_timeline_first_keeps_it);
    RUN_ALONE(a_timeline_that_is_not_stopped_is_written_at_the_exit);
    RUN_ALONE(an_exit_while_threads_still_run_writes_a_whole_file);
    RUN_ALONE(a_variable_that_cannot_be_written_to_is_an_error_of_every_map_until_it_is_put_right);
    RUN_ALONE(percent_p_is_the_number_of_the_process);
    RUN_ALONE(a_child_without_maps_writes_nothing_and_leaves_its_parents_file_alone);
    RUN_ALONE(a_child_with_maps_writes_them_and_no_others_to_a_file_of_its_own);
    RUN_ALONE(a_child_that_ends_without_handlers_writes_by_shutdown);
    RUN_ALONE(forks_at_any_moment_of_other_threads);
    remove_folder();
    return check_result();
}
