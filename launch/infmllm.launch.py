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
Start the node, configured and active.

The node starts itself (its parameter `autostart`), once: a later ``ros2 lifecycle set`` is never
undone. With ``autostart:=false`` it waits for a lifecycle manager.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

PARAMS_FILE = str(Path(__file__).parent.parent / 'config' / 'infmllm.yaml')

ARGUMENTS = [
    DeclareLaunchArgument(
        'namespace', default_value='',
        description='Namespace of the node; its topics are relative to it.'),
    DeclareLaunchArgument(
        'params_file', default_value=PARAMS_FILE,
        description='YAML file with the parameters; start from a copy of the default one.'),
    DeclareLaunchArgument(
        'model', default_value='',
        description='Checkpoint: a folder in the Hugging Face format, or a name on the hub. '
                    'Empty: as the params_file says.'),
    DeclareLaunchArgument(
        'image_topic', default_value='image',
        description='Topic of the camera; with image_transport compressed, the topic without '
                    '/compressed.'),
    DeclareLaunchArgument(
        'path_topic', default_value='path',
        description='Topic of the path, when nav.enabled is set in the params_file.'),
    DeclareLaunchArgument(
        'odom_topic', default_value='odom',
        description='Topic of the odometry, when nav.enabled is set in the params_file.'),
    DeclareLaunchArgument(
        'watches', default_value='',
        description='YAML file of watches, such as config/watches.yaml of the package. Empty: as '
                    'the params_file says.'),
    DeclareLaunchArgument(
        'device', default_value='',
        description='cpu, cuda, cuda:1 or auto. Empty: as the params_file says.'),
    DeclareLaunchArgument(
        'autostart', default_value='true', choices=['true', 'false'],
        description='Whether the node configures and activates itself when it starts.'),
    DeclareLaunchArgument(
        'respawn', default_value='false', choices=['true', 'false'],
        description='Whether a process that ends is started again after 2 s: for watchdog_action '
                    'exit, with memory.restore and memory.autosave_period.'),
    DeclareLaunchArgument(
        'use_sim_time', default_value='false', choices=['true', 'false'],
        description='Whether the node takes the time from /clock, as with a bag or a simulator.'),
    DeclareLaunchArgument(
        'log_level', default_value='info', choices=['debug', 'info', 'warn', 'error', 'fatal'],
        description='Least severe messages that the node logs.'),
]


def start(context: LaunchContext) -> list[LifecycleNode]:
    """Make the node from the arguments' values."""
    value = {argument.name: LaunchConfiguration(argument.name).perform(context)
             for argument in ARGUMENTS}
    if not Path(value['params_file']).is_file():
        raise FileNotFoundError(
            f"params_file '{value['params_file']}' does not exist: check the path, or start from "
            f'a copy of {PARAMS_FILE}')
    given = {name: value[name] for name in ('model', 'watches', 'device') if value[name]}
    switches = {name: value[name] == 'true' for name in ('autostart', 'use_sim_time')}
    return [LifecycleNode(
        package='infmllm_ros', executable='infmllm_node', name='infmllm',
        namespace=value['namespace'], output='screen', emulate_tty=True,
        respawn=value['respawn'] == 'true', respawn_delay=2.0,
        parameters=[value['params_file'], {**given, **switches}],
        remappings=[(name, value[f'{name}_topic']) for name in ('image', 'path', 'odom')],
        arguments=['--ros-args', '--log-level', value['log_level']])]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the node."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
