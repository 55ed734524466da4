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

"""Videos and bags are read whole and arrive over DDS as they are, or one clear line says why."""

import os
from pathlib import Path
import subprocess
import sys
import threading
import time

from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.images import decode
from infmllm_ros.replay.sources import (
    BEGIN,
    camera_topics,
    COMPRESSED,
    IMAGE,
    open_source,
    SECOND,
    SourceError,
)
import numpy as np
import pytest
from test_images import compressed, smooth

cv2 = pytest.importorskip('cv2', reason='videos are read by OpenCV')
rosbags = pytest.importorskip('rosbags', reason='bags are read by rosbags')

START = 1_700_000_000 * SECOND + 5  # a stamp whose nanoseconds matter
FRAMES = 6
TIMEOUT = 120  # [s] for anything, on a busy machine


def picture(index):
    """Return a frame that differs from all others, beyond what jpeg loses."""
    return np.roll(smooth(), 8 * index, axis=1)


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('video') / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 20, (48, 32))
    for index in range(FRAMES):
        writer.write(np.ascontiguousarray(picture(index)[..., ::-1]))
    writer.release()
    return path


def make_bag(path, storage, cameras):
    """Write a bag with `FRAMES` images a camera, 50 ms apart, and a topic of text."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import get_typestore, Stores
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    with Writer(path, version=8, storage_plugin=StoragePlugin[storage]) as bag:
        text = bag.add_connection('/chatter', 'std_msgs/msg/String', typestore=store)
        topics = {name: bag.add_connection(name, kind, typestore=store)
                  for name, kind in cameras.items()}
        for index in range(FRAMES):
            stamp = START + index * SECOND // 20
            hello = types['std_msgs/msg/String'](data='hello')
            bag.write(text, stamp, store.serialize_cdr(hello, 'std_msgs/msg/String'))
            header = types['std_msgs/msg/Header'](
                stamp=types['builtin_interfaces/msg/Time'](*divmod(stamp, SECOND)),
                frame_id='left_eye')
            for name, kind in cameras.items():
                pixels = picture(index)
                if kind == COMPRESSED:
                    data = np.frombuffer(compressed(pixels, 'png').data, np.uint8)
                    message = types[kind](header=header, format='png', data=data)
                else:
                    message = types[kind](header=header, height=32, width=48, encoding='bgr8',
                                          is_bigendian=0, step=3 * 48,
                                          data=pixels[..., ::-1].reshape(-1))
                bag.write(topics[name], stamp, store.serialize_cdr(message, kind))
    return path


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bags')
    return {(storage, kind): make_bag(folder / (storage + name), storage, {'/cam': kind})
            for storage in ('MCAP', 'SQLITE3')
            for name, kind in (('_raw', IMAGE), ('_png', COMPRESSED))}


@pytest.fixture(scope='module')
def two_cameras(tmp_path_factory):
    return make_bag(tmp_path_factory.mktemp('bag') / 'two', 'MCAP',
                    {'/left': IMAGE, '/right': COMPRESSED})


def difference(a, b):
    return np.abs(a.astype(int) - b).mean()


def test_the_rendered_drive_is_that_of_its_seed_and_knows_its_truth():
    source = open_source(seed=5)
    for _ in range(2):  # it can be played again
        expected = Episode('drive', 5, keys=0)
        for index, frame in zip(range(40), source, strict=False):
            step = next(expected)
            assert frame.time_ns == BEGIN + index * SECOND // source.fps
            assert np.array_equal(frame.image, step.frame)
            assert source.episode.ordinal == index and source.episode.truth == step.truth
    assert sum(1 for _ in source) == source.count
    assert not np.array_equal(next(iter(open_source(seed=6))).image, next(iter(source)).image)


def test_a_video_gives_all_frames_in_rgb_at_its_own_times(video):
    source = open_source(video)
    assert (source.fps, source.count, source.msgtypes) == (20, FRAMES, {'': IMAGE})
    for _ in range(2):  # it can be played again
        frames = list(source)
        assert [f.time_ns for f in frames] == [BEGIN + i * 50_000_000 for i in range(FRAMES)]
        for index, frame in enumerate(frames):
            assert frame.image.dtype == np.uint8
            assert difference(frame.image, picture(index)) < 6


@pytest.mark.parametrize('single', [False, True], ids=['folder', 'file'])
@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
@pytest.mark.parametrize('kind', [IMAGE, COMPRESSED])
def test_a_bag_gives_the_messages_of_its_image_topic(bags, storage, kind, single):
    from rosbags.typesys import get_typestore, Stores
    path = bags[storage, kind]
    if single:
        path = next(p for p in path.iterdir() if p.suffix in ('.mcap', '.db3'))
    source = open_source(path)
    assert (source.msgtypes, source.count) == ({'': kind}, FRAMES)
    assert {(f.topic, f.msgtype, f.camera) for f in source} == {('/cam', kind, '')}
    assert source.fps == pytest.approx(20)
    frames = list(source)
    assert [f.time_ns for f in frames] == [START + i * 50_000_000 for i in range(FRAMES)]
    store = get_typestore(Stores.ROS2_HUMBLE)
    for index, frame in enumerate(frames):
        message = store.deserialize_cdr(frame.raw, kind)
        np.testing.assert_array_equal(decode(message), picture(index))


def test_image_topics_are_chosen_and_called_by_name(two_cameras):
    right = open_source(two_cameras, {'': '/right'})
    assert right.msgtypes == {'': COMPRESSED} and right.count == len(list(right)) == FRAMES
    both = open_source(two_cameras, camera_topics(['eye=/right', 'front=/left']))
    assert both.msgtypes == {'eye': COMPRESSED, 'front': IMAGE} and both.count == 2 * FRAMES
    frames = list(both)
    assert [f.time_ns for f in frames] == [START + i // 2 * 50_000_000 for i in range(2 * FRAMES)]
    assert {(f.camera, f.topic, f.msgtype) for f in frames} == {
        ('eye', '/right', COMPRESSED), ('front', '/left', IMAGE)}
    assert [f.raw for f in frames if f.camera == 'eye'] == [f.raw for f in right]


@pytest.mark.parametrize('topics, says', [
    (None, '2 image topics'), ({'': '/chatter'}, 'no image topic /chatter'),
    ({'': '/cam'}, 'no image topic /cam'), ({'a': '/left', 'b': '/left'}, 'the same topic')])
def test_a_topic_that_cannot_be_played_gets_a_list_of_those_that_can(two_cameras, topics, says):
    with pytest.raises(SourceError, match='/left, /right') as error:
        open_source(two_cameras, topics)
    assert says in str(error.value)


def test_cameras_are_read_from_words():
    assert camera_topics(['/cam']) == {'': '/cam'} and camera_topics([]) == {}
    for words in (['/a', '/b'], ['1=/a'], ['a-b=/a'], ['a='], ['=/a'], ['a=/a', 'a=/b']):
        with pytest.raises(SourceError, match=f'camera {words[-1]}|camera {words[0]}'):
            camera_topics(words)


def test_an_input_that_cannot_be_read_gets_one_line_with_a_remedy(tmp_path, bags, capfd):
    text = tmp_path / 'text.avi'
    text.write_text('not a video')
    broken = tmp_path / 'broken.mcap'
    whole = next(bags['MCAP', IMAGE].glob('*.mcap')).read_bytes()
    broken.write_bytes(whole[:200])
    folder = tmp_path / 'folder'
    folder.mkdir()
    silent = make_bag(tmp_path / 'silent', 'SQLITE3', {})
    for path, says in ((tmp_path / 'none.mp4', 'no such file'), (text, 'give an avi'),
                       (broken, 'breaks off after 200 bytes'), (folder, 'no images'),
                       (silent, 'no image topic')):
        with pytest.raises(SourceError, match=says) as error:
            open_source(path)
        assert str(path) in str(error.value) and '\n' not in str(error.value)
    assert capfd.readouterr().err == ''


# Over DDS.


@pytest.fixture(scope='module')
def ros():
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2')
    # Within one context this reaches nobody else, and nobody else reaches it.
    before = {name: os.environ.get(name) for name in ('ROS_AUTOMATIC_DISCOVERY_RANGE',
                                                      'ROS_DOMAIN_ID')}
    os.environ.update(ROS_AUTOMATIC_DISCOVERY_RANGE='OFF',
                      ROS_DOMAIN_ID=str(os.getpid() % 100 + 1))
    context = rclpy.Context()
    rclpy.init(context=context)
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    yield context
    rclpy.try_shutdown(context=context)


@pytest.fixture
def stage(ros):
    """Give a function that plays a source and returns (the player's report, what arrived)."""
    from infmllm_ros.replay.player import Player
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    node = rclpy.create_node('test', context=ros)
    executor = SingleThreadedExecutor(context=ros)
    executor.add_node(node)

    def play(source, on_frame=None, before=None, expect=FRAMES, heed=None, **options):
        if heed:
            node.create_subscription(*heed)
        player = Player(node, source, **options)
        arrived = []
        for publisher in player.publishers.values():
            node.create_subscription(
                publisher.msg_type, publisher.topic_name,
                lambda message: arrived.append((time.time_ns(), message)), 10)
        assert player.wait_for_subscriber(TIMEOUT)
        result = []
        thread = threading.Thread(target=lambda: result.append(player.play(on_frame, before)))
        thread.start()
        end = time.monotonic() + TIMEOUT
        while (thread.is_alive() or len(arrived) < expect) and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        thread.join()
        for _ in range(100):  # what has come and was not heard yet
            executor.spin_once(timeout_sec=0)
        return result[0], arrived

    yield play
    executor.shutdown()
    node.destroy_node()


def stamp(message):
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


def test_pixels_arrive_with_source_time_counted_from_the_start(stage, video):
    begin = time.time_ns()
    sent = []
    played, arrived = stage(open_source(video), lambda n, ns: sent.append((n, ns)), rate=2.0)
    assert played.frames == len(arrived) == FRAMES and played.acknowledged
    stamps = [stamp(message) for _, message in arrived]
    assert begin <= stamps[0] <= arrived[0][0]
    assert np.diff(stamps).tolist() == [50_000_000] * (FRAMES - 1)  # at any rate
    assert sent == list(enumerate(stamps, 1))
    for index, (_, message) in enumerate(arrived):
        assert (message.encoding, message.step) == ('rgb8', 144)
        assert message.header.frame_id == 'camera'
        assert difference(decode(message), picture(index)) < 6


def test_frames_are_sent_when_they_are_due(stage, video):
    begin, sent = time.monotonic(), []
    played, _ = stage(open_source(video), lambda *_: sent.append(time.monotonic()), rate=0.5)
    assert played.seconds >= 0.1 * (FRAMES - 1)  # never early, however busy the machine
    assert all(at - begin >= 0.1 * number for number, at in enumerate(sent))


def test_jpegs_go_to_the_topic_that_image_transport_uses(stage, video):
    _, arrived = stage(open_source(video), compressed=True, topic='front', frame_id='eye')
    assert [message.format for _, message in arrived] == ['jpeg'] * FRAMES
    assert arrived[0][1].header.frame_id == 'eye'
    assert difference(decode(arrived[-1][1]), picture(FRAMES - 1)) < 8


@pytest.mark.parametrize('kind', [IMAGE, COMPRESSED])
def test_a_bag_goes_out_as_it_is(stage, bags, kind):
    _, arrived = stage(open_source(bags['MCAP', kind]), rate=4.0)
    assert [stamp(message) for _, message in arrived] == \
        [START + i * 50_000_000 for i in range(FRAMES)]
    for index, (_, message) in enumerate(arrived):
        assert message.header.frame_id == 'left_eye'
        np.testing.assert_array_equal(decode(message), picture(index))


@pytest.mark.parametrize('of', ['video', 'bag'])
def test_stamps_may_be_the_clock_at_sending(stage, video, bags, of):
    source = open_source(video if of == 'video' else bags['MCAP', IMAGE])
    begin, sent = time.time_ns(), []
    _, arrived = stage(source, lambda n, ns: sent.append(ns), rate=4.0, stamps='now')
    stamps = [stamp(message) for _, message in arrived]
    assert stamps == sent == sorted(set(stamps))
    assert all(begin <= ns <= at for ns, (at, _) in zip(stamps, arrived, strict=True))
    assert difference(decode(arrived[-1][1]), picture(FRAMES - 1)) < 6


def test_two_cameras_play_side_by_side_with_the_clock_of_the_bag(stage, two_cameras, ros):
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rosgraph_msgs.msg import Clock
    source = open_source(two_cameras, {'front': '/left', 'back': '/right'})
    heard, due = [], []
    played, arrived = stage(
        source, before=lambda frame: due.append(frame.time_ns), expect=2 * FRAMES, clock=100.0,
        rate=0.5, heed=(Clock, '/clock', lambda m: heard.append(
            m.clock.sec * SECOND + m.clock.nanosec), QoSProfile(
                depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)))
    assert played.frames == 2 * FRAMES and played.acknowledged
    stamps = [START + i * 50_000_000 for i in range(FRAMES)]
    assert due == sorted(2 * stamps)
    for kind in ('Image', 'CompressedImage'):
        assert [stamp(m) for _, m in arrived if type(m).__name__ == kind] == stamps
    assert heard == sorted(heard) and len(set(heard)) > 3 * FRAMES  # between the frames, too
    assert heard[0] == START and heard[-1] == stamps[-1]


def test_the_time_of_the_source_stands_still_while_a_frame_is_held_back(stage, video):
    sent = []

    def before(frame):
        if len(sent) == 2:
            time.sleep(0.6)
    played, arrived = stage(open_source(video), lambda n, ns: sent.append(ns), before=before,
                            clock=50.0)
    assert sent == [BEGIN + i * 50_000_000 for i in range(FRAMES)]  # the clock's time, not ours
    assert [stamp(m) for _, m in arrived] == sent
    assert played.seconds >= 0.6 + 0.05 * (FRAMES - 1)  # those behind it do not catch up


def test_a_player_stops_between_two_frames(stage, video, ros):
    from infmllm_ros.replay.player import Player
    import rclpy
    node = rclpy.create_node('other', context=ros)
    player = Player(node, open_source(video), topic='stopped', rate=0.001)
    assert player.play(lambda *_: threading.Timer(0.2, player.stop).start()).frames == 1
    node.destroy_node()


def test_a_player_refuses_what_it_cannot_do(stage, video, bags):
    with pytest.raises(SourceError, match='rate 0: give one above 0'):
        stage(open_source(video), rate=0)
    with pytest.raises(SourceError, match='clock 0 Hz: give one above 0'):
        stage(open_source(video), clock=0.0)
    with pytest.raises(SourceError, match='/cam: the raw images of a bag are sent as they are'):
        stage(open_source(bags['MCAP', IMAGE]), compressed=True)


def command(*arguments):
    environment = {**os.environ, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF',
                   'PYTHONPATH': os.pathsep.join([str(Path(__file__).parents[1]),
                                                  os.environ.get('PYTHONPATH', '')])}
    return subprocess.run(
        [sys.executable, '-m', 'infmllm_ros.replay.player', *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT)


def test_the_command_reports_in_one_line_and_by_its_exit_status(ros, tmp_path):
    missing = command(tmp_path / 'none.avi')
    assert missing.returncode == 2
    assert [line for line in missing.stderr.splitlines() if line.strip()] == \
        [line for line in missing.stderr.splitlines() if 'none.avi: no such file' in line]
    alone = command('--wait', '0.2')
    assert alone.returncode == 3
    assert 'nobody subscribed to /image within 0.2 s' in alone.stderr


def test_the_launch_file_plays_what_it_is_told_to():
    pytest.importorskip('launch_ros', reason='needs launch, which a ROS 2 distribution brings')
    from importlib.util import module_from_spec, spec_from_file_location

    from launch import LaunchContext
    spec = spec_from_file_location(
        'replay_launch', Path(__file__).parents[1] / 'launch' / 'replay.launch.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    context = LaunchContext()
    for argument in module.ARGUMENTS:
        argument.execute(context)
    context.launch_configurations.update(
        input='/a/bag', bag_topic='/left', namespace='robot', image_topic='front/image',
        clock='50')
    [player] = module.play(context)
    words = [part[0].text for part in player.cmd]
    assert words[1:3] == ['-m', 'infmllm_ros.replay.player'] and '--compressed' not in words
    for option, value in (('--bag-topic', '/left'), ('--rate', '1.0'), ('--clock', '50'),
                          ('--topic', 'front/image'), ('-r', '__ns:=/robot')):
        assert words[words.index(option) + 1] == value
    assert '/a/bag' in words
