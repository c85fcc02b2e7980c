set(link ${CMAKE_DL_LIBS})
set(environment "PB_LIBRARY=$<TARGET_FILE:parallel_backend::shared>;PB_TEST_FAKE=${CMAKE_CURRENT_SOURCE_DIR}/engine_faults/fake_python.py")
# Each of some thirty bridges is an interpreter that starts; one test waits for the grace of a cancel.
set(timeout 120)
# What is tested is how soon things end, and memcheck does not know pidfd_open, by which the end of a bridge is seen at once.
set(valgrind OFF)
