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

"""Navigation context over DDS: a path and a pose in, points, maneuvers and questions out."""

import math
import pathlib
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from geometry_msgs.msg import PoseStamped, TransformStamped  # noqa: E402, I100
from infmllm_msgs.msg import Maneuver  # noqa: E402
from infmllm_ros.navigation import Unusable  # noqa: E402
from infmllm_ros.node import navigation  # noqa: E402
from infmllm_ros.node.parameters import TABLE  # noqa: E402
from infmllm_ros.node.qos import Endpoints  # noqa: E402
from nav_msgs.msg import Odometry, Path  # noqa: E402
import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_robot import ns, wait_for  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
# North 30 m, then west 60 m; the robot stands 1 m left of it, 5 m along, and looks north.
PATH = [(0, 0), (0, 30), (-60, 30)]
POSE = (-1, 5, 90)
TEXT = (
    'Navigation: points of the path ahead every 10 m, in m (x forward, y left): '
    '(10.0, -1.0), (20.0, -1.0), (25.0, 4.0), (25.0, 14.0).\n'
    'Current action: turn left in 25.0 m (5.0 s).\n'
    'Next action: none.\n'
    'Supplementary: none.\n'
    'Summary: Turn left in 25.0 m.\n')


@pytest.fixture(scope='module')
def node(start, robot, tiny):
    """Start a node with navigation context."""
    node = start({
        'model': tiny, 'autostart': 'true', 'budget_tokens': 1024, 'stats_period': 0.05,
        'max_question_tokens': 512, 'max_answer_tokens': 8, 'nav.enabled': 'true',
        'nav.timeout': 30.0, 'nav.path_timeout': 30.0, 'nav.period': 0.05})
    node.wait_for_log('active: images from')
    robot.meet()
    return node


