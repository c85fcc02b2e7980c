include(native_libraries.cmake)
set(runs ${openblas_runs} ${openmp_runs})
set(memcheck --child-silent-after-fork=yes)
