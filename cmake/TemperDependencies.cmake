# Every outside library the project links, found once. Debian packages through their own CMake or
# pkg-config files; LibTorch through an imported target of our own (find_package(Torch) of the wheel
# switches CUDA on and fails with CMake 3.25 and CUDA 13 under C++20).

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC REQUIRED)
find_package(prometheus-cpp REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(GTest REQUIRED)
pkg_check_modules(SQLITE3 REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
find_path(CLI11_INCLUDE_DIR CLI/CLI.hpp REQUIRED)
find_path(CIVETWEB_INCLUDE_DIR CivetServer.h REQUIRED)
find_library(CIVETWEB_CPP_LIBRARY civetweb-cpp REQUIRED)
find_library(CIVETWEB_LIBRARY civetweb REQUIRED)
find_library(JEMALLOC_LIBRARY jemalloc REQUIRED)
if(TEMPER_BENCH)
  find_package(benchmark REQUIRED)
endif()

# gRPC's CMake package names Debian's static upb pieces it does not need at run time; these three
# shared libraries are what a server with health service and reflection links.
add_library(temper_grpc INTERFACE)
target_link_libraries(temper_grpc INTERFACE gRPC::grpc++ gRPC::grpc++_reflection protobuf::libprotobuf)

add_library(temper_civetweb INTERFACE)
target_include_directories(temper_civetweb SYSTEM INTERFACE ${CIVETWEB_INCLUDE_DIR})
target_link_libraries(temper_civetweb INTERFACE ${CIVETWEB_CPP_LIBRARY} ${CIVETWEB_LIBRARY})

add_library(temper_cli11 INTERFACE)
target_include_directories(temper_cli11 SYSTEM INTERFACE ${CLI11_INCLUDE_DIR})

if(TEMPER_TORCH)
  set(torch_root "${TEMPER_DEPS_DIR}/wheels/torch")
  if(NOT EXISTS "${torch_root}/lib/libtorch_cpu.so")
    message(FATAL_ERROR "LibTorch is not in ${torch_root}. Run ./temper deps, or pass -DTEMPER_TORCH=OFF "
                        "to build only the rooms that do not need it.")
  endif()
  # The wheel ships Protobuf 3.13 and fmt 12 headers, which would shadow Debian's. Give the compiler
  # a folder of links to every other entry.
  set(torch_headers "${CMAKE_BINARY_DIR}/torch_headers")
  if(NOT EXISTS "${torch_headers}/ATen")
    file(MAKE_DIRECTORY "${torch_headers}")
    file(GLOB entries RELATIVE "${torch_root}/include" "${torch_root}/include/*")
    foreach(entry IN LISTS entries)
      if(NOT entry MATCHES "^(google|fmt|pybind11)$")
        file(CREATE_LINK "${torch_root}/include/${entry}" "${torch_headers}/${entry}" SYMBOLIC)
      endif()
    endforeach()
  endif()
  add_library(temper_torch INTERFACE)
  target_include_directories(temper_torch SYSTEM INTERFACE
    "${torch_headers}" "${torch_headers}/torch/csrc/api/include")
  target_link_directories(temper_torch INTERFACE "${torch_root}/lib")
  target_link_libraries(temper_torch INTERFACE
    "${torch_root}/lib/libtorch_cpu.so" "${torch_root}/lib/libc10.so" Threads::Threads)
  # libtorch_cpu.so of the wheel needs libcudart and libcupti even on CPU; its RPATH finds them, the
  # linker does not look there.
  target_link_options(temper_torch INTERFACE "-Wl,-rpath-link,${TEMPER_DEPS_DIR}/wheels/nvidia/cu13/lib"
                                             "-Wl,-rpath,${torch_root}/lib")
endif()

# Ampere, Hopper and both Blackwells as machine code (which newer devices of the same generation run),
# the last as PTX too, for what comes after.
if(TEMPER_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100-real 120)
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # the one that NCCL's users link
  enable_language(CUDA)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # CMake 3.25 does not know it
  # IEEE arithmetic is spelled out, and nothing is contracted: the kernels' bits are the CPU's.
  set(TEMPER_CUDA_OPTIONS -fmad=false -ftz=false -prec-div=true -prec-sqrt=true
    -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers,-Werror,-ffp-contract=off)
  find_package(CUDAToolkit REQUIRED)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
  find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)
  add_library(temper_nccl INTERFACE)
  target_include_directories(temper_nccl SYSTEM INTERFACE ${NCCL_INCLUDE_DIR})
  target_link_libraries(temper_nccl INTERFACE ${NCCL_LIBRARY} CUDA::cudart)
  # Whatever is compiled differently in this build; rooms add to it. `./temper test --all` makes no more.
  add_custom_target(temper_cuda_code)
endif()
