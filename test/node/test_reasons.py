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

"""Two nodes over DDS: apart from each other, through loops of time, with reasons for all."""

import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from infmllm_msgs.msg import Answer  # noqa: E402, I100
from rcl_interfaces.srv import DescribeParameters  # noqa: E402
import rclpy  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_robot import ns, Robot, wait_for  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402

S = 10**9
BUDGET = 256
OK, WARN = b'\x00', b'\x01'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope='module')
def nodes(start, tiny):
    """Start two nodes; the right one latches its answers, and has its camera elsewhere."""
    common = {'model': tiny, 'autostart': 'true', 'budget_tokens': BUDGET, 'stats_period': 0.05,
              'max_question_tokens': 96, 'max_answer_tokens': 3000, 'image_timeout': 0.5}
    nodes = {
        'left': start({**common, 'rewind': 'reset', 'use_sim_time': 'true'},
                      '-r', '/clock:=/test_reasons/clock', below='/left'),
        'right': start(
            {**common, 'qos_overrides./test_reasons/right/answer.publisher.durability':
             'transient_local'}, '-r', 'image:=/test_reasons/rig/front', below='/right')}
    for node in nodes.values():
        node.wait_for_log('active: images from')
    return nodes


@pytest.fixture(scope='module')
def robots(domain, nodes):
    """Put a robot beside each node."""
    robots = {side: Robot(domain, f'/test_reasons/{side}') for side in nodes}
    right = robots['right']
    right.images = right.node.create_publisher(Image, '/test_reasons/rig/front', 1)
    for robot in robots.values():
        robot.meet()
    yield robots
    for robot in robots.values():
        robot.close()


@pytest.fixture
def left(robots):
    return robots['left']


@pytest.fixture
def right(robots):
    return robots['right']


def stats(robot):
    return robot.got['cache_stats'][-1]


def test_a_clock_that_does_not_start_is_explained(nodes, left, right):
    status = left.diagnostic('time', lambda s: s.level == WARN)
    assert '--clock' in status.message
    nodes['left'].wait_for_log('nothing has come on /clock')
    right.diagnostic('time', lambda s: s.level == OK and s.message == 'system time')


def test_the_age_of_an_answer_is_by_the_clock_of_the_simulation(nodes, left):
    clock = left.node.create_publisher(Clock, '/test_reasons/clock', 1)
    wait_for(clock.get_subscription_count, 'the node listens to the clock')
    left.clock = clock
    left._stamp = 900 * S
    seen = left.show()
    message = Clock()
    message.clock.sec = 1000
    clock.publish(message)
    left.diagnostic('time', lambda s: s.level == OK and s.message == 'simulated time',
                    meanwhile=lambda: clock.publish(message))
    answer = left.ask('What do you see?', max_tokens=2)
    assert ns(answer.header.stamp) == seen
    assert answer.age == pytest.approx(1000 - seen / S, abs=1e-3)
    status = left.diagnostic('time', lambda s: s.values[2].value)
    assert [(v.key, v.value) for v in status.values[1:3]] == [
        ('newest frame age s', f'{1000 - seen / S:.3f}'),
        ('last answer age s', f'{1000 - seen / S:.3f}')]
    assert len(nodes['left'].lines('nothing has come on /clock')) == 1


def test_two_nodes_share_nothing(left, right):
    for robot in (left, right):
        robot.show()
    before = {robot: len(robot.got['answer']) for robot in (left, right)}
    answer = left.ask('Only you?', max_tokens=2)
    other = right.ask('And you?', max_tokens=2)
    assert (answer.status, other.status) == (Answer.OK, Answer.OK)
    assert ns(answer.header.stamp) == left.newest() != right.newest() == ns(other.header.stamp)
    assert len(left.got['answer']) == before[left] + 1
    assert len(right.got['answer']) == before[right] + 1
    seen = stats(right).frames_seen
    assert left.trigger('reset').success
    wait_for(lambda: stats(left).frames_seen == 0, 'the left memory is empty')
    right.show()
    assert stats(right).frames_seen > seen


