/* runs.h: the manager's books: maps that run, and ranks that work for them. Only the thread that leads
 * touches them. */
#ifndef PB_MPI_RUNS_H
#define PB_MPI_RUNS_H

#include "carry.h"

#include <parallel_backend.h>

/* Chunks on their way to one worker: while one runs the next one waits there. Of quick ones SLOTS, so that
 * rank 0 can sleep meanwhile; of long messages one at a time. */
enum { AHEAD = 2 };

/* A map. It lies on the stack of the thread that called it. */
struct run {
    pb_job *job;
    uint64_t id;       /* pb_job_call */
    int32_t cap;       /* workers that it may have */
    int32_t peers;     /* that it has */
    int32_t in_flight; /* chunks */
    pb_bytes ctx;      /* sent once to each worker, ahead of its chunks */
    char *has_ctx;     /* by rank; NULL where there is none */
    char *numbers;     /* by worker index: whether it is taken */
    int is_dry;        /* nothing was left to claim when it was last tried, and nothing has come back since */
    int was_cancelled; /* the workers were told */
    int is_over;       /* written under the lock of manager.c */
    struct run *next;
};

/* A chunk on its way. */
struct slot {
    uint64_t id; /* 0: free */
    double sent; /* by now_seconds */
    pb_chunk chunk;
    struct outgoing out;
};

/* A rank that works; it works for one map at a time. */
struct peer {
    int rank;
    struct run *run; /* while chunks of it are on their way there */
    int32_t number;  /* the worker index in that map */
    int32_t in_flight;
    int has_long;    /* one of them has a long message */
    double answered; /* when its last reply was taken, by now_seconds */
    double took;     /* seconds that a chunk takes there, averaged; 0 while nothing is known */
    struct slot slots[SLOTS];
    struct outgoing ctx; /* of `ctx_run`; at first the welcome */
    struct run *ctx_run;
    char host[96];
};

extern struct peer *peers;
extern int n_peers;

/* Frames without a body that nobody waits for. An MPI error code. */
int send_note(int rank, int tag, enum frame_kind kind, uint64_t run);
/* Tidies up those that have arrived; `all` waits for them. */
int notes_tidy(int all);

/* Makes the run's books. Errors: no memory, or a ctx that cannot be sent. */
pb_status run_open(struct run *run, pb_job *job);
void run_close(struct run *run);
/* Gives idle or half-idle peers what there is to do. An MPI error code. */
int feed(struct run *runs);
/* Seconds for which no worker will need anything, if all have chunks waiting; else 0. */
double fed_for(struct run *runs);
/* Takes a frame that came from a worker. */
int take_reply(struct incoming *in);
/* Tells the workers of a run that it was cancelled. */
int tell_cancel(struct run *run);
/* Whether nothing of it is on its way any more. */
int is_quiet(const struct run *run);
/* MPI has failed: all that is on its way for the run is lost. */
void give_up(struct run *run, const char *why);
/* Notes the backend's own failure, with this thread's error text. */
void run_fail(struct run *run, pb_status status);

#endif
