/* The engine for one MPI: begins and ends it, and gives the front its table. */
#define _POSIX_C_SOURCE 200809L
#include "engine.h"
#include "manager.h"
#include "worker.h"
#include "world.h"

#include <pthread.h>
#include <stdio.h>

__attribute__((visibility("default"))) pb_mpi_engine_fn pb_mpi_engine;

/* Held over beginning and end, and while sessions are counted; never while a map or a task runs. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    int has_begun; /* this is rank 0, and connected */
    int is_serving;
    int sessions;
    pb_status failed; /* a failure to begin stays */
    char text[512];
} life;

static pb_status no_workers(void) {
    return fail(PB_ERR_BACKEND_UNAVAILABLE,
                "the MPI job has one rank, and so no workers: start the program as 'mpirun -n 1 PROGRAM "
                ": -n 4 pb-mpi-worker', or more ranks of a program that calls pb_mpi_serve()");
}

static pb_status wrong_rank(void) {
    return fail(PB_ERR_BACKEND_UNAVAILABLE,
                "this process is rank %d: maps on backend 'mpi' begin on rank 0, the others call "
                "pb_mpi_serve() and work for it",
                world.rank);
}

/* Under the lock: connects this rank, if it is rank 0, with all others. */
static pb_status begin(double timeout) {
    if (life.is_serving)
        return wrong_rank();
    if (life.has_begun)
        return world_is_here() ? PB_OK
                               : fail(PB_ERR_BACKEND_UNAVAILABLE,
                                      "this process is a fork of rank 0, and MPI does not come along");
    pb_status status = world_begin();
    if (status == PB_OK && world.rank != 0)
        status = wrong_rank();
    if (status == PB_OK && world.size < 2)
        status = no_workers();
    if (status == PB_OK)
        status = world_connect(timeout);
    if (status != PB_OK)
        return status;
    life.has_begun = 1;
    life.failed = manager_begin(timeout);
    if (life.failed != PB_OK)
        snprintf(life.text, sizeof life.text, "%s", pb_last_error());
    return life.failed;
}

static pb_status open_session(double timeout) {
    pthread_mutex_lock(&lock);
    pb_status status = begin(timeout);
    if (status == PB_OK && life.failed != PB_OK)
        status = pb_backend_fail(life.failed, life.text);
    if (status == PB_OK)
        ++life.sessions;
    pthread_mutex_unlock(&lock);
    return status;
}

static void close_session(void) {
    pthread_mutex_lock(&lock);
    --life.sessions;
    pthread_mutex_unlock(&lock);
}

/* Where the ranks have not met, or cannot be reached any more, MPI is left as it is: to finalise it is to
 * wait for all. */
static void shut_down(void) {
    pthread_mutex_lock(&lock);
    if (life.has_begun && life.sessions == 0 && world_is_here()) {
        if (manager_end())
            world_end();
        life.has_begun = 0;
        life.failed = PB_OK;
    } else if (!life.has_begun && world.ours && world.size == 1 && world_is_here()) {
        world_end();
    }
    pthread_mutex_unlock(&lock);
}

/* Tasks may ask for the backend, or for a shutdown, so the lock is free while they run. */
static pb_status work_for_rank_0(void (*connected)(void)) {
    /* Rank 0 may take its time. */
    pb_status status = world_connect(0);
    if (status != PB_OK)
        return status;
    if (connected != NULL)
        connected();
    life.is_serving = 1;
    pthread_mutex_unlock(&lock);
    status = worker_serve();
    pthread_mutex_lock(&lock);
    life.is_serving = 0;
    if (status == PB_DONE)
        world_end();
    return status;
}

static pb_status serve(double timeout, void (*connected)(void)) {
    pthread_mutex_lock(&lock);
    pb_status status = life.has_begun ? PB_OK : world_begin();
    if (status == PB_OK)
        status = world.rank == 0 ? begin(timeout) : work_for_rank_0(connected);
    pthread_mutex_unlock(&lock);
    return status;
}

const struct pb_mpi_engine *pb_mpi_engine(void) {
    static const struct pb_mpi_engine table = {
        .version = PB_MPI_ENGINE_VERSION,
        .open = open_session,
        .close = close_session,
        .workers = manager_workers,
        .run = manager_run,
        .shutdown = shut_down,
        .serve = serve,
    };
    return &table;
}
