set(link ${CMAKE_DL_LIBS})
set(environment "PB_LIBRARY=$<TARGET_FILE:parallel_backend::shared>")
# Each of some twenty bridges is an interpreter that starts.
set(timeout 120)
# A forked child has no use for what the parent's other threads had allocated: that is no leak of the library's.
set(memcheck --leak-check=no)
