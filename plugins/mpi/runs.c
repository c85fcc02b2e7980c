/* The manager's books (runs.h): who works for which map, what goes to whom next, what came back. Every
 * function here runs on the thread that leads. */
#define _POSIX_C_SOURCE 200809L
#include "runs.h"
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct peer *peers;
int n_peers;

static uint64_t last_chunk;

/* Seconds that a quick chunk takes at most. While a worker has SLOTS of them rank 0 sleeps for as long as one
 * takes, and wakes up some 56 us later than asked (median of 1,000 sleeps of 100 us on 2 virtual CPUs): so
 * one must take about as long at least. Otherwise it would take CPU from workers that it shares CPUs with:
 * benches/engines/mpi.py, 2 workers on 2 CPUs. */
static const double QUICK = 1e-3, WORTH_A_SLEEP = 50e-6;

static struct frame frame_of(enum frame_kind kind, uint64_t run) {
    struct frame frame = {.magic = FRAME_MAGIC, .kind = kind, .session = world.session, .run = run};
    return frame;
}

/* ---- notes ---- */

struct note {
    struct outgoing out;
    struct note *next;
};
static struct note *notes;

int send_note(int rank, int tag, enum frame_kind kind, uint64_t run) {
    struct note *note = calloc(1, sizeof *note);
    if (note == NULL)
        return CARRY_NO_MEMORY;
    note->next = notes;
    notes = note;
    const struct frame frame = frame_of(kind, run);
    return carry_send(&note->out, world.comm, rank, tag, &frame, NULL);
}

int notes_tidy(int all) {
    struct rest rest = {0};
    for (struct note **at = &notes; *at != NULL;) {
        int arrived = 0;
        const int code = carry_arrived(&(*at)->out, &arrived);
        if (code != MPI_SUCCESS)
            return code;
        if (arrived) {
            struct note *gone = *at;
            *at = gone->next;
            carry_free(&gone->out);
            free(gone);
        } else if (all) {
            rest_a_little(&rest);
        } else {
            at = &(*at)->next;
        }
    }
    return MPI_SUCCESS;
}

/* ---- runs ---- */

void run_fail(struct run *run, pb_status status) {
    char text[1024];
    snprintf(text, sizeof text, "%s", pb_last_error());
    pb_job_fail(run->job, status, text);
}

pb_status run_open(struct run *run, pb_job *job) {
    const int32_t wanted = pb_job_n_jobs(job);
    *run = (struct run){.job = job, .id = pb_job_call(job), .cap = wanted < n_peers ? wanted : n_peers};
    const pb_status status = pb_job_detach_ctx(job, &run->ctx);
    if (status != PB_OK)
        return status;
    run->numbers = calloc((size_t)run->cap + 1, 1);
    if (run->ctx.data != NULL)
        run->has_ctx = calloc((size_t)world.size, 1);
    if (run->numbers == NULL || (run->ctx.data != NULL && run->has_ctx == NULL))
        return fail(PB_ERR_OUT_OF_MEMORY, "no memory for the books of a map");
    return PB_OK;
}

void run_close(struct run *run) {
    free(run->numbers);
    free(run->has_ctx);
}

static int32_t take_number(struct run *run) {
    int32_t number = 0;
    while (run->numbers[number])
        ++number;
    run->numbers[number] = 1;
    return number;
}

static void join(struct peer *peer, struct run *run) {
    peer->run = run;
    peer->took = 0;
    peer->number = take_number(run);
    ++run->peers;
}

static void leave(struct peer *peer) {
    peer->run->numbers[peer->number] = 0;
    --peer->run->peers;
    peer->run = NULL;
}

int is_quiet(const struct run *run) {
    if (run->in_flight > 0)
        return 0;
    for (int i = 0; run->has_ctx != NULL && i < n_peers; ++i)
        if (peers[i].ctx_run == run && peers[i].ctx.busy)
            return 0;
    return 1;
}

/* ---- feeding ---- */

/* Sends ctx ahead, where it has not been. `*ready` says whether chunks may follow: the place for it may be
 * taken. */
