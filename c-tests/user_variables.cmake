include(native_libraries.cmake)
# Not the 3 of the other topics.
string(REPLACE OMP_NUM_THREADS=3 OMP_NUM_THREADS=1 environment "${environment}")
set(runs ${openblas_runs} ${openmp_runs})
