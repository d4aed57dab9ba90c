# FindCMocka.cmake - the unit-test library; target CMocka::cmocka.
find_path(CMocka_INCLUDE_DIR cmocka.h)
find_library(CMocka_LIBRARY cmocka)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CMocka REQUIRED_VARS CMocka_LIBRARY CMocka_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libcmocka-dev, or run tests/run, which does")
if(CMocka_FOUND AND NOT TARGET CMocka::cmocka)
    add_library(CMocka::cmocka UNKNOWN IMPORTED)
    set_target_properties(CMocka::cmocka PROPERTIES IMPORTED_LOCATION ${CMocka_LIBRARY}
        INTERFACE_INCLUDE_DIRECTORIES ${CMocka_INCLUDE_DIR})
endif()
