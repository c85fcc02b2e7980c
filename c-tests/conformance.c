/* The conformance suite; see conformance/conformance.h for its arguments and rules, conformance.cmake and
 * tests/engines for the backends that it is run on. */
#include "conformance/conformance.h"
#ifdef CONFORMANCE_ON_RANKS /* plugins/mpi/tests: all ranks are this program */
#include <parallel_backend_mpi.h>
#endif

struct suite suite = {NULL, "", 1, 1, 0};

static int usage(void) {
    fputs("usage: conformance BACKEND [--plugin FILE] [--params TEXT] [--slow] [--separate-memory | "
          "--forked]\n",
          stderr);
    return 2;
}

int main(int argc, char **argv) {
    pb_worker_main(argc, argv);
#ifdef CONFORMANCE_ON_RANKS
    const pb_status served = pb_mpi_serve();
    if (served == PB_DONE)
        return 0;
    CHECK_OK(served);
#endif
    if (argc < 2)
        return usage();
    suite.backend = argv[1];
    suite.is_slow = getenv("PB_TEST_VALGRIND") != NULL;
    for (int i = 2; i < argc; ++i) {
        if (strcmp(argv[i], "--separate-memory") == 0)
            suite.shares_memory = suite.inherits = 0;
        else if (strcmp(argv[i], "--slow") == 0)
            suite.is_slow = 1;
        else if (strcmp(argv[i], "--forked") == 0)
            suite.shares_memory = 0;
        else if (strcmp(argv[i], "--params") == 0 && i + 1 < argc)
            suite.params = argv[++i];
        else if (strcmp(argv[i], "--plugin") == 0 && i + 1 < argc)
            CHECK_OK(pb_load_plugin(argv[++i]));
        else
            return usage();
    }
    if (strcmp(suite.backend, "cbackend") == 0)
        CHECK_OK(register_cbackend());
    if (strcmp(suite.backend, "remote") == 0)
        CHECK_OK(register_remote());

    test_results();
    test_errors();
    test_stopping();
    test_jobs();
    test_context();
    test_limits();
    test_threads();
    test_joins();
    test_bytes();
    CHECK_OK(pb_shutdown());
    return check_result();
}
