# Memcheck takes address space as it likes, and would be the first to miss what the test takes away.
set(valgrind OFF)
