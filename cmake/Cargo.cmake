# Builds the crate by cargo and stages what it made under lib/ and bin/ of the build tree, with the names and
# links that the installed files have. Sets PB_SHARED_LIBRARY, PB_STATIC_LIBRARY, PB_SONAME and PB_PROGRAMS.

find_program(PB_CARGO cargo HINTS $ENV{CARGO_HOME}/bin $ENV{HOME}/.cargo/bin REQUIRED DOC "The cargo to build with")

# A release build unless a debug build is asked for: a Rust library without optimisation is of no use to others.
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
    set(pb_profile dev)
    set(pb_profile_dir debug)
else()
    set(pb_profile release)
    set(pb_profile_dir release)
endif()

if(DEFINED ENV{CARGO_TARGET_DIR})
    set(pb_target_dir_default $ENV{CARGO_TARGET_DIR})
else()
    set(pb_target_dir_default ${CMAKE_CURRENT_BINARY_DIR}/cargo)
endif()
set(PB_CARGO_TARGET_DIR ${pb_target_dir_default} CACHE PATH "Where cargo builds")
set(pb_cargo_out ${PB_CARGO_TARGET_DIR}/${pb_profile_dir})

# build.rs gives the shared library this soname: 0.MINOR while the major version is 0, then MAJOR.
if(PROJECT_VERSION_MAJOR EQUAL 0)
    set(pb_abi 0.${PROJECT_VERSION_MINOR})
else()
    set(pb_abi ${PROJECT_VERSION_MAJOR})
endif()
if(APPLE)
    set(pb_cdylib libparallel_backend.dylib)
    set(PB_SONAME libparallel_backend.${pb_abi}.dylib)
    set(pb_shared_name libparallel_backend.${PROJECT_VERSION}.dylib)
else()
    set(pb_cdylib libparallel_backend.so)
    set(PB_SONAME libparallel_backend.so.${pb_abi})
    set(pb_shared_name libparallel_backend.so.${PROJECT_VERSION})
endif()
set(pb_lib_dir ${CMAKE_CURRENT_BINARY_DIR}/lib)
set(PB_SHARED_LIBRARY ${pb_lib_dir}/${pb_shared_name})
set(PB_STATIC_LIBRARY ${pb_lib_dir}/libparallel_backend.a)

# Every program of the crate: src/bin/NAME.rs or src/bin/NAME/main.rs.
file(GLOB pb_program_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/bin/*)
set(PB_PROGRAMS "")
set(pb_program_files "")
foreach(source IN LISTS pb_program_sources)
    cmake_path(GET source STEM name)
    list(APPEND PB_PROGRAMS ${CMAKE_CURRENT_BINARY_DIR}/bin/${name})
    list(APPEND pb_program_files ${pb_cargo_out}/${name})
endforeach()

# Always run: cargo itself knows best whether there is anything to do.
add_custom_target(parallel_backend_cargo ALL
    COMMAND ${CMAKE_COMMAND} -E env CARGO_TARGET_DIR=${PB_CARGO_TARGET_DIR}
            ${PB_CARGO} build --locked --profile ${pb_profile} --lib --bins
    COMMAND ${CMAKE_COMMAND} -E make_directory ${pb_lib_dir} ${CMAKE_CURRENT_BINARY_DIR}/bin
    COMMAND ${CMAKE_COMMAND} -E copy_if_different ${pb_cargo_out}/${pb_cdylib} ${PB_SHARED_LIBRARY}
    COMMAND ${CMAKE_COMMAND} -E create_symlink ${pb_shared_name} ${pb_lib_dir}/${PB_SONAME}
    COMMAND ${CMAKE_COMMAND} -E create_symlink ${PB_SONAME} ${pb_lib_dir}/${pb_cdylib}
    COMMAND ${CMAKE_COMMAND} -E copy_if_different ${pb_cargo_out}/libparallel_backend.a ${PB_STATIC_LIBRARY}
    COMMAND ${CMAKE_COMMAND} -E copy_if_different ${pb_program_files} ${CMAKE_CURRENT_BINARY_DIR}/bin
    BYPRODUCTS ${PB_SHARED_LIBRARY} ${PB_STATIC_LIBRARY} ${PB_PROGRAMS}
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
    COMMENT "cargo build (${pb_profile})"
    USES_TERMINAL VERBATIM)
