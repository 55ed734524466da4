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

"""Bags that are written here are read by others: by Foxglove's reader, rosbags and sqlite3."""

import array
import signal
import sqlite3
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
pytest.importorskip('rosbags', reason='bags are written by rosbags')
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue  # noqa: E402, I100
from infmllm_msgs.msg import Answer, CacheStats, CameraStats, Evidence, WatchEvent  # noqa: E402
from infmllm_ros.replay import bagging  # noqa: E402
from infmllm_ros.replay.bagging import BagError, open_bag  # noqa: E402
import rclpy  # noqa: E402
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from std_msgs.msg import String  # noqa: E402
import yaml  # noqa: E402

NOW = 1_700_000_000_000_000_001
ANSWER = Answer(id='1', text='a "béc"\n', status=Answer.EXPIRED, choice=-1, latency=.25,
                probabilities=[.5, .5], evidence=[Evidence(camera='left', frame=7, weight=.75)])
ANSWER.header.stamp.sec, ANSWER.header.stamp.nanosec = -3, 999_999_999
MESSAGES = {
    '/robot/answer': ANSWER,
    '/robot/cache_stats': CacheStats(tokens_seen=2**63 + 1, cameras=[CameraStats(name='left')]),
    '/robot/watch_event': WatchEvent(name='light', previous=-1, text='green'),
    '/robot/evidence_image': CompressedImage(format='jpeg', data=array.array('B', range(256))),
    '/diagnostics': DiagnosticArray(status=[DiagnosticStatus(
        level=DiagnosticStatus.WARN, name='node', values=[KeyValue(key='a', value='b')])]),
    '/robot/answer_text': String(data='')}


@pytest.fixture
def bag(tmp_path, request, monkeypatch):
    """Write every message twice, 5 ns apart; the prefix is not known from the environment."""
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    folder = tmp_path / 'out' / 'bag'
    writer = open_bag(folder, getattr(request, 'param', 'mcap'))
    for shift in (0, 5):
        for index, (topic, message) in enumerate(MESSAGES.items()):
            writer.publish(topic, NOW + 10 * index + shift, message)
    writer.close()
    return folder


def test_foxglove_reads_what_was_written(bag):
    reader = pytest.importorskip('mcap_ros2.reader', reason='reads MCAP as Foxglove does')
    first = {}
    count = 0
    for read in reader.read_ros2_messages(str(bag / 'bag.mcap')):
        count += 1
        first.setdefault(read.channel.topic, read)
        assert read.schema.name == bagging.type_name(type(MESSAGES[read.channel.topic]))
    assert count == 2 * len(MESSAGES)
    assert {topic: read.log_time_ns for topic, read in first.items()} == {
        topic: NOW + 10 * index for index, topic in enumerate(MESSAGES)}
    answer = first['/robot/answer'].ros_msg
    assert (answer.text, answer.status, answer.choice) == (ANSWER.text, Answer.EXPIRED, -1)
    assert (answer.header.stamp.sec, answer.header.stamp.nanosec) == (-3, 999_999_999)
    assert list(answer.probabilities) == [.5, .5]
    assert (answer.evidence[0].camera, answer.evidence[0].weight) == ('left', .75)
    assert first['/robot/cache_stats'].ros_msg.tokens_seen == 2**63 + 1
    assert first['/robot/cache_stats'].ros_msg.cameras[0].name == 'left'
    assert bytes(first['/robot/evidence_image'].ros_msg.data) == bytes(range(256))
    assert first['/diagnostics'].ros_msg.status[0].values[0].value == 'b'


@pytest.mark.parametrize('bag', bagging.STORAGES, indirect=True)
def test_rosbags_reads_what_was_written_and_ros_knows_it_again(bag):
    from rosbags.rosbag2 import Reader
    with Reader(bag) as reader:
        read = [(c.topic, stamp, deserialize_message(bytes(raw), type(MESSAGES[c.topic])))
                for c, stamp, raw in reader.messages()]
    assert read == [(topic, NOW + 10 * index + shift, message)
                    for index, (topic, message) in enumerate(MESSAGES.items())
                    for shift in (0, 5)]


