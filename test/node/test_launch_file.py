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

"""The launch file: its arguments everywhere, what it starts where launch is installed."""

import ast
import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / 'launch' / 'infmllm.launch.py'
NAMES = ['namespace', 'params_file', 'model', 'image_topic', 'path_topic', 'odom_topic', 'watches',
         'device', 'autostart', 'use_sim_time', 'log_level']


def calls(tree, name):
    return [node for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == name]


def test_every_argument_is_declared_with_a_default_and_a_description():
    declared = calls(ast.parse(FILE.read_text()), 'DeclareLaunchArgument')
    assert [call.args[0].value for call in declared] == NAMES
    for call in declared:
        keywords = {k.arg for k in call.keywords}
        assert {'default_value', 'description'} <= keywords


def test_every_parameter_that_it_sets_exists():
    from infmllm_ros.node.parameters import TABLE
    assert {'model', 'watches', 'device', 'autostart'} <= set(TABLE)


def test_the_default_params_file_is_where_the_launch_file_looks():
    assert (FILE.parent.parent / 'config' / 'infmllm.yaml').is_file()


def load():
    pytest.importorskip('launch.actions', reason='needs launch, which a ROS 2 distribution brings')
    pytest.importorskip('launch_ros', reason='needs launch_ros')
    spec = importlib.util.spec_from_file_location('infmllm_launch', FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def context(module, **values):
    from launch import LaunchContext
    context = LaunchContext()
    for argument in module.ARGUMENTS:
        argument.execute(context)
    context.launch_configurations.update(values)
    return context


def test_it_starts_one_lifecycle_node():
    module = load()
    actions = module.start(context(module, model='/a/model', namespace='/robot'))
    assert [type(action).__name__ for action in actions] == ['LifecycleNode']


def test_a_missing_params_file_gives_one_clear_line():
    module = load()
    with pytest.raises(FileNotFoundError, match='/no/such.yaml.*does not exist') as error:
        module.start(context(module, params_file='/no/such.yaml'))
    assert '\n' not in str(error.value)
