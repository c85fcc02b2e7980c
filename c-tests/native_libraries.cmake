# What the topics about native thread pools share: the libraries that `scripts/setup test` has installed, as `runs`.
# A library that is missing fails its tests: they say which file could not be loaded.
#   openblas_runs    LABEL:LABEL FILE SECOND_FILE, where the second file leads to the same library
#   openmp_runs      likewise, where the first file is a module that is linked with the runtime
set(debian /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE})

set(openblas_runs "")
foreach(layer IN ITEMS pthread openmp serial)
    set(folder ${debian}/openblas-${layer})
    # The three have one soname: a process can have one of them. libblas is a front that only links to it.
    list(APPEND openblas_runs "${layer}:${layer} ${folder}/libopenblas.so.0 ${folder}/libblas.so.3")
endforeach()

file(GLOB wheel CONFIGURE_DEPENDS
    ${CMAKE_CURRENT_SOURCE_DIR}/../.venv/lib/python*/site-packages/scipy_openblas32/lib/libscipy_openblas.so)
list(SUBLIST wheel 0 1 wheel)
string(REPLACE "/lib/lib" "/./lib/lib" wheel_again "${wheel}")
list(APPEND openblas_runs "wheel:wheel ${wheel} ${wheel_again}")

# LLVM's runtime has GNU's entry points too: GCC's module is linked with the one or the other.
if(NOT TARGET module_team_llvm)
    target_compile_options(module_team PRIVATE -fopenmp)
    target_link_options(module_team PRIVATE -fopenmp)
    add_library(module_team_llvm MODULE modules/team.c)
    target_compile_options(module_team_llvm PRIVATE -fopenmp)
    target_link_libraries(module_team_llvm PRIVATE ${debian}/libomp.so.5)
    set_target_properties(module_team_llvm PROPERTIES
        PREFIX "" OUTPUT_NAME team_llvm LIBRARY_OUTPUT_DIRECTORY ${module_dir})
endif()
set(openmp_runs
    "gomp:gomp ${module_dir}/team.so libgomp.so.1"
    "llvm:llvm ${module_dir}/team_llvm.so libomp.so.5")

# Every thread begins with 3 threads of OpenMP, which is neither a share of the CPUs nor one of the limits that the tests
# name; a worker's share of two CPUs is 1 on every machine. Idle threads sleep at once: memcheck runs one at a time.
set(environment
    "OMP_NUM_THREADS=3;PB_MAX_CPU_COUNT=2;OMP_WAIT_POLICY=passive;KMP_BLOCKTIME=0;OPENBLAS_THREAD_TIMEOUT=4")
