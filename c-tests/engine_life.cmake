set(link ${CMAKE_DL_LIBS})
set(environment "PB_LIBRARY=$<TARGET_FILE:parallel_backend::shared>")
# Each of some twenty bridges is an interpreter that starts.
set(timeout 120)
set(memcheck --child-silent-after-fork=yes)
