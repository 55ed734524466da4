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
What goes wrong in the model, in a running node: seen, told, counted, and got over.

After each fault the bundled model is told a fact and answers a question about it rightly.
"""

from pathlib import Path
import signal
import time

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from infmllm_ros.node.qos import Endpoints  # noqa: E402, I100
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402, I100
from ros_robot import ns, TIMEOUT, wait_for  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402

ERROR = b'\x02'
BURST = 2000  # [images] more than all queues on the way hold
FAULTY = (str(Path(__file__).with_name('faulty_node.py')),)
PARAMETERS = {
    'model': str(MODEL), 'autostart': 'true', 'budget_tokens': MODEL_BUDGET, 'stats_period': 0.05,
    'max_question_tokens': 32, 'max_answer_tokens': 8, 'watchdog_timeout': 0.0,
    **{f'saddle.{name}': value for name, value in MODEL_POLICY.items()}}
EPISODE = Episode('drive', 3, keys=0)
FRAME = next(iter(EPISODE)).frame
IMAGE = {'height': 64, 'width': 64, 'step': 192, 'data': FRAME.tobytes()}
FACT = EPISODE.tell('target', 'blue cup').text
QUESTION = next(q.text for q in EPISODE.questions(('told',)) if q.name == 'told:target')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('faults')


@pytest.fixture(scope='module')
def boot(start, robot, folder):
    """Start a node that fails as it is told to."""
    def boot(**parameters):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('INFMLLM_FAULT', str(folder / 'order'))
            node = start({**PARAMETERS, 'memory.folder': str(folder), **parameters},
                         program=FAULTY)
        node.wait_for_log('active: images from')
        robot.meet()
        return node
    return boot


@pytest.fixture(scope='module')
def node(boot):
    return boot()


@pytest.fixture
def order(folder):
    """Say what goes wrong; in the end, nothing."""
    file = folder / 'order'
    yield file.write_text
    file.write_text('')


def stats(robot):
    return robot.got['cache_stats'][-1]


def camera(robot):
    return stats(robot).cameras[0]


def values(status):
    return {value.key: value.value for value in status.values}


def right(robot):
    """Show a frame, tell a fact, and ask for it."""
    robot.show(**IMAGE)
    wait_for(robot.tells.get_subscription_count, 'the node hears what it is told')
    told = stats(robot).tokens_seen
    robot.tells.publish(String(data=FACT))
    wait_for(lambda: stats(robot).tokens_seen > told, 'the fact is read')
    answer = robot.ask(QUESTION)
    return answer.text.strip() == 'blue cup' and ns(answer.header.stamp) == robot._stamp


@pytest.mark.parametrize(('fault', 'cause', 'line'), [
    ('lack vision', 'OutOfMemoryError', 'out of memory: '),
    ('lack prefill', 'OutOfMemoryError', 'out of memory: '),
    ('nan vision', 'NotFiniteError', 'NaN or infinity'),
    ('bug prefill', 'KeyError', 'a bug'),
])
def test_a_frame_at_which_the_model_fails_is_lost_alone(node, robot, order, fault, cause, line):
    assert right(robot)
    before = camera(robot)
    order(fault)
    robot.image(**IMAGE)
    wait_for(lambda: camera(robot).frames_failed == before.frames_failed + 1, 'it is counted')
    robot.diagnostic('worker', lambda s: s.level == ERROR)
    node.wait_for_log(line)
    order('')
    robot.diagnostic('image input', lambda s: cause in values(s)['causes of failure'])
    assert right(robot)
    assert camera(robot).frames_failed == before.frames_failed + 1


def test_a_question_at_which_memory_runs_out_says_what_to_do_and_the_next_is_answered(
        node, robot, order):
    assert right(robot)
    order('lack decode')
    answer = robot.ask(QUESTION)
    order('')
    assert answer.status == answer.FAILED
    assert 'out of memory' in answer.message and 'on_out_of_memory' in answer.message
    assert right(robot)


def test_the_budget_is_lowered_where_that_is_asked_for(node, robot, order):
    assert robot.set_parameter('on_out_of_memory', 'shrink').successful
    order('lack prefill')
    robot.image(**IMAGE)
    wait_for(lambda: stats(robot).budget == MODEL_BUDGET * 3 // 4, 'the budget is lowered')
    order('')
    assert robot.set_parameter('on_out_of_memory', 'drop').successful
    assert f'from {MODEL_BUDGET} to {MODEL_BUDGET * 3 // 4}' in node.log
    assert right(robot)
    assert robot.set_parameter('budget_tokens', MODEL_BUDGET).successful
    wait_for(lambda: stats(robot).budget == MODEL_BUDGET, 'it can be raised again')


def test_a_full_disk_is_told_and_leaves_the_old_file_and_the_memory(node, robot, order, folder):
    from infmllm_msgs.srv import MemoryFile
    robot.add_client(MemoryFile, 'save_memory')
    robot.add_client(MemoryFile, 'load_memory')
    assert right(robot)
    assert robot.call('save_memory', MemoryFile.Request(path='kept')).success
    before = (folder / 'kept').read_bytes()
    order('full save')
    refused = robot.call('save_memory', MemoryFile.Request(path='kept'))
    order('')
    assert not refused.success and 'No space left' in refused.message
    assert 'the disk has room' in refused.message
    assert (folder / 'kept').read_bytes() == before
    assert not list(folder.glob('*.part'))
    assert right(robot)
    assert robot.call('load_memory', MemoryFile.Request(path='kept')).success
    assert robot.ask(QUESTION).text.strip() == 'blue cup'


def test_what_the_middleware_loses_costs_images_and_nothing_else(node, robot):
    assert right(robot)
    lossy = robot.node.create_publisher(
        Image, 'image', QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
    wait_for(lossy.get_subscription_count, 'the node is found')
    before = robot.stats().cameras[0]
    node.process.send_signal(signal.SIGSTOP)  # nobody takes what comes
    try:
        for _ in range(BURST):
            robot.image(lossy, **IMAGE)
    finally:
        node.process.send_signal(signal.SIGCONT)
    for _ in range(100):  # of these some come
        robot.image(lossy, **IMAGE)
        time.sleep(0.01)
    robot.show(publisher=lossy, **IMAGE)
    sent = (robot._stamp - ns(before.header.stamp)) // 10**8
    answer = robot.ask(QUESTION)
    assert answer.text.strip() == 'blue cup' and ns(answer.header.stamp) == robot._stamp
    after = wait_for(lambda: not camera(robot).frames_pending and camera(robot), 'none waits')
    assert 0 < after.frames_received - before.frames_received < sent, 'some are lost'
    assert after.frames_received == (
        after.frames_seen + after.frames_skipped + after.frames_dropped + after.frames_similar
        + after.images_bad + after.frames_failed)
    robot.inside(robot.node.destroy_publisher, lossy)
    assert right(robot)


def test_what_was_published_is_waited_for_as_long_as_somebody_has_not_got_it(node, robot):
    ends = Endpoints(robot.node)
    wait_for(lambda: ends.flush(0), 'all has arrived')
    node.process.send_signal(signal.SIGSTOP)
    try:
        robot.tells.publish(String(data=FACT))
        assert not ends.flush(0.2)
    finally:
        node.process.send_signal(signal.SIGCONT)
    assert ends.flush(TIMEOUT)


@pytest.fixture
def watched(node, robot):
    """Have the watchdog look closely: too closely for a busy machine, unless it hangs."""
    def watch(action, timeout=3.0):
        assert robot.set_parameter('watchdog_action', action).successful
        assert robot.set_parameter('watchdog_timeout', timeout).successful
    yield watch
    if node.process.poll() is None:
        assert robot.set_parameter('watchdog_timeout', 0.0).successful


def test_a_question_that_hangs_fails_at_once_and_never_again(node, robot, order, watched):
    assert right(robot)
    watched('fail')
    order('hang decode')
    asked = [robot.send(QUESTION) for _ in range(2)]
    for one in asked:
        assert robot.answer(one).status == robot.answer(one).FAILED
        assert 'hangs' in robot.answer(one).message
    status = robot.diagnostic('worker', lambda s: 'hangs' in s.message)
    assert status.level == ERROR and 'faulty_node.py' in status.message, 'where it hangs'
    beat = int(values(robot.diagnostic('node', lambda _: True))['heartbeat'])
    robot.diagnostic('node', lambda s: int(values(s)['heartbeat']) > beat)
    order('')
    robot.diagnostic('worker', lambda s: 'hangs' not in s.message)
    node.wait_for_log('the model goes on')
    watched('report', 0.0)
    assert right(robot)
    assert [sum(a.id == one for a in robot.got['answer']) for one in asked] == [1, 1]
    assert [sum(c.last for c in robot.chunks(one)) for one in asked] == [1, 1]
    assert len(node.lines('watchdog_action is fail')) == 1


def test_another_thread_takes_over_with_a_new_memory(node, robot, order, watched):
    assert right(robot)
    before = camera(robot)
    watched('reset')
    order('hang prefill')
    robot.image(**IMAGE)
    node.wait_for_log('another thread goes on with a new memory')
    watched('report', 0.0)
    order('')
    wait_for(lambda: stats(robot).frames_seen == 0, 'the memory is empty')
    assert robot.ask(QUESTION).status == 2  # NO_FRAME
    assert right(robot)
    after = camera(robot)
    assert (after.frames_failed, after.frames_pending) == (before.frames_failed + 1, 0)
    assert after.frames_received == after.frames_seen + after.frames_failed + \
        after.frames_dropped + after.images_bad


def test_the_process_ends_for_its_supervisor_and_the_memory_comes_back(
        node, robot, order, watched, boot):
    from infmllm_msgs.srv import MemoryFile
    assert right(robot)
    assert robot.call('save_memory', MemoryFile.Request()).success
    watched('exit')
    order('hang decode')
    answer = robot.ask(QUESTION)
    assert answer.status == answer.FAILED
    assert node.process.wait(TIMEOUT) == 75
    order('')
    respawned = boot(**{'memory.restore': 'true'})
    assert respawned.lines('memory restored')
    assert robot.ask(QUESTION).text.strip() == 'blue cup'
    assert respawned.stop() == 0
    assert 'Traceback' not in node.log + respawned.log
