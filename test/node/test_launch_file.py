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

"""The launch files: their arguments everywhere, what they start where launch is installed."""

import ast
import importlib.util
from pathlib import Path
import re
import subprocess
import sys

import pytest

FILE = Path(__file__).parents[2] / 'launch' / 'infmllm.launch.py'
REPLAY = FILE.with_name('replay.launch.py')
NAMES = ['namespace', 'params_file', 'model', 'image_topic', 'path_topic', 'odom_topic', 'watches',
         'device', 'autostart', 'respawn', 'use_sim_time', 'log_level']


def calls(tree, name):
    return [node for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == name]


@pytest.mark.parametrize(('file', 'names'), [
    (FILE, NAMES),
    (REPLAY, ['input', 'bag_topic', 'cameras', 'clock', 'rate', 'compressed', 'stamps'])])
def test_every_argument_is_declared_with_a_default_and_a_description(file, names):
    declared = calls(ast.parse(file.read_text()), 'DeclareLaunchArgument')
    assert [call.args[0].value for call in declared] == names
    for call in declared:
        given = {k.arg: k.value for k in call.keywords}
        assert {'default_value', 'description'} <= set(given)
        if 'choices' in given:
            assert given['default_value'].value in ast.literal_eval(given['choices'])


def test_the_replay_includes_the_node_and_calls_the_player_as_it_is():
    tree, text = ast.parse(REPLAY.read_text()), REPLAY.read_text()
    assert calls(tree, 'IncludeLaunchDescription') and FILE.name in text
    [call] = calls(tree, 'ExecutableInPackage')
    name, package = (word.value for word in call.args)
    setup = (FILE.parents[1] / 'setup.py').read_text()
    module = re.search(rf"'{name} = ({package}[\w.]+):main'", setup)[1]
    flags = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
             and str(node.value).startswith('--')} - {'--ros-args'}
    assert {'--rate', '--stamps', '--topic', '--bag-topic', '--compressed'} <= flags
    usage = subprocess.run([sys.executable, '-m', module, '--help'], capture_output=True,
                           text=True, timeout=200).stdout
    for flag in flags:
        assert f' {flag}' in usage or f'[{flag}' in usage, f'{module} has no {flag}'
    # what it reads is declared here, or by the file that it includes
    read = {node.slice.value for node in ast.walk(tree) if isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Constant)}
    declared = {call.args[0].value for file in (FILE, REPLAY)
                for call in calls(ast.parse(file.read_text()), 'DeclareLaunchArgument')}
    assert {'rate', 'image_topic', 'namespace'} <= read <= declared


def test_every_parameter_that_it_sets_exists():
    from infmllm_ros.node.parameters import TABLE
    assert {'model', 'watches', 'device', 'autostart'} <= set(TABLE)


def test_the_default_params_file_is_where_the_launch_file_looks():
    assert (FILE.parent.parent / 'config' / 'infmllm.yaml').is_file()


def load(file=FILE):
    pytest.importorskip('launch.actions', reason='needs launch, which a ROS 2 distribution brings')
    pytest.importorskip('launch_ros', reason='needs launch_ros')
    spec = importlib.util.spec_from_file_location('infmllm_launch', file)
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


def test_the_replay_starts_the_player_with_what_is_given():
    module = load(REPLAY)
    node = context(load())
    for argument in module.ARGUMENTS:
        argument.execute(node)
    node.launch_configurations.update(input='/a.mp4', compressed='true', namespace='/robot/')
    [process] = module.play(node)
    words = [''.join(part.perform(node) for part in word) for word in process.cmd]
    assert words[-4:] == ['--compressed', '--ros-args', '-r', '__ns:=/robot']
    assert '/a.mp4' in words
