# CUDA.cmake - the CUDA part of the build: TWINSTREAM_CUDA says whether there is one, ts_cuda is what
# its rooms compile and link with, TWINSTREAM_CUDA_MISSING what was not found. A machine without it
# builds the same sources with the stubs named no_cuda.c.
#
# cuDNN and NCCL are looked for in TWINSTREAM_NVIDIA_ROOT (a toolkit, or the nvidia folder that pip
# wheels make), in the toolkit's tree and where NVIDIA's apt packages put them.
set(TWINSTREAM_WITH_CUDA AUTO CACHE STRING "build the CUDA part: AUTO (where it is found), ON, OFF")
set(TWINSTREAM_NVIDIA_ROOT "" CACHE PATH "where cuDNN and NCCL are")
set(TWINSTREAM_CUDA OFF)
set(TWINSTREAM_CUDA_MISSING)
add_library(ts_cuda INTERFACE)

if(TWINSTREAM_WITH_CUDA STREQUAL OFF)
    set(TWINSTREAM_CUDA_MISSING "TWINSTREAM_WITH_CUDA is OFF")
    return()
endif()

include(CheckLanguage)
find_program(nvcc nvcc PATHS /usr/local/cuda/bin)
if(nvcc AND NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${nvcc})
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
    list(APPEND TWINSTREAM_CUDA_MISSING nvcc)
else()
    find_package(CUDAToolkit 12.0 QUIET)
    if(NOT CUDAToolkit_FOUND)
        list(APPEND TWINSTREAM_CUDA_MISSING "CUDA Toolkit 12 or later")
    endif()
endif()

# ts_find_nvidia(NAME header library): NAME_INCLUDE, NAME_LIBRARY
function(ts_find_nvidia name header library)
    set(roots ${TWINSTREAM_NVIDIA_ROOT} ${TWINSTREAM_NVIDIA_ROOT}/${library} ${CUDAToolkit_TARGET_DIR} ${CUDAToolkit_LIBRARY_ROOT})
    find_path(${name}_INCLUDE ${header} HINTS ${roots} PATH_SUFFIXES include)
    find_library(${name}_LIBRARY NAMES ${library} lib${library}.so.9 lib${library}.so.2 NAMES_PER_DIR HINTS ${roots}
        PATH_SUFFIXES lib lib64 lib/x86_64-linux-gnu)
    if(NOT ${name}_INCLUDE OR NOT ${name}_LIBRARY)
        set(TWINSTREAM_CUDA_MISSING ${TWINSTREAM_CUDA_MISSING} ${name} PARENT_SCOPE)
    endif()
endfunction()
ts_find_nvidia(cuDNN cudnn.h cudnn)
ts_find_nvidia(NCCL nccl.h nccl)

string(REPLACE ";" ", " TWINSTREAM_CUDA_MISSING "${TWINSTREAM_CUDA_MISSING}")
if(TWINSTREAM_CUDA_MISSING)
    if(TWINSTREAM_WITH_CUDA STREQUAL ON)
        message(FATAL_ERROR "TWINSTREAM_WITH_CUDA is ON but these are missing: ${TWINSTREAM_CUDA_MISSING}; "
            "set TWINSTREAM_NVIDIA_ROOT to where cuDNN and NCCL are")
    endif()
    message(STATUS "no CUDA part; missing: ${TWINSTREAM_CUDA_MISSING}")
    return()
endif()

# Machine code from Turing to Hopper, and PTX for what comes after.
if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90)
endif()
enable_language(CUDA)
set(TWINSTREAM_CUDA ON)
target_include_directories(ts_cuda SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS} ${cuDNN_INCLUDE} ${NCCL_INCLUDE})
target_link_libraries(ts_cuda INTERFACE CUDA::cudart_static ${CMAKE_DL_LIBS})
# cuBLAS, cuDNN and NCCL are opened when they are first needed (runtime/device/cuda/library.h).
get_target_property(cuBLAS_LIBRARY CUDA::cublas IMPORTED_LOCATION)
target_compile_definitions(ts_cuda INTERFACE TS_CUBLAS_LIBRARY="${cuBLAS_LIBRARY}"
    TS_CUBLAS_SO="libcublas.so.${CUDAToolkit_VERSION_MAJOR}" TS_CUDA_WHEEL="cu${CUDAToolkit_VERSION_MAJOR}"
    TS_CUDNN_LIBRARY="${cuDNN_LIBRARY}" TS_NCCL_LIBRARY="${NCCL_LIBRARY}")
# Contraction off, as on the host: the same bits on both. -Xptxas warnings are errors too.
target_compile_options(ts_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++17 -fmad=false
    "SHELL:-Xcompiler -Wall,-Wextra" "SHELL:-Xptxas -warn-spills,-warn-lmem-usage"
    $<$<BOOL:${TWINSTREAM_WERROR}>:-Werror=all-warnings -Xptxas=-Werror>>)
message(STATUS "CUDA ${CUDAToolkit_VERSION}, cuDNN ${cuDNN_LIBRARY}, NCCL ${NCCL_LIBRARY}")