@pytest.mark.parametrize('bag', bagging.STORAGES, indirect=True)
def test_the_metadata_say_how_to_play_it_and_the_hashes_are_those_on_the_wire(bag, monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'OFF')
    info = yaml.safe_load((bag / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    topics = {t['topic_metadata']['name']: t['topic_metadata']
              for t in info['topics_with_message_count']}
    assert info['message_count'] == 2 * len(MESSAGES) and set(topics) == set(MESSAGES)
    for topic in topics.values():
        quality, = yaml.safe_load(topic['offered_qos_profiles'])
        assert (quality['history'], quality['reliability'], quality['durability']) == (
            HistoryPolicy.KEEP_LAST, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
        assert quality['depth'] > 0
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node('wire', context=context)
        for topic, message in MESSAGES.items():
            node.create_publisher(type(message), topic, 1)
            end, = node.get_publishers_info_by_topic(topic)
            assert topics[topic]['type'] == end.topic_type
            assert topics[topic]['type_description_hash'] == str(end.topic_type_hash)
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize('storage', bagging.STORAGES)
def test_a_killed_writer_leaves_what_it_wrote_before(tmp_path, storage):
    child = subprocess.run([sys.executable, '-c', f"""if True:
        import os, signal
        from pathlib import Path
        from infmllm_ros.replay.bagging import open_bag
        from std_msgs.msg import String
        bag = open_bag(Path({str(tmp_path / 'bag')!r}), {storage!r})
        for index in range(40):
            bag.publish('/text', index, String(data=str(index)))
            if index in (9, 29):
                bag.flush()
        os.kill(os.getpid(), signal.SIGKILL)"""])
    assert child.returncode == -signal.SIGKILL
    file, = tmp_path.glob('bag/bag.[dm]*[!l]')
    texts = stored(file) if storage == 'sqlite3' else scanned(file)
    assert texts[:30] == [str(index) for index in range(30)]


def stored(file):
    with sqlite3.connect(file) as base:
        return [text_of(data) for data, in base.execute('SELECT data FROM messages ORDER BY id')]


def scanned(file):
    stream = pytest.importorskip('mcap.stream_reader', reason='reads torn MCAP files')
    from mcap.exceptions import EndOfFile
    texts = []
    try:
        for record in stream.StreamReader(file.open('rb')).records:
            if type(record).__name__ == 'Message':
                texts.append(text_of(record.data))
    except EndOfFile:
        return texts
    raise AssertionError('the bag is whole')


def text_of(raw):
    return deserialize_message(raw, String).data


def test_what_is_young_is_handed_on_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(bagging, 'EVERY', 0.0)
    writer = open_bag(tmp_path / 'bag')
    writer.publish('/text', 1, String(data='young'))
    assert b'young' in (tmp_path / 'bag' / 'bag.mcap').read_bytes()
    writer.close()


def test_a_bag_is_replaced_and_nothing_else_is(bag):
    writer = open_bag(bag)
    writer.publish('/text', 1, String(data='new'))
    writer.close()
    assert b'new' in (bag / 'bag.mcap').read_bytes()
    (bag / 'notes.txt').write_text('mine')
    for folder in (bag, bag / 'notes.txt'):
        with pytest.raises(BagError, match='something else than a bag'):
            open_bag(folder)
    assert {file.name for file in bag.iterdir()} == {'bag.mcap', 'metadata.yaml', 'notes.txt'}


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    with pytest.raises(BagError, match="'rocksdb': give one of mcap, sqlite3"):
        open_bag(tmp_path / 'bag', 'rocksdb')
    writer = open_bag(tmp_path / 'bag')
    writer.publish('/text', 1, String(data='a'))
    with pytest.raises(BagError, match=r'CacheStats on a topic of std_msgs/msg/String'):
        writer.publish('/text', 2, CacheStats())
    with pytest.raises(BagError, match='share/json/msg/Odd.msg is not there'):
        writer.publish('/odd', 2, type('Odd', (), {'__module__': 'json.msg._odd'})())
    writer.publish('/text', 3, String(data='b'))  # it goes on
    writer.close()
    assert len(scanned_whole(tmp_path / 'bag')) == 2


def scanned_whole(folder):
    from rosbags.rosbag2 import Reader
    with Reader(folder) as reader:
        return list(reader.messages())


@pytest.mark.parametrize('storage', bagging.STORAGES)
def test_a_bag_without_a_message_is_one(tmp_path, storage):
    open_bag(tmp_path / 'bag', storage).close()
    assert scanned_whole(tmp_path / 'bag') == []
