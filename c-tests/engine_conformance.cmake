# The engine "echo" runs chunks in the bridge itself: all of the way that leads to Dask and Ray, without them.
set(link ${CMAKE_DL_LIBS})
set(runs "echo:dask --params address=echo$<SEMICOLON>threads=4 --separate-memory")
set(environment "PB_LIBRARY=$<TARGET_FILE:parallel_backend::shared>")
set(timeout 120)
# Most of it runs in the interpreter, which memcheck does not follow: engine_life and engine_faults are for memcheck.
set(valgrind OFF)