def test_stamps_that_go_back_clear_the_memory_or_do_not(nodes, left, right):
    for robot in (left, right):
        robot._stamp = 800 * S
        robot.show()
        robot.show()
    seen, begin = stats(right).frames_seen, time.time_ns()
    for robot in (left, right):
        robot._stamp = 300 * S
        robot.show()
    assert stats(left).frames_seen == 1, 'only the frame that came after'
    assert stats(right).frames_seen == seen + 1
    assert 'the memory was cleared' in nodes['left'].wait_for_log('time went back by 500.')
    assert 'set rewind to reset' in nodes['right'].wait_for_log('time went back by 500.')
    for robot in (left, right):
        status = robot.diagnostic('time', lambda s: 'time went back' in s.message, since=begin)
        assert status.level == WARN
    left._stamp -= S // 2  # disorder
    left.show()
    assert stats(left).frames_seen == 2
    assert right.set_parameter('rewind', 'reset').successful
    right._stamp = 100 * S
    right.show()
    assert stats(right).frames_seen == 1


def test_a_clock_that_goes_back_clears_the_memory(nodes, left):
    left.show()
    assert stats(left).frames_seen
    message = Clock()
    message.clock.sec = 400
    left.clock.publish(message)
    nodes['left'].wait_for_log('time went back by 600.0 s, by the clock')
    wait_for(lambda: stats(left).frames_seen == 0, 'the memory is empty')
    left._stamp = 50 * S    # as the bag begins again; it is told already
    left.show()
    assert stats(left).frames_seen == 1
    assert len(nodes['left'].lines('by the clock')) == 1


def test_a_budget_can_be_lowered_while_the_node_runs(right):
    while stats(right).tokens < BUDGET:
        right.show()
    size = stats(right).kv_bytes
    refused = right.set_parameter('budget_tokens', 5)
    assert not refused.successful
    least = int(refused.reason.split('smallest budget that works is ')[1].split(';')[0])
    assert right.set_parameter('budget_tokens', least).successful
    wait_for(lambda: stats(right).budget == least, 'the new budget')
    assert stats(right).tokens == least
    assert stats(right).kv_bytes == size
    right.show()
    assert stats(right).tokens == least
    refused = right.set_parameter('budget_tokens', BUDGET + 1)
    assert not refused.successful
    assert f'the {BUDGET} tokens that the memory was made with' in refused.reason
    assert 'clean up' in refused.reason
    assert right.set_parameter('budget_tokens', BUDGET).successful


def test_endpoints_that_do_not_match_are_named_with_a_remedy(nodes, left):
    other = rclpy.create_node('other', namespace='/test_reasons/left', context=left.context)
    late = other.create_subscription(Answer, 'answer', lambda _: None, LATCHED)
    line = nodes['left'].wait_for_log('qos_overrides./test_reasons/left/answer.publisher')
    assert 'durability' in line
    status = left.diagnostic('quality of service', lambda s: s.level == WARN)
    assert 'answer.publisher.durability' in status.message
    other.destroy_subscription(late)
    other.create_publisher(
        String, 'query', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    left.diagnostic('quality of service', lambda s: 'query.subscription.reliability' in s.message
                    and 'answer' not in s.message)
    other.destroy_node()
    left.diagnostic('quality of service', lambda s: s.level == OK)
    assert len(nodes['left'].lines('does not match the durability here')) == 1


def test_an_override_latches_the_last_answer(right):
    right.show()
    answer = right.ask('For those who come late?', max_tokens=2)
    got = []
    right.node.create_subscription(Answer, 'answer', got.append, LATCHED)
    wait_for(lambda: got and got[-1].id == answer.id, 'the last answer')


def test_a_model_slower_than_the_camera_is_told_with_a_remedy(nodes, left):
    left.diagnostic('frame rate', lambda s: s.level == OK)
    left.long_answer()
    status = left.diagnostic('frame rate', lambda s: s.level == WARN, meanwhile=left.image)
    assert 'slower than the camera' in status.message
    assert 'max_frame_rate' in status.message
    left.trigger('cancel')
    assert len(nodes['left'].lines('slower than the camera')) == 1
    assert left.set_parameter('missed_warning', 1.0).successful
    left.diagnostic('frame rate', lambda s: s.level == OK)
    nodes['left'].wait_for_log('keeps up with the camera again')


def test_read_only_parameters_say_so(left):
    left.add_client(DescribeParameters, 'infmllm/describe_parameters')
    names = ['autostart', 'model', 'temperature', 'budget_tokens']
    found = left.call('infmllm/describe_parameters', DescribeParameters.Request(names=names))
    assert [d.read_only for d in found.descriptors] == [True, False, False, False]
    for descriptor, text in zip(found.descriptors, (
            'Fixed when the process starts', 'Read by configure', 'while the node runs',
            'May be lowered while')):
        assert text in descriptor.additional_constraints
