/* The timeline: what is in the file, and when there is one. */
#include "scopes.h"
#include "trace_file.h"

#include "sync.h"

enum { OUTER = 12, INNER = 30 };

static int32_t nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

/* The first two items wait for each other, so that two threads take part; each item runs a map of two
 * workers. */
static int32_t meet_and_nest(void *both, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    if (index < 2)
        pthread_barrier_wait(both);
    CHECK_OK(map_on(2, nothing, NULL, INNER));
    return 0;
}

static void nested_maps(void) {
    pthread_barrier_t both;
    CHECK_INT(0, pthread_barrier_init(&both, NULL, 2));
    CHECK_OK(map_on(2, meet_and_nest, &both, OUTER));
    pthread_barrier_destroy(&both);
}

/* A timeline of nested_maps(). */
static struct trace record_nested_maps(void) {
    CHECK_OK(pb_trace_start(in_folder("nested.json")));
    nested_maps();
    CHECK_OK(pb_trace_stop());
    return read_trace(in_folder("nested.json"));
}

/* Every item of `map` is in one chunk, and no other item is. */
static void check_coverage(const struct trace *trace, const struct event *map) {
    int *seen = calloc((size_t)map->items, sizeof *seen);
    for (size_t i = 0; i < trace->n_events; i++) {
        const struct event *chunk = &trace->events[i];
        if (strcmp(chunk->category, "chunk") != 0 || chunk->map != map->map)
            continue;
        CHECK(chunk->seat >= 0 && chunk->seat < map->workers);
        CHECK(chunk->from >= map->from && chunk->to <= map->to);
        for (long long item = chunk->begin; item < chunk->begin + chunk->count; item++) {
            CHECK(item >= 0 && item < map->items);
            seen[item]++;
        }
    }
    for (long long item = 0; item < map->items; item++)
        CHECK_INT(1, seen[item]);
    free(seen);
}

TEST(every_item_of_every_map_is_in_exactly_one_chunk) {
    struct trace trace = record_nested_maps();
    size_t outer = 0, inner = 0;
    for (size_t i = 0; i < trace.n_events; i++) {
        const struct event *map = &trace.events[i];
        if (strcmp(map->category, "map") != 0)
            continue;
        CHECK(map->map > 0);
        CHECK_INT(2, map->workers);
        CHECK(strstr(map->line, "\"backend\":\"threading\"") != NULL);
        outer += map->items == OUTER && map->level == 1;
        inner += map->items == INNER && map->level == 2;
        check_coverage(&trace, map);
    }
    CHECK_INT(1, outer);
    CHECK_INT(OUTER, inner);
    free_trace(&trace);
}

/* Two events of a thread lie apart, or one in the other. Times are whole nanoseconds here, so nothing is
 * rounded. */
TEST(what_a_thread_does_never_overlaps_by_half) {
    struct trace trace = record_nested_maps();
    size_t pairs = 0;
    for (size_t i = 0; i < trace.n_events; i++)
        for (size_t j = 0; j < i; j++) {
            const struct event *one = &trace.events[i], *other = &trace.events[j];
            if (one->tid != other->tid || one->category[0] == '\0' || other->category[0] == '\0')
                continue;
            const int apart = one->to <= other->from || other->to <= one->from;
            const int inside = (one->from >= other->from && one->to <= other->to) ||
                               (other->from >= one->from && other->to <= one->to);
            CHECK(apart || inside);
            /* A thread runs the chunks of one map one after the other. */
            if (strcmp(one->category, "chunk") == 0 && one->map == other->map)
                CHECK(apart || strcmp(other->category, "map") == 0);
            pairs++;
        }
    CHECK(pairs > 100);
    free_trace(&trace);
}

static long long tid_named(const struct trace *trace, const char *name) {
    for (size_t i = 0; i < trace->n_events; i++)
        if (strstr(trace->events[i].line, "\"thread_name\"") != NULL &&
            strstr(trace->events[i].line, name) != NULL)
            return trace->events[i].tid;
    return -1;
}

TEST(threads_are_named_and_two_took_part) {
    struct trace trace = record_nested_maps();
    const long long caller = tid_named(&trace, "\"main\""), helper = tid_named(&trace, "\"pb-");
    CHECK_INT(getpid(), caller);
    CHECK(helper > 0 && helper != caller);
    int by_caller = 0, by_others = 0;
    for (size_t i = 0; i < trace.n_events; i++)
        if (strcmp(trace.events[i].category, "chunk") == 0) {
            CHECK_INT(getpid(), trace.events[i].pid);
            by_caller += trace.events[i].tid == caller;
            by_others += trace.events[i].tid != caller;
        }
    CHECK(by_caller > 0 && by_others > 0);
    free_trace(&trace);
}

TEST(only_what_is_between_start_and_stop_is_recorded) {
    CHECK_OK(map_on(2, nothing, NULL, 10));
    for (size_t maps = 0; maps < 4; maps++) {
        CHECK_OK(pb_trace_start(in_folder("between.json")));
        for (size_t i = 0; i < maps; i++)
            CHECK_OK(map_on(2, nothing, NULL, 10));
        CHECK_OK(pb_trace_stop());
        CHECK_OK(map_on(2, nothing, NULL, 10));
        CHECK_INT(maps, maps_in(in_folder("between.json")));
    }
}

