# The four functions every room's CMakeLists.txt is written in: library, binary, test, proto.

set(TEMPER_WARNINGS -Wall -Wextra -Wno-missing-field-initializers -Werror)

add_library(temper_options INTERFACE)
target_include_directories(temper_options INTERFACE "${CMAKE_SOURCE_DIR}")
target_compile_options(temper_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:${TEMPER_WARNINGS};-fno-math-errno;-ffp-contract=off>)
# GCC collects its garbage less often: up to 1 GB a file, and a tenth of the time is saved.
add_compile_options(
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:--param=ggc-min-expand=400$<SEMICOLON>--param=ggc-min-heapsize=1000000>)
if(TEMPER_SANITIZE)
  target_compile_options(temper_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${TEMPER_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=undefined>)
  # Instrumentation hides initialisations from GCC's flow analysis (its manual says so): false alarms.
  target_compile_options(temper_options INTERFACE
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>)
  target_link_options(temper_options INTERFACE -fsanitize=${TEMPER_SANITIZE})
endif()

# binutils' second linker takes a sixth of the first one's time, and there are some seventy links.
find_program(TEMPER_GOLD ld.gold)
if(TEMPER_GOLD)
  add_link_options(-fuse-ld=gold)
endif()

# Code whose compilation takes longer than it ever runs: tests, and what only drives them.
set(TEMPER_TEST_OPTIONS $<$<CONFIG:Release>:-O0>)
# Code that reads, decides and talks: nothing in it is hot, and up to a third of its compile time goes
# into optimising JSON, CLI11 and generated messages.
set(TEMPER_QUICK_OPTIONS $<$<CONFIG:Release>:-O1>)

# Libraries and programs without the tests; what the thread-annotation check compiles.
add_custom_target(temper_code)

# Debian's Abseil, gRPC and Protobuf are not instrumented; the thread sanitizer must be told of their
# locks, and our code must see Protobuf's classes as that library was compiled.
set(TEMPER_PROGRAM_OBJECTS "")
set(TEMPER_TEST_ENVIRONMENT "TEMPER_BIN_DIR=${CMAKE_BINARY_DIR}/bin;TEMPER_BUILD_DIR=${CMAKE_BINARY_DIR}")
if(TEMPER_SANITIZE MATCHES "thread")
  target_include_directories(temper_grpc SYSTEM BEFORE INTERFACE "${CMAKE_CURRENT_LIST_DIR}/tsan")
  add_library(temper_tsan_absl OBJECT "${CMAKE_CURRENT_LIST_DIR}/tsan_absl_mutex.cc")
  target_link_libraries(temper_tsan_absl PRIVATE temper_options absl::synchronization)
  set(TEMPER_PROGRAM_OBJECTS $<TARGET_OBJECTS:temper_tsan_absl>)
  list(APPEND TEMPER_TEST_ENVIRONMENT
    "TSAN_OPTIONS=ignore_noninstrumented_modules=1 suppressions=${CMAKE_CURRENT_LIST_DIR}/tsan_suppressions.txt")
endif()

option(TEMPER_UNITED "Compile a target's files a few at a time; OFF: each alone, which finds missing includes" ON)

# temper_unite(RESULT TARGET a.cc ...)
#   Sets RESULT to files that include the given ones, up to eight each: most of a compilation goes into
#   reading the headers of LibTorch, gRPC and GoogleTest, here once for eight. Two files of a target may
#   then not give one name to different things, in unnamed namespaces either. Not CMake's UNITY_BUILD:
#   that writes absolute paths, and ccache would find nothing in another checkout.
function(temper_unite result target)
  if(NOT TEMPER_UNITED)
    set(${result} ${ARGN} PARENT_SCOPE)
    return()
  endif()
  set(files ${ARGN})
  set(united "")
  set(number 0)
  set(first 0)
  list(LENGTH files left)
  while(left GREATER 0)
    math(EXPR size "(${left} + (${left} + 7) / 8 - 1) / ((${left} + 7) / 8)")  # even batches
    list(SUBLIST files ${first} ${size} batch)
    math(EXPR first "${first} + ${size}")
    math(EXPR left "${left} - ${size}")
    set(text "")
    foreach(source IN LISTS batch)
      file(RELATIVE_PATH path "${CMAKE_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}/${source}")
      string(APPEND text "#include \"${path}\"\n")
    endforeach()
    set(file "${CMAKE_BINARY_DIR}/united/${target}_${number}.cc")
    file(CONFIGURE OUTPUT "${file}" CONTENT "${text}" @ONLY)
    # A class of an included file that holds one of its unnamed namespace: right, but GCC takes it for a header.
    set_source_files_properties("${file}" PROPERTIES COMPILE_OPTIONS
      "$<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>")
    list(APPEND united "${file}")
    math(EXPR number "${number} + 1")
  endwhile()
  set(${result} ${united} PARENT_SCOPE)
endfunction()

# temper_library(NAME SOURCES a.cc ... [SEPARATE b.cc ...] DEPS ... [PRIVATE_DEPS ...])
#   Target temper_NAME. DEPS are public, PRIVATE_DEPS are seen by the .cc files alone. SEPARATE: files
#   with compiler options of their own.
function(temper_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;SEPARATE;DEPS;PRIVATE_DEPS" ${ARGN})
  set(target temper_${name})
  temper_unite(sources ${target} ${ARG_SOURCES})
  add_library(${target} STATIC ${sources} ${ARG_SEPARATE})
  target_link_libraries(${target} PUBLIC temper_options ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  add_dependencies(temper_code ${target})
endfunction()

# temper_binary(NAME SOURCES main.cc ... DEPS ...)
#   Program NAME in <build>/bin, with jemalloc: glibc gives freed pages back at once, and half the time
#   of a small training loop went into page faults.
function(temper_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES} ${TEMPER_PROGRAM_OBJECTS})
  target_link_libraries(${name} PRIVATE temper_options ${ARG_DEPS})
  add_dependencies(temper_code ${name})
  if(NOT TEMPER_SANITIZE)
    target_link_libraries(${name} PRIVATE ${JEMALLOC_LIBRARY})
  endif()
endfunction()

# temper_test(PATH SOURCES x_test.cc ... [SEPARATE y_test.cc ...] DEPS ... [TIMEOUT seconds] [LABELS unit|integration|e2e|golden])
#   One GoogleTest program and one CTest entry. PATH is "<level>/<room>/<what>", its first part the
#   default label. Programs run in the source folder's root. SEPARATE: files compiled alone, since
#   their helpers are named like others'.
function(temper_test path)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;SEPARATE;DEPS;LABELS" ${ARGN})
  string(REPLACE "/" "_" target "test_${path}")
  string(REGEX REPLACE "/.*" "" level "${path}")
  temper_unite(sources ${target} ${ARG_SOURCES})
  add_executable(${target} ${sources} ${ARG_SEPARATE} ${TEMPER_PROGRAM_OBJECTS})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  target_link_libraries(${target} PRIVATE temper_options ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_options(${target} PRIVATE ${TEMPER_TEST_OPTIONS})
  add_test(NAME ${path} COMMAND ${target} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(TEMPER_SANITIZE)
    math(EXPR ARG_TIMEOUT "4 * ${ARG_TIMEOUT}")  # instrumented code is up to ten times slower
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS ${level})
  endif()
  set_tests_properties(${path} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
    ENVIRONMENT "${TEMPER_TEST_ENVIRONMENT}")
  foreach(source IN LISTS ARG_SOURCES ARG_SEPARATE)
    get_filename_component(absolute "${source}" ABSOLUTE)
    set_property(GLOBAL APPEND PROPERTY TEMPER_TEST_SOURCES "${absolute}")
  endforeach()
endfunction()

# A *_test.cc that no temper_test names fails the configure step.
function(temper_check_tests_registered)
  file(GLOB_RECURSE found "${CMAKE_SOURCE_DIR}/tests/*_test.cc")
  get_property(registered GLOBAL PROPERTY TEMPER_TEST_SOURCES)
  foreach(source IN LISTS found)
    if(NOT source IN_LIST registered)
      if(NOT TEMPER_TORCH)
        continue()  # tests of the LibTorch rooms are left out of such a build as a whole
      endif()
      message(FATAL_ERROR "${source} is in no temper_test(); register it in its folder's CMakeLists.txt.")
    endif()
  endforeach()
endfunction()

# temper_proto(NAME FILES a.proto ...)
#   Target temper_NAME with the generated messages and gRPC stubs; include as "temper/v1/a.pb.h".
function(temper_proto name)
  cmake_parse_arguments(ARG "" "" "FILES" ${ARGN})
  set(out "${CMAKE_BINARY_DIR}/proto")
  file(MAKE_DIRECTORY "${out}")
  find_program(PROTOC protoc REQUIRED)
  find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
  foreach(file IN LISTS ARG_FILES)
    string(REGEX REPLACE "\\.proto$" "" stem "${file}")
    set(generated "${out}/${stem}.pb.cc" "${out}/${stem}.pb.h" "${out}/${stem}.grpc.pb.cc" "${out}/${stem}.grpc.pb.h")
    add_custom_command(OUTPUT ${generated}
      COMMAND ${PROTOC} -I "${CMAKE_SOURCE_DIR}/proto" --cpp_out=${out} --grpc_out=${out}
              --plugin=protoc-gen-grpc=${GRPC_CPP_PLUGIN} "${CMAKE_SOURCE_DIR}/proto/${file}"
      DEPENDS "${CMAKE_SOURCE_DIR}/proto/${file}" VERBATIM)
    list(APPEND sources "${out}/${stem}.pb.cc" "${out}/${stem}.grpc.pb.cc")
  endforeach()
  add_library(temper_${name} STATIC ${sources})
  target_include_directories(temper_${name} SYSTEM PUBLIC "${out}")
  target_link_libraries(temper_${name} PUBLIC temper_grpc)
  set_target_properties(temper_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_compile_options(temper_${name} PRIVATE ${TEMPER_QUICK_OPTIONS})
  # Generated code under the undefined-behaviour sanitizer takes a minute per file and shows nothing.
  string(REPLACE ",undefined" "" sanitize "${TEMPER_SANITIZE}")
  if(sanitize)
    target_compile_options(temper_${name} PRIVATE -fsanitize=${sanitize})
  endif()
endfunction()
