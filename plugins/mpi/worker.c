/* A rank that works: takes frames from rank 0 in turn, runs chunks on the thread that called pb_mpi_serve,
 * replies.
 *
 * While a chunk runs nobody looks for messages, so a second thread, the watcher, does: every few milliseconds
 * it looks for CANCEL. Both use MPI and `state` only under `lock`, so MPI_THREAD_SERIALIZED will do; where
 * MPI gives less there is no watcher, and a cancel is seen between chunks.
 *
 * Why no cancel is lost and none meets another map's chunk: `running` is the map of the chunk that is between
 * its start and its end, written under the lock by the main thread. The watcher compares it with the maps
 * that were cancelled and calls pb_worker_cancel, all under the lock; so the chunk that it stops is one of
 * that map. A chunk that has been marked as running but has not yet begun inside the library is not stopped
 * by that call, and therefore the watcher repeats it at each look, for as long as the chunk runs. */
#define _POSIX_C_SOURCE 200809L
#include "worker.h"
#include "world.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_EVERY_NS = 3000000, IDLE_LOOKS = 300, CANCELS_KEPT = 32 };

/* A large ctx, until its map is over. */
struct ctx {
    uint64_t run;
    struct buffer bytes;
    size_t size;
    struct ctx *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t busy_again = PTHREAD_COND_INITIALIZER;

static struct {
    uint64_t running; /* the map of the chunk that runs; 0: none */
    uint64_t cancelled[CANCELS_KEPT];
    unsigned cancels;
    int watcher_sleeps, is_over;
    struct incoming control; /* frames of TAG_CONTROL */
} state;

static struct incoming in;
static struct outgoing out;
static struct ctx *ctxs;

static int is_cancelled(uint64_t run) {
    for (unsigned i = 0; i < CANCELS_KEPT; ++i)
        if (state.cancelled[i] == run)
            return 1;
    return 0;
}

static void note_cancel(uint64_t run) { state.cancelled[state.cancels++ % CANCELS_KEPT] = run; }

/* Under the lock. */
static void take_cancels(void) {
    int came = 0;
    while (carry_receive(&state.control, world.comm, 0, TAG_CONTROL, &came) == MPI_SUCCESS && came)
        note_cancel(state.control.frame.run);
}

static void *watch(void *unused) {
    (void)unused;
    const struct timespec pause = {0, LOOK_EVERY_NS};
    int idle = 0;
    pthread_mutex_lock(&lock);
    while (!state.is_over) {
        if (state.running == 0 && ++idle > IDLE_LOOKS) {
            state.watcher_sleeps = 1;
            pthread_cond_wait(&busy_again, &lock);
            state.watcher_sleeps = idle = 0;
            continue;
        }
        if (state.running != 0) {
            idle = 0;
            take_cancels();
            if (is_cancelled(state.running))
                pb_worker_cancel();
        }
        pthread_mutex_unlock(&lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Says whether the chunk may run, and that it does. */
static int begin(uint64_t run) {
    pthread_mutex_lock(&lock);
    take_cancels();
    const int may = !is_cancelled(run);
    state.running = may ? run : 0;
    if (may && state.watcher_sleeps)
        pthread_cond_signal(&busy_again);
    pthread_mutex_unlock(&lock);
    return may;
}

/* `is_done`: the map ended with this chunk, so the next one, which may be here already, need not be run. */
static void end(int is_done) {
    pthread_mutex_lock(&lock);
    if (is_done)
        note_cancel(state.running);
    state.running = 0;
    pthread_mutex_unlock(&lock);
}

/* Sends a frame and waits until it has left. */
static int send_frame(const struct frame *frame, const void *body) {
    struct rest rest = {0};
    pthread_mutex_lock(&lock);
    int left = 0;
    int code = carry_send(&out, world.comm, 0, TAG_FRAME, frame, body);
    while (code == MPI_SUCCESS && (code = carry_arrived(&out, &left)) == MPI_SUCCESS && !left) {
        pthread_mutex_unlock(&lock);
        rest_a_little(&rest);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

static int receive_frame(void) {
    struct rest rest = {0};
    for (;;) {
        int came = 0;
        pthread_mutex_lock(&lock);
        const int code = carry_receive(&in, world.comm, 0, TAG_FRAME, &came);
        pthread_mutex_unlock(&lock);
        if (code != MPI_SUCCESS || came)
            return code;
        rest_a_little(&rest);
    }
}

static struct frame frame_of(enum frame_kind kind) {
    struct frame frame = {.magic = FRAME_MAGIC, .kind = kind, .session = world.session};
    return frame;
}

static int say_hello(void) {
    struct hello hello = {{0}, {0}};
    snprintf(hello.version, sizeof hello.version, "%s", pb_version());
    gethostname(hello.host, sizeof hello.host - 1);
    struct frame frame = frame_of(FRAME_HELLO);
    frame.size = sizeof hello;
    return send_frame(&frame, &hello);
}

/* ---- ctx ---- */

static struct ctx *find_ctx(uint64_t run) {
    struct ctx *ctx = ctxs;
    while (ctx != NULL && ctx->run != run)
        ctx = ctx->next;
    return ctx;
}

/* Keeps the body of the frame that came. Without memory for it, the chunks that need it say so. */
static void keep_ctx(void) {
    struct ctx *ctx = calloc(1, sizeof *ctx);
    if (ctx == NULL)
        return;
    *ctx = (struct ctx){.run = in.frame.run, .bytes = in.body, .size = in.frame.size, .next = ctxs};
    in.body = (struct buffer){NULL, 0};
    ctxs = ctx;
}

static void forget_ctx(uint64_t run) {
    for (struct ctx **at = &ctxs; *at != NULL; at = &(*at)->next)
        if ((*at)->run == run) {
            struct ctx *gone = *at;
            *at = gone->next;
            buffer_free(&gone->bytes);
            free(gone);
            return;
        }
}

/* ---- chunks ---- */

static int reply_failed(struct frame *frame, const char *text) {
    frame->kind = FRAME_FAILED;
    frame->size = strlen(text) + 1;
    return send_frame(frame, text);
}

static int work(void) {
    struct frame frame = frame_of(FRAME_REPLY);
    frame.run = in.frame.run;
    frame.chunk = in.frame.chunk;
    struct ctx *ctx = in.frame.ctx_size > 0 ? find_ctx(in.frame.run) : NULL;
    if (in.frame.ctx_size > 0 && ctx == NULL)
        return reply_failed(&frame, "had no memory for ctx");
    if (!begin(in.frame.run)) {
        frame.kind = FRAME_UNRUN;
        return send_frame(&frame, NULL);
    }
    pb_results *results = NULL;
    pb_bytes reply = {NULL, 0};
    pb_status status = pb_worker_run_with(in.data, in.frame.size, ctx != NULL ? ctx->bytes.data : NULL,
                                          ctx != NULL ? ctx->size : 0, &results);
    end(status == PB_DONE);
    if (status == PB_OK || status == PB_DONE)
        status = pb_results_get(results, 0, &reply);
    if (status != PB_OK)
        return reply_failed(&frame, pb_last_error());
    frame.size = reply.size;
    const int code = send_frame(&frame, reply.data);
    pb_results_free(results);
    return code;
}

static int serve_frames(void) {
    for (;;) {
        int code = receive_frame();
        if (code != MPI_SUCCESS)
            return code;
        switch (in.frame.kind) {
        case FRAME_WELCOME:
            world.session = in.frame.session;
            break;
        case FRAME_CTX:
            keep_ctx();
            break;
        case FRAME_FORGET:
            forget_ctx(in.frame.run);
            break;
        case FRAME_WORK:
            code = in.frame.session == world.session ? work() : CARRY_NOT_OURS;
            break;
        case FRAME_BYE:
            return MPI_SUCCESS;
        default:
            code = CARRY_NOT_OURS;
        }
        if (code != MPI_SUCCESS)
            return code;
    }
}

static void end_watcher(pthread_t watcher) {
    pthread_mutex_lock(&lock);
    state.is_over = 1;
    pthread_cond_signal(&busy_again);
    pthread_mutex_unlock(&lock);
    pthread_join(watcher, NULL);
}

pb_status worker_serve(void) {
    memset(&state, 0, sizeof state);
    world.session = 0;
    pthread_t watcher;
    const int watched =
        world.level >= MPI_THREAD_SERIALIZED && pthread_create(&watcher, NULL, watch, NULL) == 0;
    int code = say_hello();
    if (code == MPI_SUCCESS)
        code = serve_frames();
    if (watched)
        end_watcher(watcher);
    carry_drop(&in);
    carry_drop(&state.control);
    carry_free(&out);
    while (ctxs != NULL)
        forget_ctx(ctxs->run);
    return code == MPI_SUCCESS ? PB_DONE
                               : fail(PB_ERR_IO, "rank %d cannot go on: %s", world.rank, carry_error(code));
}
