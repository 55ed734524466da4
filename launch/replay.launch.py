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
Start the node and play a video or a bag into it.

Takes the arguments of ``infmllm.launch.py`` too. The node goes on when the source has ended.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

ARGUMENTS = [
    DeclareLaunchArgument(
        'input', default_value='',
        description='avi, mp4, .mcap, .db3, a bag folder or a folder of images. Empty: a short '
                    'clip that is drawn on the way.'),
    DeclareLaunchArgument(
        'bag_topic', default_value='',
        description="Which of a bag's image topics to play. Empty: the only one."),
    DeclareLaunchArgument(
        'cameras', default_value='',
        description='Which of them, as cameras: front=/front/image_raw left=/left/image_raw, with '
                    'blanks between; the params_file must name the same cameras.'),
    DeclareLaunchArgument(
        'clock', default_value='',
        description="How often, in Hz, the source's time is published on /clock; with "
                    'use_sim_time:=true the node goes by it. Empty: not at all.'),
    DeclareLaunchArgument(
        'rate', default_value='1.0',
        description="Speed; 1.0 is the source's own."),
    DeclareLaunchArgument(
        'compressed', default_value='false', choices=['true', 'false'],
        description='Whether to send the frames of a video as jpeg; the params_file must say '
                    'image_transport compressed then, as for a bag of compressed images.'),
    DeclareLaunchArgument(
        'stamps', default_value='source', choices=['source', 'now'],
        description="Source time (a bag's own stamps) or the clock at sending."),
]


def play(context: LaunchContext) -> list[ExecuteProcess]:
    """Make the player from the arguments' values; the included file declares two of them."""
    value = {name: LaunchConfiguration(name).perform(context)
             for name in [*(a.name for a in ARGUMENTS), 'namespace', 'image_topic']}
    # not by the Python of `ros2`, which need not see what the package needs
    command = [ExecutableInPackage('player', 'infmllm_ros'), '--rate', value['rate'], '--stamps',
               value['stamps'], '--topic', value['image_topic'], '--wait', '300']
    if value['input']:
        command += [value['input']]
    if value['bag_topic']:
        command += ['--bag-topic', value['bag_topic']]
    if value['cameras']:
        command += ['--cameras', *value['cameras'].split()]
    if value['clock']:
        command += ['--clock', value['clock']]
    if value['compressed'] == 'true':
        command += ['--compressed']
    namespace = value['namespace'].strip('/')
    if namespace:
        command += ['--ros-args', '-r', f'__ns:=/{namespace}']
    return [ExecuteProcess(cmd=command, output='screen', name='player')]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, the node and the player."""
    node = str(Path(__file__).with_name('infmllm.launch.py'))
    return LaunchDescription([
        *ARGUMENTS, IncludeLaunchDescription(PythonLaunchDescriptionSource(node)),
        OpaqueFunction(function=play)])
