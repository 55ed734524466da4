# Copyright 2026 The infmllm_ros authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

# Lets this package be built beside the ROS 2 wheels of PyPI, where there is no
# setup file to source.  In a ROS installation it changes nothing.

# 1. The ament index is looked up through AMENT_PREFIX_PATH, which a ROS setup
#    file exports; beside wheels the prefix is where ament_cmake was found.
if("$ENV{AMENT_PREFIX_PATH}" STREQUAL "")
  find_package(ament_cmake_core REQUIRED)
  get_filename_component(_prefix "${ament_cmake_core_DIR}/../../.." ABSOLUTE)
  set(ENV{AMENT_PREFIX_PATH} "${_prefix}")
endif()

# 2. The wheels' <package>__rosidl_generator_py targets name the Python include
#    directories of the machine that built them, and CMake refuses one that is
#    missing.  They are dropped when every dependency has been found.
function(_drop_missing_includes)
  get_property(_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(_target IN LISTS _targets)
    get_target_property(_dirs ${_target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT _dirs OR NOT _target MATCHES "__rosidl_generator_py$")
      continue()
    endif()
    set(_kept "")
    foreach(_dir IN LISTS _dirs)
      if(NOT IS_ABSOLUTE "${_dir}" OR EXISTS "${_dir}")
        list(APPEND _kept "${_dir}")
      endif()
    endforeach()
    set_target_properties(${_target} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${_kept}")
  endforeach()
endfunction()
cmake_language(DEFER CALL _drop_missing_includes)
