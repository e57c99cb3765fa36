# Flags every target shares, and the two helpers that declare a folder's library and its tests.

add_library(braid_flags INTERFACE)
target_compile_options(braid_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${BRAID_WERROR}>>:-Werror>)
if(BRAID_SANITIZE)
  target_compile_options(braid_flags INTERFACE -fsanitize=${BRAID_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(braid_flags INTERFACE -fsanitize=${BRAID_SANITIZE})
endif()

# braid_library(NAME tensor DEPS base device LIBS fmt::fmt)
# One library per folder, named after it, made of the folder's .cc files (and .cu files where CUDA
# is compiled). DEPS is the only way to see another folder's headers; LIBS are outside libraries.
function(braid_library)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME" "DEPS;LIBS")
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS *.cc)
  if(BRAID_HAS_CUDA)
    file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS *.cu)
    list(APPEND sources ${cuda_sources})
  endif()
  list(TRANSFORM A_DEPS PREPEND braid::)
  if(sources)
    add_library(braid_${A_NAME} STATIC ${sources})
    target_link_libraries(braid_${A_NAME} PUBLIC ${A_DEPS} ${A_LIBS} PRIVATE braid_flags)
    target_include_directories(braid_${A_NAME} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  else()
    add_library(braid_${A_NAME} INTERFACE)
    target_link_libraries(braid_${A_NAME} INTERFACE ${A_DEPS} ${A_LIBS})
    target_include_directories(braid_${A_NAME} INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  endif()
  add_library(braid::${A_NAME} ALIAS braid_${A_NAME})
endfunction()

# braid_tests(NAME text DEPS text)
# One executable braid_<name>_tests of the folder's *_test.cc and other .cc files, each test
# registered with ctest under LABEL, `cpu` if none is given.
function(braid_tests)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME;LABEL" "DEPS;LIBS")
  if(NOT A_LABEL)
    set(A_LABEL cpu)
  endif()
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  if(NOT sources)
    return()
  endif()
  list(TRANSFORM A_DEPS PREPEND braid::)
  add_executable(braid_${A_NAME}_tests ${sources})
  target_link_libraries(braid_${A_NAME}_tests PRIVATE ${A_DEPS} ${A_LIBS} braid_test_support braid_flags
    GTest::gmock GTest::gtest_main)
  # Names without the bytes of parameters that have no printer.
  gtest_discover_tests(braid_${A_NAME}_tests NO_PRETTY_VALUES
                       PROPERTIES LABELS ${A_LABEL} DISCOVERY_TIMEOUT 60)
endfunction()
