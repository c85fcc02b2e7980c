# Workers that die on purpose are no news: memcheck watches the program that survives them. A forked copy of it has no use
# for what the parent's other threads had allocated: that is no leak of the library's.
set(memcheck --child-silent-after-fork=yes --leak-check=no)
set(timeout 90)
