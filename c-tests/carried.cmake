set(link ${CMAKE_DL_LIBS})
