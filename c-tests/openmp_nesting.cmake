include(native_libraries.cmake)
# The library to be limited, and the runtime of the region around it.
set(gomp ${module_dir}/team.so)
set(llvm ${module_dir}/team_llvm.so)
set(runs "gomp_in_gomp:gomp ${gomp} ${gomp}" "gomp_in_llvm:gomp ${gomp} ${llvm}"
    "llvm_in_gomp:llvm ${llvm} ${gomp}" "llvm_in_llvm:llvm ${llvm} ${llvm}")
foreach(run IN LISTS openblas_runs)
    string(REGEX REPLACE "^([a-z]+):(.*) [^ ]*$" "\\1_in_gomp:\\2 ${gomp}" run "${run}")
    list(APPEND runs "${run}")
endforeach()
