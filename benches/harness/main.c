/* bench-PEER ROW: measures one row and prints one line of JSON. The driver (benches/run) is what people call.
 */
#include "loads.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- loops of calibrated items ---- */

static tally tally_of(size_t n) {
    tally each = {n, 0};
    for (size_t i = 0; i < n; i++)
        each.weight += tally_weight(i);
    return each;
}

static uint64_t turns(const settings *s, double us) { return (uint64_t)(us * s->turns_per_us + 0.5); }

/* n items, `us` long each. */
static loop same(const settings *s, size_t n, double us) {
    spin_work *work = memory(sizeof *work);
    *work = (spin_work){turns(s, us), NULL};
    return (loop){n, &spin_same_body, work, tally_of(n), NULL, NULL};
}

/* n items; the caller fills in the turns of each. */
static loop each(size_t n, uint32_t **turns_of) {
    spin_work *work = memory(sizeof *work);
    *turns_of = memory(n * sizeof **turns_of);
    *work = (spin_work){0, *turns_of};
    return (loop){n, &spin_each_body, work, tally_of(n), NULL, NULL};
}

static loop make_empty(const settings *s) {
    size_t n = (size_t)s->threads;
    return (loop){n, &empty_body, NULL, tally_of(n), NULL, NULL};
}

static loop make_tasks_1us(const settings *s) { return same(s, (size_t)s->threads, 1); }
static loop make_tasks_100us(const settings *s) { return same(s, (size_t)s->threads, 100); }
static loop make_items_100ns(const settings *s) { return same(s, 100 * 1000, 0.1); }
static loop make_items_1us(const settings *s) { return same(s, 1000, 1); }
static loop make_items_10us(const settings *s) { return same(s, 64, 10); }
static loop make_short_call(const settings *s) { return same(s, 100, 1); }

enum { UNEVEN_ITEMS = 2000 };

static loop make_triangle(const settings *s) {
    uint32_t *turns_of;
    loop l = each(UNEVEN_ITEMS, &turns_of);
    for (size_t i = 0; i < l.n; i++)
        turns_of[i] = (uint32_t)turns(s, 10.0 * (double)i / (double)l.n);
    return l;
}

/* One item of each hundred takes a hundred times as long as the rest. */
static loop make_heavy_1pct(const settings *s) {
    uint32_t *turns_of;
    loop l = each(UNEVEN_ITEMS, &turns_of);
    for (size_t i = 0; i < l.n; i++)
        turns_of[i] = (uint32_t)turns(s, i % 100 == (size_t)(100 * uniform(i / 100)) ? 200 : 2);
    return l;
}

static loop make_heavy_tail(const settings *s) {
    uint32_t *turns_of;
    loop l = each(UNEVEN_ITEMS, &turns_of);
    for (size_t i = 0; i < l.n; i++)
        turns_of[i] = (uint32_t)turns(s, i >= l.n - l.n * 3 / 100 ? 200 : 2);
    return l;
}

/* `outer` items, each of which is a loop of `n` items of 1 µs. */
static loop nest(const settings *s, size_t outer, size_t n) {
    loop inner = same(s, n, 1);
    nest_work *work = memory(sizeof *work);
    *work = (nest_work){inner.n, inner.body, inner.ctx};
    tally all = {outer * inner.each.count, outer * inner.each.weight};
    return (loop){outer, &nest_body, work, all, NULL, NULL};
}

static loop make_nested(const settings *s) { return nest(s, 16, 1000); }
static loop make_nested_short(const settings *s) { return nest(s, 1000, 4); }

/* ---- the rows ---- */

static const struct row {
    const char *name;
    loop (*make)(const settings *settings);
    measurement measure;
    int parameter;
} rows[] = {
    {"empty", make_empty, back_to_back, 0},
    {"tasks-1us", make_tasks_1us, back_to_back, 0},
    {"gap-100us", make_tasks_100us, with_gaps, 100},
    {"gap-2ms", make_tasks_100us, with_gaps, 2000},
    {"saxpy", make_saxpy, back_to_back, 0},
    {"items-100ns", make_items_100ns, back_to_back, 0},
    {"items-1us", make_items_1us, back_to_back, 0},
    {"items-10us", make_items_10us, back_to_back, 0},
    {"triangle", make_triangle, back_to_back, 0},
    {"heavy-1pct", make_heavy_1pct, back_to_back, 0},
    {"heavy-tail", make_heavy_tail, back_to_back, 0},
    {"nested", make_nested, back_to_back, 0},
    {"nested-short", make_nested_short, back_to_back, 0},
    {"callers-4", make_short_call, with_callers, 4},
    {"callers-16", make_short_call, with_callers, 16},
    {"processes-2", make_short_call, in_processes, 2},
    {"processes-4", make_short_call, in_processes, 4},
    {"cpu-after", make_tasks_100us, cpu_after, 0},
    {"first-call", make_empty, first_call, 0},
    {"mandelbrot", make_mandelbrot, back_to_back, 0},
    {"spmv", make_spmv, back_to_back, 0},
    {"dgemm", make_dgemm, back_to_back, 0},
    {"monte-carlo", make_monte_carlo, back_to_back, 0},
    {"merge-sort", make_merge_sort, back_to_back, 0},
};

static const struct row *find_row(const char *name) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name))
            return &rows[i];
    fprintf(stderr, "no row is called %s\n", name);
    exit(2);
}

static double number(const char *text) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || end == text || *end || !(value > 0)) {
        fprintf(stderr, "not a number above 0: %s\n", text);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "--calibrate")) {
        printf("%.3f\n", calibrate());
        return 0;
    }
    if (argc != 6) {
        fprintf(stderr, "usage: %s ROW THREADS COPIES SECONDS TURNS_PER_US\n       %s --calibrate\n", argv[0],
                argv[0]);
        return 2;
    }
    const struct row *row = find_row(argv[1]);
    settings s = {(int)number(argv[2]), (int)number(argv[3]), number(argv[4]), number(argv[5])};
    loop l = row->make(&s);
    result r = row->measure(&l, &s, row->parameter);
    if (row->measure != in_processes) /* whose children check for themselves */
        check_tally(&l, r.calls);
    printf(
        "{\"version\": \"%s\", \"value_ns\": %.3f, \"cpu_ns\": %.3f, \"calls\": %llu, \"checksum\": %.17g}\n",
        peer_version(), r.value_ns, r.cpu_ns, (unsigned long long)r.calls,
        l.checksum ? l.checksum(l.ctx) : 0.0);
    return fflush(stdout) ? 1 : 0;
}
