set(timeout 120) # a few seconds on an idle machine
# A forked child has no use for what the parent's other threads had allocated: that is no leak of the library's.
set(memcheck --leak-check=no)
