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

SMALL = {'budget_tokens': 256, 'max_question_tokens': 96, 'max_answer_tokens': 600,
         'stats_period': 0.05}


@pytest.fixture(scope='module')
def node(start, robot):
    """Start a node that waits to be managed, without a model."""
    node = start(SMALL)
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
        assert robot.set(name, value).successful
    return node


@pytest.mark.parametrize(('name', 'value', 'named'), [
    ('model', '', '-p model:='),
    ('model', '/no/such/folder', '/no/such/folder'),
    ('budget_tokens', 3, 'smallest budget that works'),
    ('budget_mib', 1, 'smallest budget that works'),
    ('max_question_tokens', 60000, 'smallest budget that works'),
], ids=['no model', 'unknown model', 'small budget', 'small size', 'long question'])
def test_what_cannot_work_is_refused_before_the_model_loads_and_the_node_goes_on(
        unconfigured, robot, name, value, named):
    node = unconfigured
    errors, loads = len(node.lines('[ERROR]')), len(node.lines('loading'))
    assert robot.set(name, value).successful
    assert not robot.change('configure')
    assert robot.state() == 'unconfigured'
    new = node.lines('[ERROR]')[errors:]
    assert len(new) == 1, node.log
    assert named in new[0]
    assert len(node.lines('loading')) == loads
    assert 'Traceback' not in node.log
    status = robot.diagnostic('node', lambda s: s.level == b'\x02')
    assert named in status.message
    assert robot.set(name, {'model': '', 'budget_mib': 0, **SMALL}[name]).successful


def test_an_unknown_policy_is_refused_when_set(unconfigured, robot):
    result = robot.set('policy', 'nonsense')
    assert not result.successful
    assert 'nonsense' in result.reason
    assert 'saddle' in result.reason


def test_the_round_trip_and_what_each_state_allows(unconfigured, robot):
    assert robot.change('configure')
    assert robot.state() == 'inactive'
    result = robot.set('budget_tokens', 300)
    assert not result.successful
    assert 'clean up' in result.reason
    assert robot.images.get_subscription_count() == 0
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
    assert robot.set('budget_tokens', 300).successful
    assert robot.change('configure')
    assert robot.change('activate')
    answer = robot.ask('What did you see?', max_tokens=2)
    assert answer.status == answer.NO_FRAME
    robot.show()
    assert robot.got['cache_stats'][-1].budget == 300


def test_deactivate_ends_the_running_answer(unconfigured, robot):
    from ros_robot import wait_for
    assert robot.change('configure')
    assert robot.change('activate')
    robot.show()
    id = robot.send('Tell me all.')
    wait_for(lambda: robot.chunks(id), 'a first piece')
    assert robot.change('deactivate')
    assert robot.answer(id).status == robot.answer(id).CANCELLED


def test_a_question_to_an_inactive_node_is_explained_in_the_log(unconfigured, robot):
    robot.send('Anybody there?')
    unconfigured.wait_for_log('the node is unconfigured, but must be active')


def test_autostart_does_not_undo_a_later_deactivate(start, robot, tiny):
    node = start({'model': tiny, 'autostart': 'true', **SMALL}, '-r', '__ns:=/elsewhere')
    node.wait_for_log('active: images from')
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetState
    for kind, name in ((ChangeState, 'change_state'), (GetState, 'get_state')):
        robot._clients[f'/elsewhere/{name}'] = robot.node.create_client(
            kind, f'/elsewhere/infmllm/{name}')
    robot.meet('/elsewhere/get_state')
    assert robot.call('/elsewhere/change_state', ChangeState.Request(
        transition=Transition(id=Transition.TRANSITION_DEACTIVATE))).success
    for _ in range(20):
        state = robot.call('/elsewhere/get_state', GetState.Request()).current_state.label
        assert state == 'inactive'
    assert node.stop() == 0


def test_shutdown_frees_all_and_the_process_still_ends_well(unconfigured, robot):
    assert robot.change('configure')
    assert robot.change('activate')
    assert robot.change('active_shutdown')
    assert robot.state() == 'finalized'
    assert unconfigured.stop() == 0
    assert 'Traceback' not in unconfigured.log
