# Sets BRAID_HAS_CUDA. AUTO compiles the .cu files when nvcc is there (no GPU needed) and says so
# in one line when it is not; ON makes its absence an error.
set(BRAID_HAS_CUDA OFF)
if(NOT BRAID_CUDA STREQUAL OFF)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES 90a-real)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    # CMake 3.25 does not know the C++20 flag of nvcc 13.
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    # Kernels are optimised and without assertions whatever the build type: an assertion is a call,
    # and calls serialise wgmma.
    set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} -O3 -DNDEBUG -lineinfo --expt-relaxed-constexpr -Xptxas -warn-spills")
    foreach(config DEBUG RELEASE RELWITHDEBINFO MINSIZEREL)
      set(CMAKE_CUDA_FLAGS_${config} "")
    endforeach()
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${PROJECT_SOURCE_DIR}/tools/strict_nvcc.sh ${CMAKE_CUDA_COMPILER_LAUNCHER})
    set(BRAID_HAS_CUDA ON)
    message(STATUS "Braid: CUDA ${CMAKE_CUDA_COMPILER_VERSION}, kernels are compiled for sm_90a")
  elseif(BRAID_CUDA STREQUAL ON)
    message(FATAL_ERROR "BRAID_CUDA=ON, but no nvcc was found; put it on PATH or set CUDACXX")
  else()
    message(STATUS "Braid: no CUDA compiler found, building for the CPU only")
  endif()
endif()
