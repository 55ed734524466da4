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

"""Bags that to_bag makes are read by others, and are there whole or not at all."""

import signal
import sqlite3
import subprocess
import sys
import time

from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.images import decode
import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
cv2 = pytest.importorskip('cv2', reason='videos are read by OpenCV')
pytest.importorskip('rosbags', reason='bags are written by rosbags')
pytest.importorskip('mcap_ros2', reason='bags are read by the mcap library')
from infmllm_ros.replay.plan_file import read_plan  # noqa: E402, I100
from infmllm_ros.replay.sources import (  # noqa: E402
    BEGIN,
    COMPRESSED,
    IMAGE,
    open_source,
    SECOND,
)
from infmllm_ros.replay.to_bag import main  # noqa: E402
from mcap.reader import make_reader  # noqa: E402
from mcap_ros2.decoder import DecoderFactory  # noqa: E402


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('video') / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for index in range(8):
        writer.write(np.full((48, 64, 3), (index * 30, 100, 200), np.uint8))
    writer.release()
    return path


def read(folder):
    """Read a bag with Foxglove's library: (topic, log time, header stamp, pixels)."""
    path, = folder.glob('*.mcap')
    with path.open('rb') as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return [(channel.topic, message.log_time,
                 image.header.stamp.sec * SECOND + image.header.stamp.nanosec, decode(image))
                for _, channel, message, image in reader.iter_decoded_messages()]


