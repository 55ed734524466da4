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

"""The process: how it starts with wrong arguments, and how it ends."""

import signal
import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from ros_robot import PROGRAM, wait_for  # noqa: E402

LOADING = """
import time
from infmllm_ros.node import node
from infmllm_ros.node.__main__ import main

def load(settings, log):
    log('loading for ever')
    time.sleep(600)  # as a forward pass: nothing in the process can interrupt it

node.open_session = load
main()
"""

IMPORTING = """
import time
from infmllm_ros.node import __main__ as program

def load(name):
    print('importing for ever', flush=True)
    time.sleep(600)

program.importlib.import_module = load
program.main()
"""


@pytest.fixture(scope='module')
def ended(start, tmp_path_factory):
    """Start processes with wrong arguments, all at once; return each with its exit code."""
    broken = tmp_path_factory.mktemp('yaml') / 'broken.yaml'
    broken.write_text('/**: {ros__parameters: [')
    wrong = tmp_path_factory.mktemp('yaml') / 'wrong.yaml'
    wrong.write_text('/**:\n  ros__parameters:\n    temperature: 1\n')
    nodes = {
        'missing file': start({}, '--params-file', '/no/such/file.yaml', program=PROGRAM),
        'broken file': start({}, '--params-file', str(broken), program=PROGRAM),
        'wrong type': start({}, '--params-file', str(wrong), program=PROGRAM),
    }
    return {name: (node, node.process.wait(120)) for name, node in nodes.items()}


@pytest.mark.parametrize(('case', 'named'), [
    ('missing file', ['/no/such/file.yaml', 'check the path']),
    ('broken file', ['broken.yaml']),
    ('wrong type', ['temperature', 'integer', 'double', '1.0']),
])
def test_a_wrong_argument_ends_the_process_with_one_clear_line(ended, case, named):
    node, code = ended[case]
    assert code == 1
    assert 'Traceback' not in node.log
    lines = [line for line in node.log.splitlines() if line.strip()]
    assert len(lines) == 1, node.log
    for text in named:
        assert text in lines[0]


@pytest.fixture(scope='module')
def answering(start, robot, tiny):
    """Start two nodes, and have both in the middle of an answer."""
    nodes = [start({'model': tiny, 'autostart': 'true', 'budget_tokens': 256,
                    'stats_period': 0.05, 'max_question_tokens': 96, 'max_answer_tokens': 2000},
                   '-r', f'__node:={name}', program=PROGRAM) for name in ('first', 'second')]
    for node in nodes:
        node.wait_for_log('active: images from')
    wait_for(lambda: robot.images.get_subscription_count() == 2, 'both subscribe to images')
    wait_for(lambda: robot.requests.get_subscription_count() == 2, 'both subscribe to questions')
    for name in ('first', 'second'):
        robot.diagnostic('image input', lambda s: any(
            v.key == 'seen' and v.value != '0' for v in s.values), name, meanwhile=robot.image)
    robot.long_answer(nodes=2)
    return {signal.SIGINT: nodes[0], signal.SIGTERM: nodes[1]}


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_an_answer_ends_the_process_well(answering, number):
    node = answering[number]
    assert node.stop(number) == 0
    assert 'Traceback' not in node.log


def test_signals_while_the_model_loads_end_the_process_well(start, robot):
    node = start({'model': 'any', 'autostart': 'true'}, program=('-c', LOADING))
    node.wait_for_log('loading for ever')
    status = robot.diagnostic('node', lambda s: 'loading the model' in s.message)
    assert status.level == b'\x01'
    assert status.message.endswith('loading for ever'), 'how far it is'
    node.process.send_signal(signal.SIGINT)
    time.sleep(0.05)  # the second one, as launch sends it after the terminal, does no harm
    assert node.stop(signal.SIGINT) == 0
    assert 'Traceback' not in node.log


def test_a_signal_while_torch_is_imported_ends_the_process_well(start):
    node = start({}, program=('-c', IMPORTING))
    node.wait_for_log('importing for ever')
    assert node.stop(signal.SIGTERM) == 0
    assert 'Traceback' not in node.log


def test_a_callback_that_raises_does_not_end_the_node():
    from infmllm_ros.node.__main__ import spin
    from rclpy.executors import ExternalShutdownException

    class Executor:
        errors = [RuntimeError('a bug'), RuntimeError('another'), ExternalShutdownException()]

        def spin(self):
            raise self.errors.pop(0)

    spin(Executor(), ok=lambda: True)
    assert not Executor.errors


def test_a_value_out_of_range_is_refused_when_the_node_is_made(domain):
    from infmllm_ros.node.node import InfmllmNode
    from infmllm_ros.node.option import ParameterError
    import rclpy
    context = rclpy.context.Context()
    rclpy.init(context=context, domain_id=domain)
    try:
        with pytest.raises(ParameterError, match='query_queue_size is 0, but must be 1 to 1000'):
            InfmllmNode(context=context, cli_args=['--ros-args', '-p', 'query_queue_size:=0'])
    finally:
        rclpy.shutdown(context=context)
