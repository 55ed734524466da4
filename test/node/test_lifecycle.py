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

"""The lifecycle: who waits for whom, what stays, what is freed, what is refused."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from infmllm_msgs.msg import NodeState  # noqa: E402, I100
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from ros_robot import ns, wait_for  # noqa: E402

SMALL = {'budget_tokens': 256, 'max_question_tokens': 96, 'max_answer_tokens': 3000,
         'stats_period': 0.05}


@pytest.fixture(scope='module')
def node(start, robot, tiny):
    """Start a node that would start by itself, but for its policy."""
    node = start({**SMALL, 'model': tiny, 'policy': 'nonsense', 'autostart': 'true'})
    robot.meet()
    return node


@pytest.fixture
def unconfigured(node, robot, tiny):
    """Bring the node back to unconfigured, with every parameter as it should be."""
    if robot.state() == 'active':
        robot.change('deactivate')
    if robot.state() == 'inactive':
        robot.change('cleanup')
    assert robot.state() == 'unconfigured'
    for name, value in {'model': tiny, 'policy': 'saddle', **SMALL}.items():
        assert robot.set_parameter(name, value).successful
    return node


def test_an_unknown_policy_in_the_file_leaves_the_node_unconfigured(node, robot):
    line = node.wait_for_log('configure failed')
    assert 'nonsense' in line
    assert 'saddle' in line
    assert len(node.lines('[ERROR]')) == 1
    assert robot.state() == 'unconfigured'
    status = robot.diagnostic('node', lambda s: s.level == b'\x02')
    assert 'nonsense' in status.message


@pytest.mark.parametrize(('name', 'value', 'named'), [
    ('model', '', '-p model:='),
    ('model', '/no/such/folder', '/no/such/folder'),
    ('budget_tokens', 3, 'smallest budget that works'),
    ('max_question_tokens', 60000, 'smallest budget that works'),
], ids=['no model', 'unknown model', 'small budget', 'long question'])
def test_what_cannot_work_is_refused_before_the_model_loads_and_the_node_goes_on(
        unconfigured, robot, name, value, named):
    node = unconfigured
    errors, loads = len(node.lines('[ERROR]')), len(node.lines('loading'))
    assert robot.set_parameter(name, value).successful
    assert not robot.change('configure')
    assert robot.state() == 'unconfigured'
    new = node.lines('[ERROR]')[errors:]
    assert len(new) == 1, node.log
    assert named in new[0]
    assert len(node.lines('loading')) == loads
    assert 'Traceback' not in node.log
    status = robot.diagnostic('node', lambda s: s.level == b'\x02')
    assert named in status.message
    assert robot.set_parameter(name, {'model': '', **SMALL}[name]).successful


def test_an_unknown_policy_is_refused_when_set(unconfigured, robot):
    result = robot.set_parameter('policy', 'nonsense')
    assert not result.successful
    assert 'nonsense' in result.reason
    assert 'saddle' in result.reason


def test_the_round_trip_and_what_each_state_allows(unconfigured, robot):
    assert robot.change('configure')
    assert robot.state() == 'inactive'
    result = robot.set_parameter('budget_tokens', 300)
    assert not result.successful
    assert 'clean up' in result.reason
    wait_for(lambda: not robot.images.get_subscription_count(), 'inactive: no subscription')
    assert robot.change('activate')
    robot.show()
    assert robot.change('deactivate')
    assert robot.state() == 'inactive'
    assert robot.change('activate')
    # The memory has stayed: no new frame has come, and the question is answered.
    answer = robot.ask('What did you see?', max_tokens=2)
    assert answer.status == answer.OK, answer.message
    assert robot.change('deactivate')
    assert robot.change('cleanup')
    assert robot.state() == 'unconfigured'
    assert not robot.trigger('reset').success
    assert robot.set_parameter('budget_tokens', 300).successful
    assert robot.change('configure')
    assert robot.change('activate')
    answer = robot.ask('What did you see?', max_tokens=2)
    assert answer.status == answer.NO_FRAME
    robot.show()
    assert robot.got['cache_stats'][-1].budget == 300


def latest(robot):
    """Come late, and be told the state."""
    got = []
    late = robot.node.create_subscription(NodeState, 'state', got.append, QoSProfile(
        depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    wait_for(lambda: got, 'the state')
    robot.inside(robot.node.destroy_subscription, late)
    return got[-1]


def test_who_comes_late_is_told_the_state_and_what_runs(unconfigured, robot, tiny):
    before = latest(robot)
    assert (before.state, before.budget) == (NodeState.UNCONFIGURED, 0)
    assert robot.set_parameter('budget_tokens', 3).successful
    assert not robot.change('configure')
    refused = latest(robot)
    assert refused.state == NodeState.UNCONFIGURED
    assert 'smallest budget that works' in refused.problem
    assert robot.set_parameter('budget_tokens', 300).successful
    assert robot.change('configure')
    assert latest(robot).state == NodeState.INACTIVE
    assert robot.change('activate')
    now = latest(robot)
    assert (now.state, now.problem, now.model, now.policy) == (
        NodeState.ACTIVE, '', tiny, 'saddle')
    assert (now.budget, now.cameras, now.watches) == (300, [''], [])
    assert ns(now.stamp) > ns(before.stamp) > 0
    assert robot.set_parameter('budget_tokens', 280).successful
    wait_for(lambda: latest(robot).budget == 280, 'the new budget')
    assert latest(robot).stamp == latest(robot).stamp  # nothing has changed, nothing is sent


def test_deactivate_ends_the_running_answer(unconfigured, robot):
    assert robot.change('configure')
    assert robot.change('activate')
    robot.show()
    asked = robot.long_answer()
    assert robot.change('deactivate')
    assert robot.answer(asked).status == robot.answer(asked).CANCELLED


def test_a_question_to_an_inactive_node_is_explained_in_the_log(unconfigured, robot):
    robot.send('Anybody there?')
    unconfigured.wait_for_log('the node is unconfigured, but must be active')


def test_shutdown_frees_all_and_the_process_still_ends_well(unconfigured, robot):
    assert robot.change('configure')
    assert robot.change('activate')
    assert robot.change('active_shutdown')
    assert robot.state() == 'finalized'
    assert unconfigured.stop() == 0
    assert 'Traceback' not in unconfigured.log
