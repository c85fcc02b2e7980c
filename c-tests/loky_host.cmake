# Its children are ended by what they test: memcheck watches the program that survives them.
set(memcheck --child-silent-after-fork=yes)
set(timeout 90)