static int send_ctx(struct peer *peer, struct run *run, int *ready) {
    *ready = 1;
    if (run->has_ctx == NULL || run->has_ctx[peer->rank])
        return MPI_SUCCESS;
    int code = carry_arrived(&peer->ctx, ready);
    if (code != MPI_SUCCESS || !*ready)
        return code;
    struct frame frame = frame_of(FRAME_CTX, run->id);
    frame.size = run->ctx.size;
    peer->ctx_run = run;
    run->has_ctx[peer->rank] = 1;
    return carry_send(&peer->ctx, world.comm, peer->rank, TAG_FRAME, &frame, run->ctx.data);
}

static struct slot *free_slot(struct peer *peer) {
    for (int i = 0; i < SLOTS; ++i)
        if (peer->slots[i].id == 0)
            return &peer->slots[i];
    return NULL;
}

/* Claims a chunk and sends it. `*sent` is 0 where nothing is left. */
static int send_chunk(struct peer *peer, struct run *run, int *sent) {
    int code = send_ctx(peer, run, sent);
    if (code != MPI_SUCCESS || !*sent)
        return code;
    *sent = 0;
    struct slot *slot = free_slot(peer);
    pb_status status = pb_job_claim(run->job, &slot->chunk);
    if (status != PB_OK) {
        run->is_dry = 1;
        if (status != PB_DONE)
            run_fail(run, status);
        return MPI_SUCCESS;
    }
    const int joins = peer->run == NULL;
    if (joins)
        join(peer, run);
    pb_bytes message;
    status = pb_job_encode_for(run->job, &slot->chunk, peer->number, &message);
    if (status != PB_OK) {
        run_fail(run, status);
        if (joins)
            leave(peer);
        run->is_dry = 1;
        return MPI_SUCCESS;
    }
    slot->id = ++last_chunk;
    slot->sent = now_seconds();
    peer->has_long |= message.size > BODY_ROOM;
    ++peer->in_flight;
    ++run->in_flight;
    *sent = 1;
    struct frame frame = frame_of(FRAME_WORK, run->id);
    frame.chunk = slot->id;
    frame.size = message.size;
    return carry_send(&slot->out, world.comm, peer->rank, TAG_FRAME, &frame, message.data);
}

static int wants_peers(const struct run *run) { return !run->is_dry && run->peers < run->cap; }

/* The run that should have the next free worker: the one with the fewest. */
static struct run *neediest(struct run *runs) {
    struct run *found = NULL;
    for (struct run *run = runs; run != NULL; run = run->next)
        if (wants_peers(run) && (found == NULL || run->peers < found->peers))
            found = run;
    return found;
}

/* Whether the peer should be left to run dry, so that a run with fewer workers gets it. */
static int is_wanted_elsewhere(const struct peer *peer, struct run *runs) {
    const struct run *other = neediest(runs);
    return other != NULL && other != peer->run && other->peers + 1 < peer->run->peers + (other->peers == 0);
}

/* Chunks that the peer should have. */
static int depth(const struct peer *peer) {
    const int is_quick = peer->took > 0 && peer->took < QUICK;
    return peer->has_long ? 1 : is_quick ? SLOTS : AHEAD;
}

static int may_have_more(const struct peer *peer, struct run *runs) {
    return peer->run != NULL && !peer->run->is_dry && !is_wanted_elsewhere(peer, runs);
}

double fed_for(struct run *runs) {
    double least = 0;
    if (neediest(runs) != NULL)
        return 0;
    for (int i = 0; i < n_peers; ++i) {
        const struct peer *peer = &peers[i];
        if (peer->run == NULL)
            continue;
        if (peer->in_flight < SLOTS || peer->took < WORTH_A_SLEEP || peer->took > QUICK)
            return 0;
        least = least == 0 || peer->took < least ? peer->took : least;
    }
    return least;
}

