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

"""Where this repository's Python code is, for the checks of its style."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
MADE_BY_COLCON = {'build', 'install', 'log'}
FOLDERS = {file.relative_to(ROOT).parts[0] for file in ROOT.glob('[a-z]*/**/*.py')}
SOURCES = ['setup.py', *sorted(FOLDERS - MADE_BY_COLCON)]
