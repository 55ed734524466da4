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

"""Watches over DDS, of the bundled model, on the node's clock: the test makes the time."""

import array
from pathlib import Path
from types import SimpleNamespace

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.engine import Answer as EngineAnswer
from infmllm_ros.engine import make_policy
from infmllm_ros.node.parameters import ParameterError, Settings
from infmllm_ros.watches import read_watches
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from infmllm_msgs.msg import Answer, WatchEvent  # noqa: E402, I100
from infmllm_ros.node.mailbox import Frame  # noqa: E402
from infmllm_ros.node.watches import Watches  # noqa: E402
from ros_robot import ns, wait_for  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402

FILE = Path(__file__).parents[2] / 'config' / 'watches.yaml'
SEED = 3_000_000  # training draws its seeds below 2,000,000
LIGHT, GRIPPER = read_watches(FILE)
STEP = 10**8  # [ns] between two images of the robot, on the node's clock
PERIOD = int(LIGHT.period * 1e9)  # [ns]
TOKENS = 5  # that a frame takes, its status token included


class World:
    """A camera in a rendered world, and the clock."""

    def __init__(self, robot):
        self.robot = robot
        self.clock = robot.node.create_publisher(Clock, '/clock', 1)
        for topic, kind in ((f'watch/{LIGHT.name}', Answer), (f'watch/{GRIPPER.name}', Answer),
                            ('watch_event', WatchEvent)):
            robot.node.create_subscription(kind, topic, robot.got[topic].append, 100)
            wait_for(lambda t=topic: robot.node.count_publishers(t), f'the node publishes {topic}')
        wait_for(self.clock.get_subscription_count, 'the node takes the time')
        self.now = robot.show()  # [ns] on the node's clock

    def show(self, pixels):
        """Let time go on by a step, and show a picture; returns when the model has seen it."""
        self.now += STEP
        clock = Clock()
        clock.clock.sec, clock.clock.nanosec = divmod(self.now, 10**9)
        self.clock.publish(clock)
        data = array.array('B')
        data.frombytes(pixels.tobytes())
        height, width, _ = pixels.shape
        stamp = self.robot.image(height=height, width=width, step=3 * width, data=data)
        assert stamp == self.now
        wait_for(lambda: self.robot.newest() == stamp, 'the frame is seen')
        return stamp

    def show_for(self, pixels, duration):
        """Show a picture for some time [ns]; returns the stamps."""
        return [self.show(pixels) for _ in range(duration // STEP)]

    def answers(self, watch):
        return self.robot.got[f'watch/{watch.name}']

    def events(self, watch):
        return [event for event in self.robot.got['watch_event'] if event.name == watch.name]


@pytest.fixture(scope='module')
def drive():
    """List frames of a drive with their truth."""
    return [next(episode) for episode in [Episode('drive', SEED, keys=0)] for _ in range(26)]


@pytest.fixture(scope='module')
def node(start, robot):
    """Start a node that watches, on simulated time."""
    node = start({
        'model': MODEL, 'autostart': 'true', 'budget_tokens': MODEL_BUDGET, 'stats_period': 0.02,
        'max_question_tokens': 32, 'max_answer_tokens': 8, 'use_sim_time': 'true',
        'watches': FILE, **{f'saddle.{name}': value for name, value in MODEL_POLICY.items()}})
    node.wait_for_log('active: images from')
    robot.meet()
    return node


@pytest.fixture(scope='module')
def world(node, robot, drive):
    """Meet the node; it has seen one frame."""
    return World(robot)


def test_a_light_that_changes_is_caught_within_one_period(world, drive):
    # at frame 14 it is green, from 15 on yellow
    assert [step.truth['light'] for step in drive[13:17]] == ['green', 'green', 'yellow', 'yellow']
    world.show_for(drive[14].frame, 2 * PERIOD)
    wait_for(lambda: world.events(LIGHT) and world.events(LIGHT)[-1].text == 'green', 'green')
    events = len(world.events(LIGHT))
    changed, *_ = world.show_for(drive[15].frame, PERIOD)
    assert world.now < changed + PERIOD  # and here the node's clock stops
    event = wait_for(lambda: world.events(LIGHT)[events:], 'an event')[0]
    assert (event.previous_text, event.text) == ('green', 'yellow')
    assert (LIGHT.choices[event.previous], LIGHT.choices[event.choice]) == ('green', 'yellow')
    assert changed <= ns(event.header.stamp) <= world.now
    assert event.probability > LIGHT.threshold


def test_an_answer_is_right_and_stamped_with_the_frame_that_it_saw(world, drive):
    shown = {}
    for step in drive[2:8]:
        shown.update(dict.fromkeys(world.show_for(step.frame, PERIOD), step.truth['light']))

    def found():
        return [answer for answer in world.answers(LIGHT) if ns(answer.header.stamp) in shown]

    wait_for(lambda: len(found()) >= 5, 'answers about all but the last')
    for answer in found():
        assert answer.status == Answer.OK
        assert answer.text == shown[ns(answer.header.stamp)] == answer.choices[answer.choice]
        assert (answer.id, answer.question) == (LIGHT.name, LIGHT.question)
        assert sum(answer.probabilities) == pytest.approx(1)


def test_a_stride_counts_frames(world, drive):
    before = len(world.answers(GRIPPER))
    while len(world.answers(GRIPPER)) == before:
        world.show(drive[0].frame)
    before = len(world.answers(GRIPPER))
    for _ in range(3 * GRIPPER.every):
        world.show(drive[0].frame)
    wait_for(lambda: len(world.answers(GRIPPER)) >= before + 3, 'three answers')
    assert len(world.answers(GRIPPER)) == before + 3


def test_the_memory_holds_nothing_but_frames(world, robot):
    stats = robot.got['cache_stats']
    first, last = next(s for s in stats if s.frames_seen), stats[-1]
    assert last.answers - first.answers > 10  # the watches' own
    assert (last.tokens_seen - first.tokens_seen
            == TOKENS * (last.frames_seen - first.frames_seen) > 0)


def test_a_question_is_answered_as_without_watches(world, robot, drive):
    world.show(drive[14].frame)
    answer = robot.ask('what colour is the light')
    assert (answer.status, answer.text.strip()) == (Answer.OK, 'green')
    assert not [a for a in robot.got['answer'] if a.id == LIGHT.name]
    assert not [c for c in robot.got['answer_stream'] if c.id == LIGHT.name]


def test_they_can_be_switched_off_and_on(world, robot, drive):
    def runs():
        return len(world.answers(LIGHT)) + len(world.answers(GRIPPER))

    assert robot.set_parameter('watches_enabled', False).successful
    robot.diagnostic('watches', lambda s: 'watches_enabled' in s.message)
    before = runs()
    world.show_for(drive[0].frame, 2 * PERIOD)
    assert runs() == before
    assert robot.set_parameter('watches_enabled', True).successful
    world.show(drive[0].frame)
    heard = wait_for(lambda: runs() > before and runs(), 'an answer')
    status = robot.diagnostic('watches', lambda s: 'watches_enabled' not in s.message)
    values = {pair.key: pair.value for pair in status.values}
    assert values['watch traffic light'].startswith('none; skipped ')
    assert int(values['answers']) >= heard


def test_a_wrong_file_and_a_question_too_long_refuse_configure(world, robot, node, tmp_path):
    assert robot.change('deactivate') and robot.change('cleanup')
    long, wrong = tmp_path / 'long.yaml', tmp_path / 'wrong.yaml'
    long.write_text(f'- {{name: talk, question: {"the light " * 20}, period: 1}}')
    wrong.write_text('- {name: talk, question: what, period: 1, every: 2}')
    for file, named in ((long, ['watch talk', '32']), (wrong, ['watch talk', 'period', 'every'])):
        assert robot.set_parameter('watches', str(file)).successful
        assert not robot.change('configure')
        line = node.lines('configure failed')[-1]
        for text in named:
            assert text in line
    assert robot.set_parameter('watches', '').successful
    assert robot.change('configure') and robot.change('activate')


class Node:
    """As much of a node as watches need."""

    def __init__(self, **values):
        self.seconds = 0.0
        self.sent = []
        self.values = {'cameras': ('',), **values}

    def get_parameter(self, name):
        return SimpleNamespace(value=self.values[name])

    def create_publisher(self, kind, topic, depth):
        return topic

    def get_clock(self):
        now = SimpleNamespace(nanoseconds=int(self.seconds * 1e9))
        return SimpleNamespace(now=lambda: now)

    def watches(self, *ahead, **settings):
        return Watches(self, Settings(**{'watches': str(FILE), **settings}),
                       lambda *sent: self.sent.append(sent), *ahead)


@pytest.mark.parametrize(('policy', 'fields'), [
    ('hermes', {'probe': 'as it was'}), ('saddle', {'probe': 'as it was', 'window': 'probe'})])
def test_the_questions_can_guide_what_stays(policy, fields):
    asked = {'policy': policy, 'policy_fields': fields}
    made = [Node().watches().guide(Settings(watches_guide=guide, **asked))
            for guide in (True, False)]
    probes = [make_policy(policy, budget=500, **one.policy_fields).probe for one in made]
    assert probes == ['What colour is the light? What is the gripper doing?', 'as it was']


@pytest.mark.parametrize(('settings', 'named'), [
    ({'policy': 'random'}, ['watches_guide', 'random', 'hermes']),
    ({'policy': 'saddle', 'policy_fields': {'probe': 'a', 'window': 'chunk'}}, ['saddle.window']),
    ({'policy': 'hermes', 'policy_fields': {'probe': 'a'}, 'watches': ''}, ['no watches']),
])
def test_guidance_that_cannot_be_is_refused(settings, named):
    settings = {'watches_guide': True, 'watches': str(FILE), **settings}
    with pytest.raises(ParameterError) as error:
        Node().watches(watches=settings['watches']).guide(Settings(**settings))
    for text in named:
        assert text in str(error.value)


def test_a_camera_that_the_node_lacks_is_refused(tmp_path):
    file = tmp_path / 'watches.yaml'
    file.write_text('- {name: a, question: where, every: 1, camera: left}')
    assert Node().watches(watches=str(file), cameras=('front', 'left'))
    with pytest.raises(ParameterError, match="watch a: camera is 'left', but.*'front', 'rear'"):
        Node().watches(watches=str(file), cameras=('front', 'rear'))


def test_a_watch_of_a_camera_asks_about_that_camera(tmp_path):
    file = tmp_path / 'watches.yaml'
    file.write_text("- {name: a, question: 'Where?', every: 1, camera: left}")
    node = Node(cameras=('front', 'left'), camera_question='On the {camera}: ')
    watches = node.watches(watches=str(file), cameras=('front', 'left'))
    frames = {camera: Frame(None, stamp, camera=camera)
              for camera, stamp in (('front', 9), ('left', 7))}
    asked = []

    def answer(question, frame, **_):
        asked.append((question, frame))
        return EngineAnswer('here', 'stop', 1, 0.1, 0.1, 8, '')

    watches.observed(frames['front'])
    assert watches.due_in() > 0
    watches.observed(frames['left'])
    watches.run(SimpleNamespace(answer=answer), lambda camera: (None, None))  # forgotten meanwhile
    assert not asked and not node.sent
    watches.observed(frames['left'])
    again = ('pixels', 7, 'left')
    watches.run(SimpleNamespace(answer=answer), lambda camera: (frames[camera], again))
    assert asked == [('On the left: Where?', again)]
    [(_, message)] = node.sent
    assert (message.camera, ns(message.header.stamp)) == ('left', 7)
    assert (message.question, message.context) == ('Where?', 'On the left: ')


def test_a_watch_is_told_what_lies_ahead_if_it_wants_to_know(tmp_path):
    file = tmp_path / 'watches.yaml'
    file.write_text("- {name: a, question: 'Clear?', every: 1, navigation: true}\n"
                    "- {name: b, question: 'Clear?', every: 1}")
    with pytest.raises(ParameterError, match='watch a: navigation is true, but nav.enabled'):
        Node().watches(watches=str(file), nav_fields={'enabled': False})
    node, asked, moments = Node(), [], iter(['Turn left. ', 'Go straight. '])
    watches = node.watches(
        lambda: next(moments), watches=str(file), nav_fields={'enabled': True})
    said = EngineAnswer('yes', 'stop', 1, 0.1, 0.1, 8, '')
    session = SimpleNamespace(answer=lambda question, **_: asked.append(question) or said)
    for stamp in (7, 8):
        watches.observed(Frame(None, stamp))
        for _ in range(2):
            watches.run(session, lambda _, s=stamp: (Frame(None, s), None))
    assert sorted(asked) == ['Clear?', 'Clear?', 'Go straight. Clear?', 'Turn left. Clear?']
    told = {(topic, message.context) for topic, message in node.sent}
    assert told == {('watch/a', 'Turn left. '), ('watch/a', 'Go straight. '), ('watch/b', '')}


def test_a_watch_that_fails_or_comes_late_is_in_the_diagnostics():
    node = Node()
    watches = node.watches()
    [ok] = watches.status()
    assert (ok.level, ok.message) == (ok.OK, '2 on')
    watches.observed(Frame(None, 7))
    node.seconds = 10 * LIGHT.period

    def fail(*_, **__):
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError):
        watches.run(SimpleNamespace(answer=fail), lambda _: (Frame(None, 7), None))
    [(topic, answer)] = node.sent
    assert (topic, answer.status) == ('watch/traffic_light', Answer.FAILED)
    assert 'out of memory' in answer.message and ns(answer.header.stamp) == 7
    [failed] = watches.status()
    assert failed.level == failed.WARN and 'traffic_light: RuntimeError' in failed.message
    values = {pair.key: pair.value for pair in failed.values}
    assert values['watch traffic light'] == 'no choice yet; skipped 10'
    said = EngineAnswer('red', 'choice', 1, 0.1, 0.1, 8, '', 0, (.7, .1, .1, .1))
    watches.observed(Frame(None, 8))
    node.seconds += LIGHT.period
    watches.run(SimpleNamespace(answer=lambda *_, **__: said), lambda _: (Frame(None, 8), None),
                lambda: False)
    assert len(node.sent) == 1, 'a worker that was given up tells nothing'
    watches.observed(Frame(None, 8))
    node.seconds += LIGHT.period
    watches.run(SimpleNamespace(answer=lambda *_, **__: said), lambda _: (Frame(None, 8), None))
    topic, event = node.sent[-1]
    assert (topic, event.previous, event.text, ns(event.header.stamp)) == (
        'watch_event', -1, 'red', 8)
    [late] = watches.status()
    assert late.level == late.WARN
    assert 'traffic_light was skipped 10 times' in late.message
