/* A program of which all ranks are copies; its own functions are tasks. Compiled WITH_MPI it initialises and
 * finalises MPI itself, as a program does that uses MPI for other things too. */
#include "check.h"

#include <parallel_backend_mpi.h>

#ifdef WITH_MPI
#include <mpi.h>
#endif

enum { N = 200 };

static int32_t level_and_worker(void *ctx, size_t index, const void *input, void *output) {
    (void)input;
    int32_t *out = output;
    out[0] = pb_nesting_level();
    out[1] = pb_worker_index();
    return index < *(const size_t *)ctx ? 0 : 1;
}

static void map(void) {
    int32_t seen[N][2];
    size_t n = N;
    pb_map_options options = {.struct_size = sizeof options};
    options.ctx_size = sizeof n;
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("mpi", 0, 0, NULL, &scope));
    CHECK_OK(pb_parallel_map(level_and_worker, &n, N, NULL, 0, seen, sizeof *seen, &options));
    for (int i = 0; i < N; ++i) {
        CHECK_INT(1, seen[i][0]);
        CHECK(seen[i][1] >= 0 && seen[i][1] < pb_effective_n_jobs(0));
    }
    CHECK_OK(pb_pop_backend(scope));
}

int main(void) {
#ifdef WITH_MPI
    MPI_Init(NULL, NULL); /* one thread only: a cancel waits for the end of a chunk, all else is the same */
    int rank, sum = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
#endif
    const pb_status status = pb_mpi_serve();
    if (status == PB_OK) {
        map();
        map();
        CHECK_OK(pb_shutdown());
    } else {
        CHECK_STATUS(status, PB_DONE);
    }
#ifdef WITH_MPI
    /* Its own communication goes on. */
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    CHECK_INT(3, sum);
    MPI_Finalize();
#endif
    return status == PB_OK ? check_result() : 0;
}
