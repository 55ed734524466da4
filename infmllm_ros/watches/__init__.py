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

"""
Watches: standing questions about what the camera shows, such as the colour of a traffic light.

What a watch is, when it is due, and when its answer has changed. Nothing here knows ROS or a
model.
"""

from infmllm_ros.watches.change import Change, ChangeDetector
from infmllm_ros.watches.definition import read_watches, Watch, WatchError
from infmllm_ros.watches.schedule import Schedule

__all__ = ['Change', 'ChangeDetector', 'read_watches', 'Schedule', 'Watch', 'WatchError']
