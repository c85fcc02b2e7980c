/* A program that finds no workers, or wrong ones: alone no_launcher | one_rank | other_version. It checks
 * what the error says, and that the program goes on. */
#include "check.h"
#include "tasks.h"

static void check_refused(const char *params, pb_status status, const char *text) {
    pb_scope scope = 0;
    CHECK_STATUS(pb_push_backend("mpi", 0, 0, params, &scope), status);
    CHECK_TEXT(text);
    int64_t inputs[4] = {1, 2, 3, 4}, outputs[4];
    CHECK_OK(pb_parallel_map(twice, NULL, 4, inputs, sizeof *inputs, outputs, sizeof *outputs, NULL));
    CHECK_INT(8, outputs[3]);
}

int main(int argc, char **argv) {
    CHECK_INT(2, argc);
    if (strcmp(argv[1], "no_launcher") == 0) {
        check_refused(NULL, PB_ERR_BACKEND_UNAVAILABLE, "mpirun -n 1 PROGRAM : -n 4 pb-mpi-worker");
        CHECK_STATUS(pb_set_default_backend("mpi", 0, 0, NULL), PB_ERR_BACKEND_UNAVAILABLE);
        CHECK_INT(0, setenv("PB_MPI_PLUGIN", "nosuchmpi", 1));
        check_refused(NULL, PB_ERR_BACKEND_UNAVAILABLE, "no engine 'nosuchmpi' (variable PB_MPI_PLUGIN)");
        check_refused("plugin=/nowhere/engine.so", PB_ERR_BACKEND_UNAVAILABLE, "'/nowhere/engine.so'");
    } else if (strcmp(argv[1], "one_rank") == 0) {
        check_refused(NULL, PB_ERR_BACKEND_UNAVAILABLE, "one rank, and so no workers");
        check_refused("start_timeout=never", PB_ERR_INVALID_ARGUMENT,
                      "'start_timeout' of backend 'mpi' is 'never'");
    } else if (strcmp(argv[1], "other_version") == 0) {
        check_refused(NULL, PB_ERR_ABI, "has version 9.9.9 of parallel_backend, rank 0 has ");
        check_refused(NULL, PB_ERR_ABI, "has version 9.9.9"); /* again, at once */
    } else {
        return 2;
    }
    CHECK_OK(pb_shutdown());
    return check_result();
}
