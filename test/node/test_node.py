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

"""An active node with a tiny model, over DDS: frames and questions in, answers out."""

import array
import io

import numpy as np
from PIL import Image as Pillow
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from infmllm_msgs.msg import CacheStats  # noqa: E402, I100
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_robot import ns, PROGRAM, wait_for  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from std_msgs.msg import String  # noqa: E402

BUDGET = 256
MOST = 3000  # tokens of an answer: long enough to do things meanwhile


@pytest.fixture(scope='module')
def node(start, robot, tiny):
    """Start a node that configures and activates itself."""
    node = start({
        'model': tiny, 'autostart': 'true', 'budget_tokens': BUDGET, 'stats_period': 0.05,
        'max_question_tokens': 96, 'max_answer_tokens': MOST, 'max_query_chars': 1000,
        'query_queue_size': 2, 'image_timeout': 1.0, 'cameras': '[front]'}, program=PROGRAM)
    node.wait_for_log('active: images from')
    robot.meet()
    return node


@pytest.fixture
def seen(node, robot):
    """Have the model see a frame; its stamp."""
    return robot.show()


def stamp(message):
    return ns(message.header.stamp)


def test_a_question_before_the_first_frame_is_refused_with_a_remedy(node, robot):
    answer = robot.ask('What do you see?')
    assert answer.status == answer.NO_FRAME
    assert 'camera' in answer.message
    assert len(node.lines('NO_FRAME')) == 1


def test_silence_is_explained_once_in_the_log_and_always_in_diagnostics(node, robot):
    status = robot.diagnostic('image input', lambda s: 'no image' in s.message)
    assert status.level == b'\x01'
    node.wait_for_log('no image on /test_node/image')
    # The robot's own publisher is there: the reason must not be a missing one.
    assert 'publishers: 1' in status.message
    robot.diagnostic('image input', lambda s: 'no image' in s.message)
    assert len(node.lines('no image on')) == 1
    wait_for(lambda: robot.image() and node.lines('images come again'), 'the end of the silence')
    robot.diagnostic('image input', lambda s: s.level == b'\x00', meanwhile=robot.show)


def test_an_answer_has_the_stamp_of_the_newest_frame(node, robot, seen):
    robot.show()
    newest = robot.show()
    answer = robot.ask('What do you see?', max_tokens=8)
    assert answer.status == answer.OK, answer.message
    assert stamp(answer) == newest
    assert answer.header.frame_id == f'camera_{newest // 10**8}'
    assert answer.camera == 'front'
    assert 1 <= answer.tokens <= 8
    assert 0 < answer.time_to_first_token <= answer.latency
    assert {e.camera for e in answer.evidence} == {'front'}
    assert 0 < sum(e.weight for e in answer.evidence) <= 1.001


def test_a_frame_that_came_before_the_question_is_seen_by_the_answer(node, robot, seen):
    received = robot.stats().frames_received
    first = robot.image()  # not waited for
    wait_for(lambda: robot.got['cache_stats'][-1].frames_received > received, 'the frame came')
    assert stamp(robot.ask('And now?', max_tokens=4)) == first


