/* Rank 0: runs maps on the other ranks. There is no thread of its own: of the threads that are in
 * `manager_run`, one leads. It alone calls MPI and touches the books (runs.h), for its own map and for all
 * others; the rest sleep. So MPI_THREAD_SERIALIZED will do, and a lone map is driven by the thread that
 * called it.
 *
 * The lead: `is_led` is written under `lock`. Who finds it 0 while its map is not over takes it; who gives it
 * up, because its own map is over, wakes all, one of whom takes it. New maps are handed over in `arrivals`,
 * under the lock; the leader sets `is_over` of maps of others under the lock and wakes them, after which it
 * never touches such a map again. So nobody sleeps whom nobody will wake: either there is a leader, or
 * whoever gave up the lead has woken all.
 *
 * No lock is held while the leader is in MPI, or in the library (which may call the progress callback of a
 * map). A callback that calls a map on this backend itself would wait for its own thread: `leads_here`
 * refuses it. */
#define _POSIX_C_SOURCE 200809L
#include "manager.h"
#include "runs.h"
#include "world.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static int is_led;
static struct run *arrivals;
static int has_arrivals; /* read without the lock */
static __thread int leads_here;

/* The leader's. */
static struct run *runs;
static struct incoming in;
static char broken[256]; /* why MPI cannot be used any more */

int32_t manager_workers(void) { return n_peers; }

/* ---- leading ---- */

static void take_arrivals(void) {
    if (!__atomic_load_n(&has_arrivals, __ATOMIC_ACQUIRE))
        return;
    pthread_mutex_lock(&lock);
    struct run *run = arrivals;
    arrivals = NULL;
    has_arrivals = 0;
    pthread_mutex_unlock(&lock);
    while (run != NULL) {
        struct run *next = run->next;
        run->next = runs;
        runs = run;
        run = next;
    }
}

/* All replies that are there. `*came` counts them. */
static int take_replies(int *came) {
    for (;;) {
        int one = 0;
        int code = carry_receive(&in, world.comm, MPI_ANY_SOURCE, TAG_FRAME, &one);
        if (code != MPI_SUCCESS || !one)
            return code;
        ++*came;
        if ((code = take_reply(&in)) != MPI_SUCCESS)
            return code;
        if (*came % n_peers == 0)
            return MPI_SUCCESS; /* others want to be fed */
    }
}

static int progress_ctxs(void) {
    for (int i = 0; i < n_peers; ++i) {
        int arrived;
        const int code = carry_arrived(&peers[i].ctx, &arrived);
        if (code != MPI_SUCCESS)
            return code;
    }
    return MPI_SUCCESS;
}

/* One round. `*busy` says whether anything happened. */
static int round_of_work(int *busy) {
    int code = MPI_SUCCESS;
    const int had = runs != NULL;
    take_arrivals();
    *busy = (runs != NULL) != had;
    for (struct run *run = runs; run != NULL && code == MPI_SUCCESS; run = run->next)
        if (!run->was_cancelled && pb_job_cancelled(run->job))
            code = tell_cancel(run);
    if (code == MPI_SUCCESS)
        code = take_replies(busy);
    if (code == MPI_SUCCESS)
        code = feed(runs);
    if (code == MPI_SUCCESS)
        code = notes_tidy(0);
    return code == MPI_SUCCESS ? progress_ctxs() : code;
}

static int forget_ctx(const struct run *run) {
    int code = MPI_SUCCESS;
    for (int i = 0; run->has_ctx != NULL && i < n_peers && code == MPI_SUCCESS; ++i)
        if (run->has_ctx[peers[i].rank])
            code = send_note(peers[i].rank, TAG_FRAME, FRAME_FORGET, run->id);
    return code;
}

/* Ends the runs that are over. */
static void end_runs(void) {
    for (struct run **at = &runs; *at != NULL;) {
        struct run *run = *at;
        if (!run->is_dry || !is_quiet(run)) {
            at = &run->next;
            continue;
        }
        *at = run->next;
        if (*broken == '\0')
            forget_ctx(run);
        pthread_mutex_lock(&lock);
        run->is_over = 1;
        pthread_cond_broadcast(&change);
        pthread_mutex_unlock(&lock);
    }
}

static void break_all(int code) {
    if (*broken == '\0')
        snprintf(broken, sizeof broken, "%s", carry_error(code));
    for (struct run *run = runs; run != NULL; run = run->next)
        give_up(run, broken);
}

static void lead(const struct run *own) {
    struct rest rest = {0};
    leads_here = 1;
    while (!own->is_over) {
        int busy = 0, code = MPI_SUCCESS;
        if (*broken == '\0' && (code = round_of_work(&busy)) != MPI_SUCCESS)
            break_all(code);
        else if (*broken != '\0') {
            take_arrivals();
            break_all(code);
        }
        end_runs();
        const double fed = fed_for(runs);
        if (busy)
            rest = (struct rest){0};
        else if (!own->is_over && fed > 0)
            sleep_for(fed);
        else if (!own->is_over)
            rest_a_little(&rest);
    }
    leads_here = 0;
}

/* ---- a map ---- */

