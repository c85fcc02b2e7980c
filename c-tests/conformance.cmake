# Every backend runs the same suite; a new one is a line here.
set(runs sequential threading openmp cbackend)
set(arguments_sequential sequential)
set(arguments_threading threading)
set(arguments_openmp openmp --plugin ${parallel_backend_PLUGIN_DIR}/libpb_backend_openmp.so)
set(arguments_cbackend cbackend) # conformance/cbackend.c
