# Workers that die on purpose are no news: memcheck watches the program that survives them.
set(memcheck --child-silent-after-fork=yes)
set(timeout 90)