class Planner:
    """A planner and a localization."""

    def __init__(self, robot):
        self.clock = robot.node.get_clock()
        self.paths = robot.node.create_publisher(Path, 'path', 1)
        self.poses = robot.node.create_publisher(Odometry, 'odom', 1)
        robot.hear('maneuver', Maneuver)
        self.got = robot.got['maneuver']
        for publisher in (self.paths, self.poses):
            wait_for(publisher.get_subscription_count, 'the node subscribes')

    def stamp(self, message, frame, age):
        now = self.clock.now().nanoseconds - int(age * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
        message.header.frame_id = frame
        return now

    def path(self, points=PATH, frame='map', age=0.0):
        message = Path(poses=[PoseStamped() for _ in points])
        for pose, (x, y) in zip(message.poses, points):
            pose.pose.position.x, pose.pose.position.y = float(x), float(y)
        self.stamp(message, frame, age)
        self.paths.publish(message)

    def odometry(self, pose=POSE, speed=5.0, frame='map', age=0.0):
        message = Odometry(child_frame_id='base_link')
        x, y, degrees = pose
        message.pose.pose.position.x, message.pose.pose.position.y = float(x), float(y)
        message.pose.pose.orientation.z = math.sin(math.radians(degrees) / 2)
        message.pose.pose.orientation.w = math.cos(math.radians(degrees) / 2)
        message.twist.twist.linear.x = speed
        stamp = self.stamp(message, frame, age)
        self.poses.publish(message)
        return stamp

    def wait(self, **given):
        """Send odometry until a maneuver made from it has come; returns that."""
        stamps = set()

        def found():
            stamps.add(self.odometry(**given))
            return [m for m in self.got if ns(m.header.stamp) in stamps]

        return wait_for(found, 'a maneuver from this odometry')[-1]


@pytest.fixture(scope='module')
def planner(node, robot):
    """Join the planner; the model has seen a frame."""
    robot.show()
    return Planner(robot)


def test_the_policy_for_a_secured_graph_is_what_the_node_has_in_an_open_one(node, robot):
    from infmllm_ros.node.access import access, render
    policy = (ROOT / 'config/sros2_policy.xml').read_text()

    def has():
        if 'infmllm' not in robot.node.get_node_names():
            return ''
        return render(access(robot.node, 'infmllm', robot.node.get_namespace()))

    try:
        wait_for(lambda: has() == policy, 'all endpoints are discovered', timeout=90)
    except AssertionError:
        assert has() == policy


def test_without_inputs_a_question_goes_without_and_the_log_says_why_once(node, planner, robot):
    answer = robot.ask('Where to?', max_tokens=2)
    assert (answer.status, answer.context) == (answer.OK, '')
    status = robot.diagnostic('navigation', lambda s: s.level == b'\x01')
    assert 'no path' in status.message
    assert len(node.lines('no navigation context: no path')) == 1


def test_path_and_pose_become_the_text_of_the_question(node, planner, robot):
    planner.path()
    maneuver = planner.wait()
    assert maneuver.text == TEXT
    assert maneuver.header.frame_id == 'base_link'
    assert (maneuver.action, maneuver.next_action) == (Maneuver.TURN_LEFT, Maneuver.NONE)
    assert (maneuver.distance, maneuver.time, maneuver.next_distance) == pytest.approx((25, 5, 0))
    assert maneuver.summary == 'Turn left in 25.0 m'
    np.testing.assert_allclose([(p.x, p.y, p.z) for p in maneuver.points],
                               [(10, -1, 0), (20, -1, 0), (25, 4, 0), (25, 14, 0)], atol=1e-9)
    answer = robot.ask('Where to?', max_tokens=2)
    assert answer.status == answer.OK, answer.message
    assert (answer.context, answer.question) == (TEXT, 'Where to?')
    scored = robot.ask('Left?', choices=['yes', 'no'])
    assert (scored.status, scored.context) == (scored.OK, TEXT)
    robot.diagnostic('navigation', lambda s: s.level == b'\x00')


def test_the_model_reads_the_context(node, planner, robot, tiny):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(tiny)

    def grows(**given):
        """Tell how many tokens a question adds to the memory with its answer."""
        planner.wait(**given)
        before = robot.stats().tokens_seen
        answer = robot.ask('Where to?', max_tokens=2, memory=1)
        return robot.stats().tokens_seen - before, answer.context

    planner.path()
    long, first = grows()
    planner.path([(0, 0), (0, 30)])
    short, second = grows(pose=(0, 30, 90))
    assert first == TEXT
    assert 'The end of the path is reached' in second
    counts = [len(tokenizer(text + 'Where to?', add_special_tokens=False).input_ids)
              for text in (first, second)]
    assert long - short == counts[0] - counts[1] > 10


@pytest.mark.parametrize(('path', 'odometry', 'what', 'named'), [
    ({}, {'age': 31}, 'stale odometry', 'nav.timeout'),
    ({'age': 31}, {}, 'stale path', 'nav.path_timeout'),
    ({'frame': 'odom'}, {}, 'other frame', "'map'"),
    ({}, {'pose': (12, 5, 90)}, 'off the path', '12.0 m'),
    ({'points': [(0, float('nan'))]}, {}, 'bad path', 'nan'),
    ({'points': []}, {}, 'bad path', 'no poses'),
    ({}, {'speed': float('inf')}, 'bad odometry', 'inf'),
])
def test_an_input_of_no_use_is_reported_once_and_left_out(
        node, planner, robot, path, odometry, what, named):
    if what == 'other frame' and navigation.tf2_ros:
        named = 'tf has no way'
    before = len(node.lines(f'no navigation context: {what}'))
    planner.path()
    planner.wait()
    planner.path(**path)
    planner.odometry(**odometry)
    status = robot.diagnostic('navigation', lambda s: s.message.startswith(f'{what}:'))
    assert status.level == b'\x01'
    assert named in status.message
    begin = time.time_ns()
    answer = robot.ask('Where to?', max_tokens=2)
    assert (answer.status, answer.context) == (answer.OK, '')
    assert not robot.fresh('maneuver', begin)()
    assert len(node.lines(f'no navigation context: {what}')) == before + 1
    planner.path()
    planner.wait()
    assert robot.ask('And now?', max_tokens=2).context == TEXT


def test_an_unfilled_stamp_counts_as_the_time_of_arrival(node, planner, robot):
    planner.path()
    message = Odometry(child_frame_id='base_link')
    message.header.frame_id = '/map'
    message.pose.pose.orientation.w = 1.0
    got = len(planner.got)
    planner.poses.publish(message)
    wait_for(lambda: any(m.distance == 0 for m in planner.got[got:]), 'a maneuver from it')
    assert robot.ask('Where to?', max_tokens=2).context != ''


def test_a_question_too_long_with_its_context_says_so(node, planner, robot):
    planner.path()
    planner.wait()
    answer = robot.ask('word ' * 470, max_tokens=2)
    assert answer.status == answer.BAD_QUERY
    assert '512' in answer.message
    assert 'navigation context' in answer.message


def test_deactivate_stops_maneuvers_and_activate_starts_them_again(node, planner, robot):
    assert robot.change('deactivate')
    wait_for(lambda: not planner.poses.get_subscription_count(), 'the node unsubscribes')
    assert robot.change('activate')
    wait_for(planner.paths.get_subscription_count, 'the node subscribes')
    wait_for(planner.poses.get_subscription_count, 'the node subscribes')
    assert robot.ask('Where to?', max_tokens=2).context == ''
    planner.path()
    assert planner.wait().text == TEXT


def test_a_latched_path_is_taken_with_the_override_that_the_page_names(domain):
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    try:
        name = 'qos_overrides./test_latched/path.subscription.durability'
        assert name.replace('/test_latched', '') in (ROOT / 'docs/navigation.md').read_text()
        node = rclpy.create_node('latched', namespace='test_latched', context=context,
                                 parameter_overrides=[Parameter(name, value='transient_local')])
        latched = node.create_publisher(Path, 'path', QoSProfile(
            depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        latched.publish(Path())  # before anybody listens
        fields = {o.removeprefix('nav.'): TABLE[o].default for o in TABLE if o.startswith('nav.')}
        inputs = navigation.NavigationInput(
            node, Endpoints(node), fields, node.get_clock())
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)

        def received():
            executor.spin_once(timeout_sec=0.05)
            return inputs.context() == '' and inputs.reason.startswith('no odometry')

        wait_for(received, 'the latched path')
        inputs.close()
    finally:
        rclpy.shutdown(context=context)


def test_a_path_that_does_not_match_is_named_with_a_remedy(domain):
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    try:
        node = rclpy.create_node('unmatched', namespace='test_unmatched', context=context)
        fields = {o.removeprefix('nav.'): TABLE[o].default for o in TABLE if o.startswith('nav.')}
        ends = Endpoints(node)
        inputs = navigation.NavigationInput(node, ends, fields, node.get_clock())
        node.create_publisher(
            Path, 'path', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)

        def named():
            executor.spin_once(timeout_sec=0.05)
            return 'qos_overrides./test_unmatched/path.subscription.reliability' in (
                ends.status().message)

        wait_for(named, 'the mismatch')
        inputs.close()
        assert 'all endpoints match' in ends.status().message
    finally:
        rclpy.shutdown(context=context)


class Tf:
    """As much of tf2_ros as the node uses, with one transform."""

    class TransformException(Exception):  # noqa: N818
        pass

    def __init__(self, stamp_s, error=''):
        self.found = TransformStamped()
        self.found.header.stamp.sec = stamp_s
        self.found.transform.translation.x = 10.0
        self.found.transform.translation.y = 5.0
        self.found.transform.rotation.z = self.found.transform.rotation.w = math.sqrt(0.5)
        self.error, self.closed = error, False

    def Buffer(self):  # noqa: N802
        return self

    def TransformListener(self, buffer, node):  # noqa: N802
        return SimpleNamespace(unregister=lambda: setattr(self, 'closed', True))

    def lookup_transform(self, target, source, time):
        assert (target, source, time.nanoseconds) == ('map', 'odom', 0)  # the latest
        if self.error:
            raise self.TransformException(self.error)
        return self.found


@pytest.mark.parametrize('stamp', [0, 99], ids=['static', 'fresh'])
def test_a_transform_is_the_pose_of_one_frame_in_the_other(monkeypatch, stamp):
    tf = Tf(stamp)
    monkeypatch.setattr(navigation, 'tf2_ros', tf)
    frames = navigation.Frames(None, 2.0)
    pose = frames.pose('map', 'odom', 100 * 10**9)
    assert (pose.x, pose.y, pose.yaw) == pytest.approx((10, 5, math.pi / 2))
    frames.close()
    assert tf.closed


def test_the_real_tf2_gives_the_pose_of_one_frame_in_the_other(domain):
    tf2_ros = pytest.importorskip('tf2_ros', reason='needs tf2_ros, which a distribution brings')
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    try:
        node = rclpy.create_node('tf_user', namespace='test_tf', context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        frames = navigation.Frames(node, 2.0)
        with pytest.raises(Unusable, match='no way'):
            frames.pose('map', 'odom', 0)
        known = Tf(0).found
        known.header.frame_id, known.child_frame_id = 'map', 'odom'
        tf2_ros.StaticTransformBroadcaster(node).sendTransform(known)

        def found():
            executor.spin_once(timeout_sec=0.05)
            try:
                return frames.pose('map', 'odom', 0)
            except Unusable:
                return None

        pose = wait_for(found, 'the transform')
        assert (pose.x, pose.y, pose.yaw) == pytest.approx((10, 5, math.pi / 2))
        frames.close()
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize(('tf', 'what', 'named'), [
    (Tf(90), 'stale transform', '10.0 s old, the most is 2.0'),
    (Tf(99, 'two unconnected\ntrees'), 'other frame', '(two unconnected trees)'),
])
def test_a_transform_of_no_use_is_explained(monkeypatch, tf, what, named):
    monkeypatch.setattr(navigation, 'tf2_ros', tf)
    with pytest.raises(Unusable) as caught:
        navigation.Frames(None, 2.0).pose('map', 'odom', 100 * 10**9)
    assert caught.value.what == what
    assert named in str(caught.value)
