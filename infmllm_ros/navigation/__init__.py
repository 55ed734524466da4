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
Navigation context: where the path leads, as points and turn-by-turn maneuvers, for each question.

After SNG-VLA (arXiv 2604.12208). Pure geometry and text: nothing here knows ROS or a model.
"""

from infmllm_ros.navigation.guide import Guidance, Guide, Odometry, PathInput, Unusable
from infmllm_ros.navigation.maneuver import Action, Bend, bends, Maneuvers, maneuvers
from infmllm_ros.navigation.path import Path
from infmllm_ros.navigation.pose import Pose, yaw
from infmllm_ros.navigation.rules import Rules
from infmllm_ros.navigation.text import render

__all__ = [
    'Action', 'Bend', 'bends', 'Guidance', 'Guide', 'Maneuvers', 'maneuvers', 'Odometry', 'Path',
    'PathInput', 'Pose', 'render', 'Rules', 'Unusable', 'yaw']
