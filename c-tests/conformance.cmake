# Every backend runs the same suite; a new one is a line here.
set(runs
    "sequential:sequential"
    "threading:threading"
    "multiprocessing:multiprocessing --forked"
    "openmp:openmp --plugin ${parallel_backend_PLUGIN_DIR}/libpb_backend_openmp.so"
    "cbackend:cbackend" # conformance/cbackend.c
    "loky:loky --separate-memory"
    "remote:remote --separate-memory") # conformance/remote.c
# Workers are forks of the program that memcheck watches: what their exit leaves is not the program's.
set(memcheck --child-silent-after-fork=yes)
