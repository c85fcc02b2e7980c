# Workers are forks of the program, or the program again, which memcheck does not follow.
set(memcheck --child-silent-after-fork=yes)
