set(link ${CMAKE_DL_LIBS})
# The program that has the static library inside does not lie where pb-worker is looked for.
set(environment "PB_WORKER=${parallel_backend_WORKER}")
# Workers are other programs, which memcheck does not follow.