static int32_t fail_at_five(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    return index == 5;
}

TEST(maps_that_fail_and_maps_on_other_backends_are_there_too) {
    CHECK_OK(pb_trace_start(in_folder("kinds.json")));
    CHECK_STATUS(map_on(1, fail_at_five, NULL, 10), PB_ERR_TASK_FAILED);
    const pb_scope scope = open_scope("sequential", 0);
    CHECK_OK(map_on(0, nothing, NULL, 10));
    close_scope(scope);
    pb_job *job = NULL;
    CHECK_OK(pb_submit_map(nothing, NULL, 10, NULL, 0, NULL, 0, NULL, &job));
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
    CHECK_OK(pb_trace_stop());
    struct trace trace = read_trace(in_folder("kinds.json"));
    /* The driver of the submitted one may not have come out of it yet. */
    CHECK(count_events(&trace, "map") >= 2);
    CHECK(has_text(&trace, "\"backend\":\"sequential\""));
    free_trace(&trace);
}

TEST(one_timeline_at_a_time) {
    CHECK_OK(pb_trace_start(in_folder("first.json")));
    CHECK_STATUS(pb_trace_start(in_folder("second.json")), PB_ERR_EXISTS);
    CHECK_TEXT("first.json");
    CHECK_TEXT("pb_trace_stop");
    CHECK(access(in_folder("second.json"), F_OK) != 0);
    CHECK_OK(pb_trace_stop());
    CHECK_STATUS(pb_trace_stop(), PB_ERR_SCOPE);
    CHECK_TEXT("no timeline runs");
    CHECK_OK(pb_trace_start(in_folder("second.json")));
    CHECK_OK(pb_trace_stop());
}

TEST(a_path_that_cannot_be_written_is_told_at_the_start) {
    CHECK_STATUS(pb_trace_start("/no/such/folder/trace.json"), PB_ERR_IO);
    CHECK_TEXT("/no/such/folder/trace.json");
    CHECK_TEXT("No such file or directory");
    CHECK_STATUS(pb_trace_start(folder), PB_ERR_IO);
    CHECK_STATUS(pb_trace_start(""), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_trace_start(NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("path");
    CHECK_STATUS(pb_trace_stop(), PB_ERR_SCOPE);
}

TEST(a_full_disk_is_told_at_the_stop_and_ends_the_timeline) {
    CHECK_OK(pb_trace_start("/dev/full"));
    CHECK_OK(map_on(2, nothing, NULL, 10));
    CHECK_STATUS(pb_trace_stop(), PB_ERR_IO);
    CHECK_TEXT("/dev/full");
    CHECK_STATUS(pb_trace_stop(), PB_ERR_SCOPE);
}

TEST(shutdown_writes_what_there_is_and_the_timeline_goes_on) {
    const char *path = in_folder("shutdown.json");
    CHECK_OK(pb_trace_start(path));
    CHECK_OK(map_on(2, nothing, NULL, 10));
    CHECK_OK(pb_shutdown());
    CHECK_INT(1, maps_in(path));
    CHECK_OK(map_on(2, nothing, NULL, 10));
    CHECK_OK(pb_trace_stop());
    CHECK_INT(2, maps_in(path));
}

static int over;

static void *map_until_over(void *unused) {
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED))
        CHECK_OK(map_on(2, nothing, NULL, 50));
    return unused;
}

TEST(a_stop_may_come_at_any_moment_of_other_threads) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK_INT(0, pthread_create(&threads[i], NULL, map_until_over, NULL));
    for (int i = times(100, 5); i > 0; i--) {
        CHECK_OK(pb_trace_start(in_folder("any.json")));
        CHECK_OK(map_on(2, nothing, NULL, 50));
        CHECK_OK(pb_trace_stop());
        CHECK(maps_in(in_folder("any.json")) >= 1);
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++)
        CHECK_INT(0, pthread_join(threads[i], NULL));
}

int main(void) {
    forget_environment();
    make_folder();
    RUN(every_item_of_every_map_is_in_exactly_one_chunk);
    RUN(what_a_thread_does_never_overlaps_by_half);
    RUN(threads_are_named_and_two_took_part);
    RUN(only_what_is_between_start_and_stop_is_recorded);
    RUN(maps_that_fail_and_maps_on_other_backends_are_there_too);
    RUN(one_timeline_at_a_time);
    RUN(a_path_that_cannot_be_written_is_told_at_the_start);
    RUN(a_full_disk_is_told_at_the_stop_and_ends_the_timeline);
    RUN(shutdown_writes_what_there_is_and_the_timeline_goes_on);
    RUN(a_stop_may_come_at_any_moment_of_other_threads);
    remove_folder();
    CHECK_OK(pb_shutdown());
    return check_result();
}
