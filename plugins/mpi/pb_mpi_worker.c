/* pb-mpi-worker: ranks that work for a program without any MPI in it.
 *
 *     mpirun -n 1 PROGRAM : -n 4 pb-mpi-worker [--start-timeout SECONDS]
 *
 * MPI_Init waits for all ranks, and rank 0 calls it when it first uses the backend. A program that never
 * does, and ends, would leave the workers waiting for ever under some launchers. So a thread ends this
 * process with a text when all ranks have not met in time; the launcher then ends the job. */
#define _POSIX_C_SOURCE 200809L
#include "parallel_backend_mpi.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

pb_status pb_mpi_serve_with(void (*connected)(void));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static int is_connected;

static void note_connected(void) {
    pthread_mutex_lock(&lock);
    is_connected = 1;
    pthread_cond_signal(&change);
    pthread_mutex_unlock(&lock);
}

static void *watch(void *seconds) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += *(const long *)seconds;
    pthread_mutex_lock(&lock);
    while (!is_connected && pthread_cond_timedwait(&change, &lock, &end) == 0) {
    }
    if (!is_connected) {
        fprintf(stderr,
                "pb-mpi-worker: for %ld s rank 0 has not used the backend 'mpi', or not all ranks have "
                "started; the job ends "
                "(--start-timeout SECONDS waits longer, 0 for ever)\n",
                *(const long *)seconds);
        _exit(1);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static int usage(void) {
    fputs("usage: mpirun -n 1 PROGRAM : -n 4 pb-mpi-worker [--start-timeout SECONDS]\n", stderr);
    return 2;
}

int main(int argc, char **argv) {
    static long patience = 300;
    if (argc == 3 && strcmp(argv[1], "--start-timeout") == 0) {
        char *end;
        patience = strtol(argv[2], &end, 10);
        if (end == argv[2] || *end != '\0' || patience < 0)
            return usage();
    } else if (argc != 1) {
        return usage();
    }
    pthread_t watcher;
    if (patience > 0 && pthread_create(&watcher, NULL, watch, &patience) == 0)
        pthread_detach(watcher);
    const pb_status status = pb_mpi_serve_with(note_connected);
    if (status == PB_DONE)
        return 0;
    if (status == PB_OK) {
        fputs("pb-mpi-worker: this is rank 0, which must be the program that calls maps\n", stderr);
        pb_shutdown();
        return usage();
    }
    fprintf(stderr, "pb-mpi-worker: %s\n", pb_last_error());
    return 1;
}
