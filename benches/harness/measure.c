#include "measure.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"

enum { MAX_SAMPLES = 8192, MIN_SAMPLES = 3 };
static double samples[MAX_SAMPLES];

static void call(const loop *l) {
    if (l->run)
        l->run(l->ctx);
    else
        peer_for(l->n, l->body, l->ctx);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* Calls for about that long, at least twice; returns how often. */
static uint64_t warm_up(const loop *l, double seconds) {
    double end = wall_ns() + seconds * 1e9;
    uint64_t calls = 0;
    do {
        call(l);
        calls++;
    } while (calls < 2 || wall_ns() < end);
    return calls;
}

/* Short calls are timed many at once, so that the clock's own cost disappears. */
result back_to_back(const loop *l, const settings *s, int unused) {
    (void)unused;
    const double sample_ns = 20e3;
    peer_start(s->threads);
    double start = wall_ns();
    uint64_t calls = warm_up(l, s->seconds / 4);
    double batch = sample_ns / ((wall_ns() - start) / (double)calls);
    uint64_t at_once = batch < 1 ? 1 : batch > 10000 ? 10000 : (uint64_t)batch;

    size_t n = 0;
    double cpu = cpu_ns(), now = wall_ns(), end = now + s->seconds * 1e9;
    while (n < MAX_SAMPLES && (n < MIN_SAMPLES || now < end)) {
        for (uint64_t i = 0; i < at_once; i++)
            call(l);
        double then = now;
        now = wall_ns();
        samples[n++] = (now - then) / (double)at_once;
    }
    double timed = (double)n * (double)at_once;
    return (result){median(samples, n), (cpu_ns() - cpu) / timed, calls + n * at_once};
}

result with_gaps(const loop *l, const settings *s, int gap_us) {
    peer_start(s->threads);
    uint64_t calls = warm_up(l, 0.005);
    size_t n = 0;
    double cpu = cpu_ns(), end = wall_ns() + 2 * s->seconds * 1e9;
    while (n < MAX_SAMPLES && (n < MIN_SAMPLES || wall_ns() < end)) {
        double start = wall_ns() + gap_us * 1e3;
        while (wall_ns() < start)
            ;
        start = wall_ns();
        call(l);
        samples[n++] = wall_ns() - start;
    }
    return (result){median(samples, n), (cpu_ns() - cpu) / (double)n, calls + n};
}

/* Has the kernel charge every thread with the time that it has run. Otherwise it does so at the next tick, up
 * to 10 ms later, and what a thread did in the calls would count as done after them. */
static void settle_cpu_time(void) {
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks != NULL && (entry = readdir(tasks)) != NULL;)
        if (entry->d_name[0] != '.')
            /* The clock of a thread by its number, as clock_getcpuclockid makes those of processes. */
            clock_ns((clockid_t)(~(unsigned)atoi(entry->d_name) << 3 | 6));
    if (tasks != NULL)
        closedir(tasks);
}

result cpu_after(const loop *l, const settings *s, int unused) {
    (void)unused;
    const struct timespec half_a_second = {0, 500 * 1000 * 1000};
    peer_start(s->threads);
    uint64_t calls = warm_up(l, 0.03);
    settle_cpu_time();
    double before = cpu_ns();
    nanosleep(&half_a_second, NULL);
    return (result){cpu_ns() - before, 0, calls};
}

result first_call(const loop *l, const settings *s, int unused) {
    (void)unused;
    double start = wall_ns();
    peer_start(s->threads);
    call(l);
    return (result){wall_ns() - start, 0, 1};
}

double calibrate(void) {
    const uint64_t turns = 50000;
    double best = 1e300;
    for (int i = 0; i < 500; i++) {
        double start = wall_ns();
        spin(turns);
        double took = wall_ns() - start;
        best = took < best ? took : best;
    }
    return (double)turns / best * 1e3;
}

void check_tally(const loop *l, uint64_t calls) {
    tally is = tally_read();
    if (is.count == calls * l->each.count && is.weight == calls * l->each.weight)
        return;
    fprintf(stderr, "%llu calls ran %llu items, not %llu, or not each once\n", (unsigned long long)calls,
            (unsigned long long)is.count, (unsigned long long)(calls * l->each.count));
    exit(1);
}
