# The same programs and the same target names, however the library came into a project.
#   shared, static            C, by the target of that name
#   default, default_cxx      C and C++, by the targets that BUILD_SHARED_LIBS decides
# LOADED_BY_DEFAULT says whether those two need the shared library; ctest asks readelf.
enable_testing()
find_program(READELF readelf REQUIRED)

foreach(target IN ITEMS shared static parallel_backend cxx)
    if(NOT TARGET parallel_backend::${target})
        message(FATAL_ERROR "there is no target parallel_backend::${target}")
    endif()
endforeach()

function(consumer name source target loads_the_shared_library)
    add_executable(${name} ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${source})
    target_link_libraries(${name} PRIVATE parallel_backend::${target})
    add_test(NAME ${name}_runs COMMAND ${name})
    add_test(NAME ${name}_loads COMMAND ${READELF} --dynamic $<TARGET_FILE:${name}>)
    if(loads_the_shared_library)
        set_tests_properties(${name}_loads PROPERTIES
            PASS_REGULAR_EXPRESSION "Shared library: .libparallel_backend\\.so\\.[0-9.]+\\]")
    else()
        set_tests_properties(${name}_loads PROPERTIES FAIL_REGULAR_EXPRESSION libparallel_backend)
    endif()
endfunction()

consumer(shared main.c shared TRUE)
consumer(static main.c static FALSE)
consumer(default main.c parallel_backend ${LOADED_BY_DEFAULT})
consumer(default_cxx main.cpp cxx ${LOADED_BY_DEFAULT})