int feed(struct run *runs) {
    /* First a chunk for everybody, then those that wait. */
    for (int i = 0; i < n_peers; ++i) {
        struct run *run = peers[i].run == NULL ? neediest(runs) : NULL;
        for (int sent = 0; run != NULL && !sent; run = sent ? NULL : neediest(runs)) {
            const int was_dry = run->is_dry;
            const int code = send_chunk(&peers[i], run, &sent);
            if (code != MPI_SUCCESS)
                return code;
            if (!sent && run->is_dry == was_dry)
                break; /* its ctx waits for a place */
        }
    }
    for (int i = 0; i < n_peers; ++i) {
        struct peer *peer = &peers[i];
        int sent = 1;
        while (sent && may_have_more(peer, runs) && peer->in_flight < depth(peer)) {
            const int code = send_chunk(peer, peer->run, &sent);
            if (code != MPI_SUCCESS)
                return code;
        }
    }
    return MPI_SUCCESS;
}

/* ---- replies ---- */

/* The message has been received, since it was answered: its requests end at once. */
static int settle(struct slot *slot) {
    int arrived = 0;
    struct rest rest = {0};
    int code = carry_arrived(&slot->out, &arrived);
    for (; code == MPI_SUCCESS && !arrived; code = carry_arrived(&slot->out, &arrived))
        rest_a_little(&rest);
    return code;
}

/* The chunk began when it came, or when the one before it was over. */
static void learn(struct peer *peer, const struct slot *slot) {
    const double now = now_seconds(), began = slot->sent > peer->answered ? slot->sent : peer->answered;
    peer->took = peer->took == 0 ? now - began : peer->took + (now - began - peer->took) / 8;
    peer->answered = now;
}

static void take_chunk_back(struct peer *peer, struct slot *slot) {
    struct run *run = peer->run;
    slot->id = 0;
    --run->in_flight;
    run->is_dry = 0;
    peer->has_long = 0;
    if (--peer->in_flight == 0)
        leave(peer);
}

int take_reply(struct incoming *in) {
    struct peer *peer = in->rank > 0 && in->rank <= n_peers ? &peers[in->rank - 1] : NULL;
    struct slot *slot = NULL;
    for (int i = 0; peer != NULL && i < SLOTS; ++i)
        if (peer->slots[i].id != 0 && peer->slots[i].id == in->frame.chunk)
            slot = &peer->slots[i];
    if (slot == NULL || in->frame.session != world.session)
        return CARRY_NOT_OURS;
    const int code = settle(slot);
    struct run *run = peer->run;
    const pb_chunk chunk = slot->chunk;
    learn(peer, slot);
    take_chunk_back(peer, slot);
    char why[384];
    switch (in->frame.kind) {
    case FRAME_REPLY:
        if (pb_job_complete(run->job, &chunk, in->data, in->frame.size) != PB_OK) {
            snprintf(why, sizeof why, "(rank %d on %s) sent what is no reply: %.200s", peer->rank, peer->host,
                     pb_last_error());
            pb_job_return(run->job, &chunk, why);
        }
        return code;
    case FRAME_FAILED:
        snprintf(why, sizeof why, "(rank %d on %s) %.*s", peer->rank, peer->host,
                 (int)(in->frame.size < sizeof why ? in->frame.size : sizeof why), (const char *)in->data);
        pb_job_return(run->job, &chunk, why);
        return code;
    default:
        return CARRY_NOT_OURS;
    }
}

int tell_cancel(struct run *run) {
    run->was_cancelled = 1;
    for (int i = 0; i < n_peers; ++i)
        if (peers[i].run == run) {
            const int code = send_note(peers[i].rank, TAG_CONTROL, FRAME_CANCEL, run->id);
            if (code != MPI_SUCCESS)
                return code;
        }
    return MPI_SUCCESS;
}

void give_up(struct run *run, const char *why) {
    fail(PB_ERR_WORKER_LOST, "MPI failed: %s", why);
    run_fail(run, PB_ERR_WORKER_LOST);
    for (int i = 0; i < n_peers; ++i)
        for (int s = 0; peers[i].run == run && s < SLOTS; ++s)
            if (peers[i].slots[s].id != 0) {
                pb_job_return(run->job, &peers[i].slots[s].chunk, "cannot be reached by MPI any more");
                take_chunk_back(&peers[i], &peers[i].slots[s]);
            }
    for (int i = 0; i < n_peers; ++i)
        if (peers[i].ctx_run == run)
            peers[i].ctx.busy = 0; /* its requests are never looked at again */
    run->is_dry = 1;
}
