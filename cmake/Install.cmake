# What `cmake --install` puts where: libraries with their links, headers, programs, CMake package, pkg-config files.
include(CMakePackageConfigHelpers)

install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/include/ TYPE INCLUDE PATTERN "*.in" EXCLUDE)
install(FILES ${PB_SHARED_LIBRARY} TYPE LIB PERMISSIONS
        OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
install(FILES ${pb_lib_dir}/${PB_SONAME} ${pb_lib_dir}/${pb_cdylib} ${PB_STATIC_LIBRARY} TYPE LIB)
# pb-worker is started by the library, not by people.
set(pb_helpers ${PB_PROGRAMS})
list(FILTER pb_helpers INCLUDE REGEX "/pb-worker$")
set(pb_user_programs ${PB_PROGRAMS})
list(REMOVE_ITEM pb_user_programs ${pb_helpers})
install(PROGRAMS ${pb_user_programs} TYPE BIN)
install(PROGRAMS ${pb_helpers} DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/parallel_backend)

# The CMake package.
set(pb_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/parallel_backend)
configure_package_config_file(
    ${CMAKE_CURRENT_SOURCE_DIR}/cmake/parallel_backendConfig.cmake.in parallel_backendConfig.cmake
    INSTALL_DESTINATION ${pb_package_dir}
    PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_LIBEXECDIR PB_PLUGIN_DIR)
if(PROJECT_VERSION_MAJOR EQUAL 0)
    set(pb_compatibility SameMinorVersion) # as the soname
else()
    set(pb_compatibility SameMajorVersion)
endif()
write_basic_package_version_file(parallel_backendConfigVersion.cmake COMPATIBILITY ${pb_compatibility})
install(FILES
    ${CMAKE_CURRENT_BINARY_DIR}/parallel_backendConfig.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/parallel_backendConfigVersion.cmake
    ${CMAKE_CURRENT_SOURCE_DIR}/cmake/parallel_backendTargets.cmake
    DESTINATION ${pb_package_dir})

# The pkg-config files find everything from their own place, so an installed tree can be moved; a directory that
# was given as an absolute path stays where it is.
set(pb_pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH pb_prefix_from_pc ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" pb_prefix_from_pc "${pb_prefix_from_pc}")
foreach(dir IN ITEMS includedir libdir)
    string(TOUPPER ${dir} DIR)
    if(IS_ABSOLUTE "${CMAKE_INSTALL_${DIR}}")
        set(pb_pc_${dir} "${CMAKE_INSTALL_${DIR}}")
    else()
        set(pb_pc_${dir} "\${prefix}/${CMAKE_INSTALL_${DIR}}")
    endif()
endforeach()
list(TRANSFORM PB_NATIVE_LIBS PREPEND -l OUTPUT_VARIABLE pb_native_flags)
list(JOIN pb_native_flags " " pb_native_flags)
foreach(name IN ITEMS parallel_backend parallel_backend-static)
    configure_file(${CMAKE_CURRENT_SOURCE_DIR}/cmake/${name}.pc.in ${name}.pc @ONLY)
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc DESTINATION ${pb_pc_dir})
endforeach()