def test_the_pieces_of_the_stream_make_the_answer(node, robot, seen):
    answer = robot.ask('Describe it.', max_tokens=32)
    chunks = wait_for(lambda: (c := robot.chunks(answer.id)) and c[-1].last and c, 'last piece')
    assert ''.join(c.text for c in chunks) == answer.text
    assert [c.index for c in chunks] == list(range(len(chunks)))
    assert [c.last for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert {stamp(c) for c in chunks} == {stamp(answer)}
    wait_for(lambda: answer.text in [t.data for t in robot.got['answer_text']], 'answer_text')


def test_a_plain_string_is_a_question(node, robot, seen):
    wait_for(robot.queries.get_subscription_count, 'the node subscribes')
    robot.queries.publish(String(data='A plain question?'))
    answer = wait_for(lambda: robot.trigger('cancel') and [
        a for a in robot.got['answer'] if a.question == 'A plain question?'], 'an answer')[0]
    assert answer.status in (answer.OK, answer.CANCELLED)
    assert answer.id.startswith('query-')


def test_a_told_text_enters_the_memory_and_a_bad_one_is_named(node, robot, seen):
    wait_for(robot.tells.get_subscription_count, 'the node subscribes')
    before = robot.stats().tokens_seen
    robot.tells.publish(String(data='The target is the blue cup.'))
    wait_for(lambda: robot.got['cache_stats'][-1].tokens_seen > before, 'it is remembered')
    robot.tells.publish(String(data=' '))
    node.wait_for_log('text not remembered: it is empty')
    robot.tells.publish(String(data='x' * 1001))
    node.wait_for_log('text not remembered: it has 1001 characters, the most is 1000')
    assert robot.ask('What is the target?', max_tokens=2).status == 0


def test_choices_get_probabilities(node, robot, seen):
    answer = robot.ask('Is the light red?', choices=['yes', 'no', 'cannot tell'])
    assert answer.status == answer.OK, answer.message
    assert answer.finish_reason == 'choice'
    assert answer.text == answer.choices[answer.choice]
    assert sum(answer.probabilities) == pytest.approx(1, abs=1e-3)
    assert max(answer.probabilities) == answer.probabilities[answer.choice]


def test_a_question_leaves_the_memory_as_it_was_unless_told_to_keep(node, robot, seen):
    before = robot.stats().tokens_seen
    robot.ask('One?', max_tokens=2)
    assert robot.stats().tokens_seen == before
    robot.ask('Two?', max_tokens=2, memory=1)
    grown = robot.stats().tokens_seen
    assert grown > before
    answer = robot.ask('Three?', max_tokens=2, memory=2)
    assert answer.status == answer.OK
    assert robot.stats().tokens_seen == grown


def test_cancel_ends_the_answer_and_drops_those_that_wait(node, robot, seen):
    running = robot.long_answer()
    waiting = [robot.send('Me too?'), robot.send('And me?')]
    wait_for(lambda: robot.got['cache_stats'][-1].queries_pending == 2, 'two wait')
    assert robot.trigger('cancel').message == 'questions cancelled: 3'
    answer = robot.answer(running)
    assert answer.status == answer.CANCELLED
    assert answer.finish_reason == 'cancelled'
    assert 0 < answer.tokens < MOST
    wait_for(lambda: answer.text == ''.join(c.text for c in robot.chunks(running)), 'all pieces')
    for asked in waiting:
        assert robot.answer(asked).status == answer.CANCELLED
    assert robot.ask('Still there?', max_tokens=2).status == answer.OK


def test_a_full_queue_refuses_as_busy(node, robot, seen):
    running = robot.long_answer()
    waiting = [robot.send('First?'), robot.send('Second?')]
    wait_for(lambda: robot.got['cache_stats'][-1].queries_pending == 2, 'two wait')
    answer = robot.ask('One too many?')
    assert answer.status == answer.BUSY
    assert 'query_queue_size' in answer.message
    robot.trigger('cancel')
    for asked in (running, *waiting):
        robot.answer(asked)


def test_reset_forgets_all_frames(node, robot, seen):
    assert robot.trigger('reset').success
    wait_for(lambda: robot.got['cache_stats'][-1].frames_seen == 0, 'statistics after reset')
    answer = robot.ask('What did you see?')
    assert answer.status == answer.NO_FRAME
    robot.show()
    assert robot.ask('And now?', max_tokens=2).status == answer.OK


def test_the_memory_stays_at_its_budget(node, robot, seen):
    while robot.got['cache_stats'][-1].tokens_seen <= 2 * BUDGET:
        robot.show()
    stats = robot.got['cache_stats'][-1]
    assert stats.tokens == stats.budget == BUDGET
    assert stats.usage == 1.0
    assert stats.tokens_evicted == stats.tokens_seen - BUDGET
    assert 0 < stats.frames_retained < stats.frames_seen
    assert stats.evictions > 0
    assert stats.policy == 'saddle'
    assert len({s.kv_bytes for s in robot.got['cache_stats'] if s.frames_seen}) == 1
    assert stats.process_bytes > stats.kv_bytes
    status = robot.diagnostic('memory', lambda s: f'{BUDGET} of {BUDGET}' in s.message)
    assert status.level == b'\x00'


def test_diagnostics_name_every_part(node, robot, seen):
    for item in ('node', 'image input', 'memory', 'worker'):
        robot.diagnostic(item, lambda s: s.level == b'\x00', meanwhile=robot.show)


@pytest.mark.parametrize(('question', 'fields', 'named'), [
    ('', {}, 'empty'),
    (' \n\t', {}, 'empty'),
    ('x' * 1_000_000, {}, '1000'),
    ('word ' * 190, {}, '96'),
    ('What?', {'max_tokens': MOST + 1}, str(MOST)),
    ('What?', {'memory': 9}, 'MEMORY_'),
    ('What?', {'choices': ['yes']}, 'two'),
    ('What?', {'deadline': float('nan')}, 'nan'),
    ('What?', {'schema': ' ' * 1000 + '{}'}, '1000'),
    ('What?', {'choices': ['yes', 'no'], 'schema': '{}'}, 'one of them'),
    ('What?', {'id': 'i' * 300}, '200'),
    ('What?', {'choices': ['yes', 'y' * 5000]}, '1000'),
], ids=['empty', 'blank', '1 MB', 'too many tokens', 'max_tokens', 'memory', 'one choice',
        'deadline', 'long schema', 'choices and schema', 'long id', 'long choice'])
def test_a_bad_question_gets_one_clear_line_and_the_node_goes_on(
        node, robot, seen, question, fields, named):
    before = len(node.lines('BAD_QUERY'))
    answer = robot.ask(question, **fields)
    assert answer.status == answer.BAD_QUERY
    assert named in answer.message
    assert '\n' not in answer.message
    assert len(answer.question) <= 1003
    wait_for(lambda: len(node.lines('BAD_QUERY')) == before + 1, 'one log line')
    assert robot.ask('Still there?', max_tokens=2).status == answer.OK


@pytest.mark.parametrize(('fields', 'named'), [
    ({'encoding': 'nonsense'}, 'nonsense'),
    ({'step': 100}, '100'),
    ({'width': 0}, '0'),
    ({'data': array.array('B', bytes(10))}, '10'),
], ids=['encoding', 'step', 'zero width', 'short data'])
def test_a_bad_image_is_counted_explained_and_dropped(node, robot, seen, fields, named):
    before = robot.stats().images_bad
    robot.image(**fields)
    wait_for(lambda: robot.stats().images_bad > before, 'counted')
    status = robot.diagnostic('image input', lambda s: 'image dropped' in s.message,
                              meanwhile=lambda: robot.image(**fields))
    assert named in status.message
    assert stamp(robot.stats()) == seen
    assert node.lines('image dropped')
    assert stamp(robot.ask('Still there?', max_tokens=2)) == seen


def test_equal_and_backward_stamps_are_taken(node, robot, seen):
    for change in (0, -5 * 10**8):
        robot._stamp = seen + change - 10**8
        assert robot.show() == seen + change
    robot._stamp = seen
    answer = robot.ask('Still there?', max_tokens=2)
    assert stamp(answer) == seen - 5 * 10**8


@pytest.mark.parametrize(('name', 'value', 'named'), [
    ('temperature', 1, 'double'),
    ('temperature', 99.0, '0.0 to 5.0'),
    ('query_queue_size', 0, '1 to 1000'),
    ('policy', 'nonsense', 'clean up'),
    ('model', '/nowhere', 'clean up'),
    ('autostart', False, 'restart'),
])
def test_a_wrong_parameter_is_refused_with_a_reason(node, robot, name, value, named):
    result = robot.set_parameter(name, value)
    assert not result.successful
    assert name in result.reason
    assert named in result.reason


def test_a_live_parameter_counts_at_once(node, robot, seen):
    assert robot.set_parameter('max_query_chars', 3).successful
    assert robot.ask('Four').status == 3
    assert robot.set_parameter('max_query_chars', 1000).successful
    assert robot.ask('Four', max_tokens=2).status == 0


def test_autostart_does_not_undo_a_later_deactivate(node, robot, seen):
    assert robot.change('deactivate')
    for _ in range(20):
        assert robot.state() == 'inactive'
    robot.diagnostic('node', lambda s: 'inactive' in s.message and s.level == b'\x01')
    assert robot.state() == 'inactive'
    assert robot.change('activate')
    assert stamp(robot.ask('Still there?', max_tokens=2)) == seen


def test_compressed_images_an_incompatible_camera_and_a_clock_that_never_starts(
        start, robot, tiny):
    topic = '/test_node/jpegs/compressed'
    node = start({'model': tiny, 'autostart': 'true', 'image_transport': 'compressed',
                  'budget_tokens': BUDGET, 'max_question_tokens': 96, 'max_answer_tokens': 32,
                  'stats_period': 0.05, 'image_timeout': 0.1, 'use_sim_time': 'true',
                  f'qos_overrides.{topic}.subscription.reliability': 'reliable'},
                 '-r', '__node:=other', '-r', 'image:=jpegs', '-r', 'cache_stats:=other_stats',
                 '-r', 'query:=other_query', '-r', 'query_request:=other_request')
    node.wait_for_log(f'active: images from {topic}')
    got = []
    robot.node.create_subscription(CacheStats, 'other_stats', got.append, 10)
    best_effort = robot.node.create_publisher(
        CompressedImage, topic, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    assert topic in node.wait_for_log('does not match the reliability')
    status = robot.diagnostic('image input', lambda s: 'reliability' in s.message, 'other')
    assert status.level == b'\x02'
    assert f'qos_overrides.{topic}.subscription.reliability' in status.message
    robot.diagnostic('quality of service', lambda s: topic in s.message, 'other')
    robot.inside(robot.node.destroy_publisher, best_effort)
    robot.diagnostic('quality of service', lambda s: s.level == b'\x00', 'other')

    publisher = robot.node.create_publisher(CompressedImage, topic, 1)
    wait_for(publisher.get_subscription_count, 'the node subscribes')
    data = io.BytesIO()
    Pillow.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(data, 'jpeg')
    message = CompressedImage(format='jpeg', data=array.array('B', data.getvalue()))
    message.header.stamp.sec = 77
    publisher.publish(message)
    wait_for(lambda: got and got[-1].frames_seen == 1, 'the frame is seen')
    assert got[-1].header.stamp.sec == 77
    assert got[-1].images_bad == 0
    assert len(node.lines('does not match the reliability')) == 1
    assert node.stop() == 0
