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

"""Two cameras and the bundled model over DDS: right answers about each, with its stamps."""

import array
import io

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
from PIL import Image as Pillow
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from rclpy.qos import ReliabilityPolicy  # noqa: E402, I100
from ros_robot import ns, TIMEOUT, wait_for  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

CAMERAS = ('front', 'left')
SEED = 3_000_100  # training draws its seeds below 2,000,000
MOMENTS, QUESTIONS = 40, 5


@pytest.fixture(scope='module')
def node(start, robot):
    """Start a node with a raw and a compressed camera."""
    # The bundled model was trained without names of cameras: it is not told any.
    node = start({
        'model': MODEL, 'autostart': 'true', 'cameras': '[front, left]', 'stats_period': 0.05,
        'left.image_transport': 'compressed', 'camera_label': "''", 'camera_question': "''",
        'qos_overrides./test_two_cameras/front/image.subscription.reliability': 'reliable',
        'budget_tokens': MODEL_BUDGET, 'max_question_tokens': 32, 'max_answer_tokens': 8,
        **{f'saddle.{name}': value for name, value in MODEL_POLICY.items()}})
    node.wait_for_log('active: images from /test_two_cameras/front/image, '
                      '/test_two_cameras/left/image/compressed')
    robot.meet()
    return node


class Pair:
    """Two cameras in two worlds, each with its own topic and stamps."""

    def __init__(self, robot):
        """Advertise."""
        self.robot = robot
        self.publishers = {
            'front': robot.node.create_publisher(Image, 'front/image', 1),
            'left': robot.node.create_publisher(CompressedImage, 'left/image/compressed', 1)}
        self.worlds = {name: Episode('drive', SEED + n, keys=0) for n, name in enumerate(CAMERAS)}
        self.stamps, self.frames = {}, {}
        for publisher in self.publishers.values():
            wait_for(publisher.get_subscription_count, 'the node subscribes')

    def stats(self, camera):
        """Say what the node has counted last."""
        got = self.robot.got['cache_stats']
        return got[-1].cameras[CAMERAS.index(camera)] if got else None

    def send(self, camera, frame):
        """Publish an image with the next stamp."""
        self.robot._stamp += 10**8
        if camera == 'front':
            data = array.array('B')
            data.frombytes(frame.tobytes())
            message = Image(height=64, width=64, encoding='rgb8', step=192, data=data)
        else:
            file = io.BytesIO()
            Pillow.fromarray(frame).save(file, 'png')
            message = CompressedImage(format='png', data=file.getvalue())
        self.robot.stamp(message)
        self.publishers[camera].publish(message)
        return self.robot._stamp

    def show(self, camera):
        """Go on by one frame, and wait until the model has seen it."""
        frame = self.frames[camera] = next(self.worlds[camera]).frame
        for _ in range(10):  # the first are lost while the node has not discovered the camera
            stamp = self.send(camera, frame)
            try:
                wait_for(lambda s=stamp: self.stats(camera)
                         and ns(self.stats(camera).header.stamp) == s, 'the frame is seen',
                         TIMEOUT / 10)
                self.stamps[camera] = stamp
                return
            except AssertionError:
                pass
        raise AssertionError(f'the node sees no image of {camera}')


@pytest.fixture(scope='module')
def pair(node, robot):
    """Show one frame of each camera."""
    pair = Pair(robot)
    for camera in CAMERAS:
        pair.show(camera)
    return pair


def test_the_same_question_gets_each_cameras_own_answer_and_stamp(robot, pair):
    """At moments when the two cameras show different things."""
    asked, right = 0, []
    for moment in range(MOMENTS):
        for camera in CAMERAS if moment % 2 else reversed(CAMERAS):
            pair.show(camera)
        question = pair.worlds['front'].ask(('now',))
        truth = [pair.worlds[camera].truth[question.name] for camera in CAMERAS]
        if truth[0] == truth[1]:
            continue
        for camera, expected in zip(CAMERAS, truth, strict=True):
            answer = robot.ask(question.text, camera=camera)
            assert answer.status == answer.OK, answer.message
            assert (answer.camera, ns(answer.header.stamp)) == (camera, pair.stamps[camera])
            own = [e for e in answer.evidence if ns(e.stamp) == pair.stamps[camera]]
            assert own and {e.camera for e in own} == {camera}
            right.append(answer.text.strip() == expected)
        asked += 1
        if asked == QUESTIONS:
            break
    assert asked == QUESTIONS
    assert sum(right) >= 0.9 * len(right)


def test_a_question_about_all_has_the_newest_stamp_of_all(robot, pair):
    for camera in CAMERAS:
        pair.show(camera)
        answer = robot.ask('what is ahead ?')
        assert (answer.camera, ns(answer.header.stamp)) == (camera, pair.stamps[camera])


def test_a_camera_that_does_not_exist_is_refused_with_those_that_do(robot, pair):
    answer = robot.ask('what is ahead ?', camera='rear')
    assert answer.status == answer.BAD_QUERY
    for name in ('rear', *CAMERAS):
        assert name in answer.message


def test_near_identical_frames_of_one_camera_are_skipped_and_counted(robot, pair):
    assert robot.set_parameter('left.refresh', 1000.0).successful  # however slow this is
    assert robot.set_parameter('left.min_change', 0.02).successful
    pair.show('left')
    before = robot.got['cache_stats'][-1]
    for number in range(1, 4):
        pair.send('left', pair.frames['left'])
        wait_for(lambda n=number: pair.stats('left').frames_similar == n, 'it is skipped')
    after = robot.got['cache_stats'][-1]
    assert after.frames_seen == before.frames_seen
    assert pair.stats('front').frames_similar == 0
    answer = robot.ask('what is ahead ?', camera='left')
    assert ns(answer.header.stamp) == pair.stamps['left']  # the one that was looked at
    for name in ('min_change', 'refresh'):  # as without a name
        assert robot.set_parameter(f'left.{name}', -1.0).successful


def test_diagnostics_name_each_camera(robot, pair):
    for camera in CAMERAS:
        status = robot.diagnostic(f'image input {camera}', lambda s: s.level == b'\x00',
                                  meanwhile=lambda c=camera: pair.show(c))
        values = {value.key: value.value for value in status.values}
        assert camera in values['topic']
        assert int(values['received']) >= int(values['seen']) > 0


def test_the_quality_of_service_of_one_cameras_topic_can_be_overridden(robot, pair):
    found = {topic: robot.node.get_subscriptions_info_by_topic(f'/test_two_cameras/{topic}')
             for topic in ('front/image', 'left/image/compressed')}
    assert [[end.qos_profile.reliability for end in ends] for ends in found.values()] == [
        [ReliabilityPolicy.RELIABLE], [ReliabilityPolicy.BEST_EFFORT]]