static pb_status check_thread(void) {
    if (!world_is_here())
        return fail(PB_ERR_BACKEND_UNAVAILABLE,
                    "backend 'mpi': this process is a fork of rank 0, and MPI does not come along");
    if (leads_here)
        return fail(PB_ERR_UNSUPPORTED,
                    "a progress callback of backend 'mpi' cannot call a map on it: its thread is the one "
                    "that serves the ranks");
    int is_main = 1;
    if (world.level < MPI_THREAD_SERIALIZED)
        MPI_Is_thread_main(&is_main);
    if (!is_main)
        return fail(PB_ERR_UNSUPPORTED,
                    "MPI was initialised for one thread, so maps on backend 'mpi' must be called on that "
                    "one, and not be submitted: use MPI_Init_thread(..., MPI_THREAD_SERIALIZED, ...), or "
                    "leave it to the library");
    return PB_OK;
}

static void drive(struct run *run) {
    pthread_mutex_lock(&lock);
    run->next = arrivals;
    arrivals = run;
    __atomic_store_n(&has_arrivals, 1, __ATOMIC_RELEASE);
    while (!run->is_over) {
        if (is_led) {
            pthread_cond_wait(&change, &lock);
            continue;
        }
        is_led = 1;
        pthread_mutex_unlock(&lock);
        lead(run);
        pthread_mutex_lock(&lock);
        is_led = 0;
        pthread_cond_broadcast(&change);
    }
    pthread_mutex_unlock(&lock);
}

pb_status manager_run(pb_job *job) {
    pb_status status = check_thread();
    if (status != PB_OK)
        return status;
    struct run run;
    status = run_open(&run, job);
    if (status == PB_OK)
        drive(&run); /* what goes wrong there, the job knows */
    run_close(&run);
    return status;
}

/* ---- beginning and end ---- */

static uint64_t new_session(void) {
    uint64_t session = 0;
    FILE *random = fopen("/dev/urandom", "rb");
    if (random != NULL) {
        if (fread(&session, sizeof session, 1, random) != 1)
            session = 0;
        fclose(random);
    }
    return session != 0 ? session : 1;
}

static pb_status check_hello(struct peer *peer, const struct incoming *hello) {
    const struct hello *body = hello->data;
    if (hello->frame.kind != FRAME_HELLO || hello->frame.size != sizeof *body)
        return fail(
            PB_ERR_ABI,
            "rank %d did not begin with a greeting of this protocol: all ranks need the same version of "
            "parallel_backend",
            hello->rank);
    snprintf(peer->host, sizeof peer->host, "%.95s", body->host);
    if (strncmp(body->version, pb_version(), sizeof body->version) != 0)
        return fail(
            PB_ERR_ABI,
            "rank %d on %s has version %.31s of parallel_backend, rank 0 has %s: all ranks need the same",
            hello->rank, peer->host, body->version, pb_version());
    return PB_OK;
}

static pb_status greet(double timeout) {
    const double end = now_seconds() + timeout;
    pb_status status = PB_OK;
    struct rest rest = {0};
    for (int greeted = 0; greeted < n_peers;) {
        int came = 0;
        const int code = carry_receive(&in, world.comm, MPI_ANY_SOURCE, TAG_FRAME, &came);
        if (code != MPI_SUCCESS)
            return fail(PB_ERR_ABI, "a rank's greeting cannot be read: %s", carry_error(code));
        if (came) {
            const pb_status checked = check_hello(&peers[in.rank - 1], &in);
            status = status == PB_OK ? checked : status;
            ++greeted;
        } else if (now_seconds() > end) {
            return fail(PB_ERR_BACKEND_UNAVAILABLE, "only %d of %d workers have answered in %g s", greeted,
                        n_peers, timeout);
        } else {
            rest_a_little(&rest);
        }
    }
    return status;
}

static int welcome(struct peer *peer) {
    char host[sizeof peer->host] = "";
    gethostname(host, sizeof host - 1);
    struct welcome body = {.is_far = strcmp(host, peer->host) != 0};
    for (int i = 0; i < n_peers; ++i)
        body.workers_here += strcmp(peers[i].host, peer->host) == 0;
    const struct frame frame = {
        .magic = FRAME_MAGIC, .kind = FRAME_WELCOME, .session = world.session, .size = sizeof body};
    return carry_send(&peer->ctx, world.comm, peer->rank, TAG_FRAME, &frame, &body);
}

pb_status manager_begin(double timeout) {
    n_peers = world.size - 1;
    peers = calloc((size_t)n_peers + 1, sizeof *peers);
    if (peers == NULL) {
        n_peers = 0;
        return fail(PB_ERR_OUT_OF_MEMORY, "no memory for a list of %d ranks", world.size);
    }
    for (int i = 0; i < n_peers; ++i)
        peers[i].rank = i + 1;
    world.session = new_session();
    pb_status status = greet(timeout);
    for (int i = 0; i < n_peers && status == PB_OK; ++i) {
        const int code = welcome(&peers[i]);
        if (code != MPI_SUCCESS)
            status = fail(PB_ERR_IO, "rank %d cannot be reached: %s", peers[i].rank, carry_error(code));
    }
    return status;
}

int manager_end(void) {
    int code = *broken == '\0' ? MPI_SUCCESS : MPI_ERR_OTHER;
    for (int i = 0; i < n_peers && code == MPI_SUCCESS; ++i)
        code = send_note(peers[i].rank, TAG_FRAME, FRAME_BYE, 0);
    if (code == MPI_SUCCESS)
        code = notes_tidy(1);
    for (int i = 0; i < n_peers; ++i) {
        carry_free(&peers[i].ctx);
        for (int s = 0; s < SLOTS; ++s)
            carry_free(&peers[i].slots[s].out);
    }
    free(peers);
    peers = NULL;
    n_peers = 0;
    carry_drop(&in);
    return code == MPI_SUCCESS;
}
