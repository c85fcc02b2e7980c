/* A rank that works: takes frames from rank 0 in turn, runs chunks on the thread that called pb_mpi_serve,
 * replies.
 *
 * While a chunk runs nobody looks for messages, so a second thread, the watcher, does: every few milliseconds
 * it looks for CANCEL and passes it on to the library, which knows calls by their numbers and remembers those
 * that were cancelled: chunks that run stop, chunks that wait will not begin. Both threads are in MPI, and in
 * `state`, only under `lock`, so MPI_THREAD_SERIALIZED will do; where MPI gives less there is no watcher, and
 * a cancel is seen between chunks. */
#define _POSIX_C_SOURCE 200809L
#include "worker.h"
#include "world.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_EVERY_NS = 3000000, IDLE_LOOKS = 300 };

/* A ctx, until its map is over. */
struct ctx {
    uint64_t run;
    struct buffer bytes;
    struct ctx *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t busy_again = PTHREAD_COND_INITIALIZER;

static struct {
    int is_running; /* a chunk */
    int watcher_sleeps, is_over;
    struct incoming control; /* frames of TAG_CONTROL */
} state;

static struct incoming in;
static struct outgoing outs[SLOTS];
static unsigned frames_sent;
static struct ctx *ctxs;

/* Under the lock. */
static void take_cancels(void) {
    int came = 0;
    while (carry_receive(&state.control, world.comm, 0, TAG_CONTROL, &came) == MPI_SUCCESS && came)
        pb_worker_cancel_call(state.control.frame.run);
}

static void *watch(void *unused) {
    (void)unused;
    const struct timespec pause = {0, LOOK_EVERY_NS};
    int idle = 0;
    pthread_mutex_lock(&lock);
    while (!state.is_over) {
        if (!state.is_running && ++idle > IDLE_LOOKS) {
            state.watcher_sleeps = 1;
            pthread_cond_wait(&busy_again, &lock);
            state.watcher_sleeps = idle = 0;
            continue;
        }
        if (state.is_running) {
            idle = 0;
            take_cancels();
        }
        pthread_mutex_unlock(&lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void begin(void) {
    pthread_mutex_lock(&lock);
    take_cancels();
    state.is_running = 1;
    if (state.watcher_sleeps)
        pthread_cond_signal(&busy_again);
    pthread_mutex_unlock(&lock);
}

static void end(void) {
    pthread_mutex_lock(&lock);
    state.is_running = 0;
    pthread_mutex_unlock(&lock);
}

/* Waits, under the lock, until a frame has left. */
static int wait_for(struct outgoing *out) {
    struct rest rest = {0};
    int left = 0, code;
    while ((code = carry_arrived(out, &left)) == MPI_SUCCESS && !left) {
        pthread_mutex_unlock(&lock);
        rest_a_little(&rest);
        pthread_mutex_lock(&lock);
    }
    return code;
}

/* Sends a frame. Small ones are copies that leave when rank 0 looks, which may sleep; for large ones, whose
 * body is ours, this waits. */
static int send_frame(const struct frame *frame, const void *body) {
    struct outgoing *out = &outs[frames_sent++ % SLOTS];
    pthread_mutex_lock(&lock);
    int code = wait_for(out);
    if (code == MPI_SUCCESS)
        code = carry_send(out, world.comm, 0, TAG_FRAME, frame, body);
    if (code == MPI_SUCCESS && frame->size > BODY_ROOM)
        code = wait_for(out);
    pthread_mutex_unlock(&lock);
    return code;
}

static int wait_for_all(void) {
    int code = MPI_SUCCESS;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < SLOTS && code == MPI_SUCCESS; ++i)
        code = wait_for(&outs[i]);
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

/* On another machine than the caller's, tasks own CPUs of this one: those that the launcher has bound this
 * rank to, else a part of all. */
static int take_welcome(void) {
    struct welcome welcome;
    if (in.frame.size != sizeof welcome)
        return CARRY_NOT_OURS;
    memcpy(&welcome, in.data, sizeof welcome);
    world.session = in.frame.session;
    if (welcome.is_far) {
        const int32_t cpus = pb_cpu_count(0);
        const int is_bound = cpus < sysconf(_SC_NPROCESSORS_ONLN);
        const int32_t share = is_bound || welcome.workers_here < 1 ? cpus : cpus / welcome.workers_here;
        pb_worker_set_cpus(share > 0 ? share : 1);
    }
    return MPI_SUCCESS;
}

/* ---- ctx ---- */

static int keep_ctx(void) {
    struct ctx *ctx = calloc(1, sizeof *ctx);
    if (ctx == NULL)
        return CARRY_NO_MEMORY;
    ctx->run = in.frame.run;
    if (in.data == in.body.data) {
        ctx->bytes = in.body;
        in.body = (struct buffer){NULL, 0};
    } else if (buffer_reserve(&ctx->bytes, in.frame.size)) {
        memcpy(ctx->bytes.data, in.data, in.frame.size);
    } else {
        free(ctx);
        return CARRY_NO_MEMORY;
    }
    ctx->next = ctxs;
    ctxs = ctx;
    return pb_worker_put_ctx(ctx->run, ctx->bytes.data, in.frame.size) == PB_OK ? MPI_SUCCESS
                                                                                : CARRY_NOT_OURS;
}

static void forget_ctx(uint64_t run) {
    for (struct ctx **at = &ctxs; *at != NULL; at = &(*at)->next)
        if ((*at)->run == run) {
            struct ctx *gone = *at;
            *at = gone->next;
            pb_worker_drop_ctx(run);
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
    pb_results *results = NULL;
    pb_bytes reply = {NULL, 0};
    begin();
    pb_status status = pb_worker_run(in.data, in.frame.size, &results);
    end();
    if (status == PB_OK)
        status = pb_results_get(results, 0, &reply);
    frame.size = reply.size;
    const int code = status == PB_OK ? send_frame(&frame, reply.data) : reply_failed(&frame, pb_last_error());
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
            code = take_welcome();
            break;
        case FRAME_CTX:
            code = keep_ctx();
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
    if (code == MPI_SUCCESS)
        code = wait_for_all();
    if (watched)
        end_watcher(watcher);
    carry_drop(&in);
    carry_drop(&state.control);
    for (int i = 0; i < SLOTS; ++i)
        carry_free(&outs[i]);
    while (ctxs != NULL)
        forget_ctx(ctxs->run);
    return code == MPI_SUCCESS ? PB_DONE
                               : fail(PB_ERR_IO, "rank %d cannot go on: %s", world.rank, carry_error(code));
}
