/* This process as a rank: world.h. */
#define _POSIX_C_SOURCE 200809L
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

struct world world = {.comm = MPI_COMM_NULL};

/* The copy that is being made: MPI cannot take back the wish for one, so a later try goes on with it. */
static MPI_Comm wanted = MPI_COMM_NULL;
static MPI_Request making = MPI_REQUEST_NULL;

pb_status fail(pb_status status, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return pb_backend_fail(status, text);
}

int world_is_here(void) { return world.process == getpid(); }

pb_status world_begin(void) {
    int is_up = 0, is_over = 0;
    MPI_Finalized(&is_over);
    if (is_over)
        return fail(PB_ERR_BACKEND_UNAVAILABLE,
                    "MPI was finalised already (pb_shutdown does it where the library has "
                    "initialised MPI) and cannot start a second time in a process");
    MPI_Initialized(&is_up);
    if (!is_up) {
        const int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &world.level);
        if (code != MPI_SUCCESS)
            return fail(PB_ERR_BACKEND_UNAVAILABLE, "MPI_Init_thread: %s", carry_error(code));
        world.ours = 1;
    } else {
        MPI_Query_thread(&world.level);
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world.size);
    world.process = getpid();
    return PB_OK;
}

pb_status world_connect(double timeout) {
    int code = MPI_SUCCESS;
    if (making == MPI_REQUEST_NULL)
        code = MPI_Comm_idup(MPI_COMM_WORLD, &wanted, &making);
    const double end = now_seconds() + timeout;
    struct rest rest = {0};
    for (int made = 0; code == MPI_SUCCESS && !made; rest_a_little(&rest)) {
        code = MPI_Test(&making, &made, MPI_STATUS_IGNORE);
        if (!made && timeout > 0 && now_seconds() > end)
            return fail(PB_ERR_BACKEND_UNAVAILABLE,
                        "after %g s not all of the job's %d ranks are there: every rank but 0 must run "
                        "pb-mpi-worker or call "
                        "pb_mpi_serve() (parameter start_timeout=SECONDS waits longer)",
                        timeout, world.size);
        if (made)
            break;
    }
    if (code != MPI_SUCCESS)
        return fail(PB_ERR_BACKEND_UNAVAILABLE, "MPI_Comm_idup: %s", carry_error(code));
    world.comm = wanted;
    wanted = MPI_COMM_NULL;
    MPI_Comm_set_errhandler(world.comm, MPI_ERRORS_RETURN);
    return PB_OK;
}

void world_end(void) {
    if (world.comm != MPI_COMM_NULL)
        MPI_Comm_free(&world.comm);
    if (world.ours)
        MPI_Finalize();
    world.ours = 0;
}
