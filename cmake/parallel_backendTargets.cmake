# The targets, defined in the same way for a build tree and for an installed package.

# The system libraries that the static library needs: what `rustc --print native-static-libs` says, in its order
# (scripts/check-native-libs compares).
set(PB_NATIVE_LIBS dl gcc_s util rt pthread m dl c)

# parallel_backend_define_targets(INCLUDE_DIR dir [SHARED_LIBRARY file SONAME name] [STATIC_LIBRARY file] [GLOBAL])
#   parallel_backend::shared, ::static     those whose file is given
#   parallel_backend::parallel_backend     ::static where BUILD_SHARED_LIBS is off, else ::shared; or the only one
#   parallel_backend::cxx                  the same with the C++17 layer of parallel_backend.hpp
# GLOBAL makes them visible in all directories, for add_subdirectory.
function(parallel_backend_define_targets)
    cmake_parse_arguments(arg "GLOBAL" "INCLUDE_DIR;SHARED_LIBRARY;SONAME;STATIC_LIBRARY" "" ${ARGN})
    set(global "")
    if(arg_GLOBAL)
        set(global GLOBAL)
    endif()

    if(arg_SHARED_LIBRARY)
        add_library(parallel_backend::shared SHARED IMPORTED ${global})
        set_target_properties(parallel_backend::shared PROPERTIES
            IMPORTED_LOCATION ${arg_SHARED_LIBRARY}
            IMPORTED_SONAME ${arg_SONAME}
            INTERFACE_INCLUDE_DIRECTORIES ${arg_INCLUDE_DIR})
    endif()
    if(arg_STATIC_LIBRARY)
        add_library(parallel_backend::static STATIC IMPORTED ${global})
        set_target_properties(parallel_backend::static PROPERTIES
            IMPORTED_LOCATION ${arg_STATIC_LIBRARY}
            INTERFACE_INCLUDE_DIRECTORIES ${arg_INCLUDE_DIR}
            INTERFACE_LINK_LIBRARIES "${PB_NATIVE_LIBS}")
    endif()

    set(default parallel_backend::shared)
    if(NOT arg_SHARED_LIBRARY OR (arg_STATIC_LIBRARY AND DEFINED BUILD_SHARED_LIBS AND NOT BUILD_SHARED_LIBS))
        set(default parallel_backend::static)
    endif()
    add_library(parallel_backend::parallel_backend INTERFACE IMPORTED ${global})
    target_link_libraries(parallel_backend::parallel_backend INTERFACE ${default})

    add_library(parallel_backend::cxx INTERFACE IMPORTED ${global})
    target_link_libraries(parallel_backend::cxx INTERFACE parallel_backend::parallel_backend)
    target_compile_features(parallel_backend::cxx INTERFACE cxx_std_17)
endfunction()