@pytest.mark.parametrize('compressed', [False, True], ids=['raw', 'jpeg'])
def test_a_video_becomes_a_bag(video, tmp_path, compressed, capsys):
    out = tmp_path / 'new' / 'bag'
    assert main([str(video), str(out), '--topic', 'front', *['--compressed'] * compressed]) == 0
    assert '8 frames of clip.avi' in capsys.readouterr().out
    capture, expected = cv2.VideoCapture(str(video)), []
    while (frame := capture.read())[0]:
        expected.append(frame[1][..., ::-1])
    messages = read(out)
    times = [BEGIN + i * SECOND // 10 for i in range(8)]
    topic = '/front/compressed' if compressed else '/front'
    assert [(t, log, stamp) for t, log, stamp, _ in messages] == [(topic, t, t) for t in times]
    for (*_, pixels), frame in zip(messages, expected, strict=True):
        assert np.abs(pixels.astype(int) - frame).mean() <= (3 if compressed else 0)
    assert [path.name for path in out.parent.iterdir()] == ['bag']


def test_a_bag_keeps_its_messages_topics_and_times(video, tmp_path):
    main([str(video), str(tmp_path / 'a')])
    assert main([str(tmp_path / 'a'), str(tmp_path / 'b'), '--storage', 'sqlite3']) == 0
    database = sqlite3.connect(tmp_path / 'b' / 'b.db3')
    rows = database.execute('SELECT name, type, timestamp, data FROM messages JOIN topics '
                            'ON topics.id = topic_id ORDER BY timestamp').fetchall()
    assert rows == [('/image', IMAGE, f.time_ns, f.raw) for f in open_source(tmp_path / 'a')]
    assert main([str(tmp_path / 'b'), str(tmp_path / 'c'), '--compressed']) == 0
    jpegs = read(tmp_path / 'c')
    assert [(topic, log) for topic, log, *_ in jpegs] == [
        ('/image/compressed', row[2]) for row in rows]
    assert main([str(tmp_path / 'c'), str(tmp_path / 'd')]) == 0
    assert [f.raw for f in open_source(tmp_path / 'd')] == [
        f.raw for f in open_source(tmp_path / 'c')]


@pytest.mark.parametrize('kind', ['drive', 'bench'])
def test_a_rendered_world_comes_with_its_questions(tmp_path, kind):
    out, file = tmp_path / 'world', tmp_path / 'questions.yaml'
    assert main(['--rendered', kind, '--frames', '240', '--seed', '3', '--questions', str(file),
                 str(out)]) == 0
    messages, plan = read(out), yaml.safe_load(file.read_text())
    assert len(read_plan(file).questions) == len(plan['questions'])
    asked = {entry['at']: entry for entry in plan['questions']}
    assert len(asked) >= 8 and len({entry['name'] for entry in plan['questions']}) == len(asked)
    assert {'now', 'told', 'back', 'no'} <= {e['name'].split('-')[0] for e in asked.values()}
    told = {entry['at']: entry['text'] for entry in plan['tell']}
    # Who walks through the world again, and is told the same, finds the same answers.
    episode = Episode(kind, 3, 64, keys=0)
    for index, (_, log, _, pixels) in enumerate(messages):
        step = next(episode)
        assert log == BEGIN + index * SECOND // 20
        np.testing.assert_array_equal(pixels, step.frame)
        if question := asked.pop(index / 20, None):
            group = question['name'].split('-')[0]
            if group == 'now':
                assert question['expected'] in step.truth.values()
            elif group == 'no':
                assert question['expected'] == 'none'
            elif group == 'told':
                assert any(text.endswith(question['expected'])
                           for at, text in told.items() if at <= index / 20)
    assert index == 239 and not asked


def test_what_cannot_be_made_leaves_nothing(video, tmp_path, capsys):
    (tmp_path / 'there').mkdir()
    cases = [([str(video), str(tmp_path / 'there')], 'is there already'),
             ([str(tmp_path / 'none.avi'), str(tmp_path / 'out')], 'no such file'),
             ([str(video), str(tmp_path / 'out'), '--fps', '3'], 'leave out fps 3')]
    for arguments, says in cases:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith('to_bag: ') and says in error and error.count('\n') == 1
    for arguments in ([str(video)], ['--rendered', 'drive', str(video), 'out'],
                      [str(video), 'out', '--questions', 'q'],
                      ['--rendered', 'drive', 'out', '--questions', str(tmp_path / 'none' / 'q')],
                      ['--rendered', 'drive', 'out', '--frames', '0']):
        with pytest.raises(SystemExit, match='2'):
            main(arguments)
    assert {path.name for path in tmp_path.iterdir()} == {'there'}


def test_of_a_torn_bag_the_rest_is_kept_and_a_broken_image_left_out(video, tmp_path, capsys):
    main([str(video), str(tmp_path / 'a')])
    file = tmp_path / 'a' / 'a.mcap'
    data = bytearray(file.read_bytes())
    at = data.index(b'rgb8\0') + 1
    data[at:at + 4] = b'what'
    (tmp_path / 'cut.mcap').write_bytes(data[:len(data) - len(data) // 4])
    capsys.readouterr()
    assert main([str(tmp_path / 'cut.mcap'), str(tmp_path / 'b'), '--compressed']) == 3
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and 'breaks off' in errors[1]
    assert 'image 1 is left out' in errors[0] and "'rwhat'" in errors[0]
    assert len(read(tmp_path / 'b')) == len(list(open_source(tmp_path / 'cut.mcap'))) - 1 > 2


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bag_is_not_there(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, '-m', 'infmllm_ros.replay.to_bag', '--rendered', 'drive', '--frames',
         '1000000', str(tmp_path / 'bag')], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True)
    end = time.monotonic() + 120
    while not list(tmp_path.glob('.bag.*/bag/*.mcap')) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and 'interrupted, nothing is left' in errors
    assert not list(tmp_path.iterdir())


def test_several_cameras_keep_apart(video, tmp_path):
    for camera in ('left', 'right'):
        (tmp_path / 'in' / camera).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'in' / camera / '1.png'), np.zeros((8, 8, 3), np.uint8))
    assert main([str(tmp_path / 'in'), str(tmp_path / 'out')]) == 0
    assert {topic for topic, *_ in read(tmp_path / 'out')} == {
        '/left/image/compressed', '/right/image/compressed'}
    assert open_source(tmp_path / 'out', {'a': '/left/image/compressed'}).msgtypes == {
        'a': COMPRESSED}
    assert main([str(tmp_path / 'in'), str(tmp_path / 'other'), '--topic', 'x']) == 2
