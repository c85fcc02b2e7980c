/* Measurements with many callers: threads that share a pool, and processes that share the machine. */
#include "measure.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"

static void need(int condition, const char *what) {
    if (condition)
        return;
    perror(what);
    exit(1);
}

/* ---- threads ---- */

static struct {
    const loop *loop;
    double end;
    int take_turns;
    pthread_mutex_t turn;
    pthread_barrier_t all_warm;
} crowd = {.turn = PTHREAD_MUTEX_INITIALIZER};

static void call_in_turn(void) {
    if (crowd.take_turns)
        pthread_mutex_lock(&crowd.turn);
    peer_for(crowd.loop->n, crowd.loop->body, crowd.loop->ctx);
    if (crowd.take_turns)
        pthread_mutex_unlock(&crowd.turn);
}

enum { WARM_CALLS = 3 };

/* Returns, through `count`, how many calls it made after the warm ones. */
static void *caller(void *count) {
    uint64_t calls = 0;
    for (int i = 0; i < WARM_CALLS; i++)
        call_in_turn();
    pthread_barrier_wait(&crowd.all_warm); /* the clock is set between the two */
    pthread_barrier_wait(&crowd.all_warm);
    while (wall_ns() < crowd.end) {
        call_in_turn();
        calls++;
    }
    *(uint64_t *)count = calls;
    return NULL;
}

result with_callers(const loop *l, const settings *s, int callers) {
    pthread_t threads[callers];
    uint64_t counts[callers], calls = 0;
    peer_start(s->threads);
    crowd.loop = l;
    crowd.take_turns = !peer_takes_callers();
    need(!pthread_barrier_init(&crowd.all_warm, NULL, (unsigned)callers + 1), "pthread_barrier_init");
    for (int i = 0; i < callers; i++)
        need(!pthread_create(&threads[i], NULL, caller, &counts[i]), "pthread_create");
    pthread_barrier_wait(&crowd.all_warm);
    double cpu = cpu_ns(), start = wall_ns();
    crowd.end = start + s->seconds * 1e9;
    pthread_barrier_wait(&crowd.all_warm);
    for (int i = 0; i < callers; i++) {
        pthread_join(threads[i], NULL);
        calls += counts[i];
    }
    double took = wall_ns() - start;
    return (result){took / (double)calls, (cpu_ns() - cpu) / (double)calls,
                    calls + WARM_CALLS * (uint64_t)callers};
}

/* ---- processes ---- */

/* What parent and children share. */
typedef struct window {
    double start, end; /* one window for all, however late a process gets a CPU */
    struct {
        uint64_t calls;
        double finished;
    } of[];
} window;

/* In the child: says that it is warm, waits for the window, and calls until that is over. */
static void run_child(const loop *l, const settings *s, int ready, int go, window *w, int number) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a driver that gives up kills the parent alone */
    peer_start(s->threads);
    for (int i = 0; i < WARM_CALLS; i++)
        peer_for(l->n, l->body, l->ctx);
    char byte = 0;
    need(write(ready, &byte, 1) == 1, "write");
    need(read(go, &byte, 1) == 0, "read"); /* the other end closes */
    uint64_t calls = 0;
    double now = wall_ns();
    for (; now < w->end; now = wall_ns(), calls++)
        peer_for(l->n, l->body, l->ctx);
    check_tally(l, calls + WARM_CALLS);
    w->of[number].calls = calls;
    w->of[number].finished = now;
    _exit(0);
}

static void wait_for_child(void) {
    int status;
    need(wait(&status) > 0, "wait");
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        exit(1); /* it said why */
}

result in_processes(const loop *l, const settings *s, int processes) {
    processes *= s->copies;
    size_t size = sizeof(window) + (size_t)processes * sizeof(((window *)0)->of[0]);
    window *w = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int ready[2], go[2];
    need(w != MAP_FAILED, "mmap");
    need(!pipe(ready) && !pipe(go), "pipe");
    for (int i = 0; i < processes; i++) {
        pid_t child = fork();
        need(child >= 0, "fork");
        if (child == 0) {
            close(go[1]);
            run_child(l, s, ready[1], go[0], w, i);
        }
    }
    char byte;
    for (int i = 0; i < processes; i++)
        need(read(ready[0], &byte, 1) == 1, "read");
    w->start = wall_ns();
    w->end = w->start + 2 * s->seconds * 1e9;
    close(go[1]);
    for (int i = 0; i < processes; i++)
        wait_for_child();
    uint64_t calls = 0;
    double finished = 0;
    for (int i = 0; i < processes; i++) {
        calls += w->of[i].calls;
        finished = w->of[i].finished > finished ? w->of[i].finished : finished;
    }
    return (result){(finished - w->start) / (double)calls, 0, 0};
}
