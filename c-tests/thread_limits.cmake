include(native_libraries.cmake)
set(runs ${openblas_runs} ${openmp_runs})
