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

"""Folders of images as cameras, and the messages that are made without ROS."""

from infmllm_ros.images import decode
from infmllm_ros.replay.sources import (
    BEGIN,
    cdr,
    COMPRESSED,
    IMAGE,
    open_source,
    SECOND,
    SourceError,
)
import numpy as np
from PIL import Image
import pytest

pytest.importorskip('rosbags', reason='the messages are read by rosbags here')
from rosbags.typesys import get_typestore, Stores  # noqa: E402, I100

STORE = get_typestore(Stores.ROS2_HUMBLE)
STAMP = 1_403_636_579_763_555_584  # as in EuRoC


def picture(value):
    return np.full((5, 7, 3), value, np.uint8)


def fill(folder, names):
    """Put an image into a folder for each name; the n-th is grey n * 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(number * 10)).save(folder / name)
    return folder


def test_images_come_in_natural_order_and_as_they_are(tmp_path):
    fill(tmp_path, ['f2.png', 'f9.PNG', 'f10.jpg', 'f100.jpeg'])
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / 'f11.png').write_bytes(b'\x89PNG no image either')
    source = open_source(tmp_path)
    frames = list(source)
    assert (source.msgtypes, source.count, source.fps) == ({'': COMPRESSED}, 5, 10)
    assert [f.time_ns for f in frames] == [BEGIN + i * SECOND // 10 for i in range(5)]
    names = ['f2.png', 'f9.PNG', 'f10.jpg', 'f11.png', 'f100.jpeg']
    messages = [STORE.deserialize_cdr(f.raw, f.msgtype) for f in frames]
    assert [m.data.tobytes() for m in messages] == [(tmp_path / n).read_bytes() for n in names]
    assert [m.format for m in messages] == ['png', 'png', 'jpeg', 'png', 'jpeg']
    np.testing.assert_array_equal(decode(messages[1]), picture(10))
    with pytest.raises(ValueError, match='neither jpeg nor png'):
        decode(messages[3])  # for those who count
    assert [f.time_ns for f in open_source(tmp_path, fps=4)][-1] == BEGIN + SECOND


@pytest.mark.parametrize('names, stamps', [
    ([f'{STAMP}.png', f'{STAMP + 50_000_000}.png'], [STAMP, STAMP + 50_000_000]),
    (['1305031102.175304.png', '1305031102.2.png'],
     [1_305_031_102_175_304_000, 1_305_031_102_200_000_000])], ids=['EuRoC', 'TUM'])
def test_a_name_that_is_a_stamp_is_the_stamp(tmp_path, names, stamps):
    source = open_source(fill(tmp_path, names))
    frames = list(source)
    assert [f.time_ns for f in frames] == [cdr.stamp_of(f.raw) for f in frames] == stamps
    assert source.stamped
    with pytest.raises(SourceError, match='fps 5'):
        open_source(tmp_path, fps=5)


def test_sub_folders_are_cameras(tmp_path):
    fill(tmp_path / 'left', ['a1.png', 'a2.png', 'a3.png'])
    fill(tmp_path / 'cam10' / 'data', ['1.jpg', '2.jpg'])
    (tmp_path / 'empty').mkdir()
    frames = list(open_source(tmp_path))
    assert [(f.camera, f.time_ns - BEGIN) for f in frames] == [
        ('cam10', 0), ('left', 0), ('cam10', SECOND // 10), ('left', SECOND // 10),
        ('left', SECOND // 5)]
    source = open_source(tmp_path, {'front': 'left'})
    assert source.cameras == ['front'] and [f.raw for f in source] == [
        f.raw for f in frames if f.camera == 'left']
    with pytest.raises(SourceError, match='sub-folder right.*cam10, left'):
        open_source(tmp_path, {'front': 'right'})


def test_what_does_not_fit_is_told_in_one_line(tmp_path):
    fill(tmp_path / 'a' / 'my camera', ['1.png'])
    fill(tmp_path / 'b', ['1.png'])
    for folder, options, says in (
            ('a', {}, 'my camera: give it a name'), ('b', {'fps': 0.0}, 'fps 0: give one above 0'),
            ('a', {'topics': {'front': 'my camera'}, 'fps': 2e3}, '1000 at most')):
        with pytest.raises(SourceError, match=says) as error:
            open_source(tmp_path / folder, **options)
        assert str(tmp_path) in str(error.value) and '\n' not in str(error.value)
    for options, says in (({'topics': {'a': '/a'}}, 'leave out /a'), ({'fps': 3.0}, 'fps 3')):
        with pytest.raises(SourceError, match=says):
            open_source(**options)


def test_an_image_that_goes_away_ends_the_reading(tmp_path):
    source = open_source(fill(tmp_path, ['1.png', '2.png', '3.png']))
    (tmp_path / '2.png').unlink()
    assert len(list(source)) == 1
    assert '2.png: cannot be read' in source.problem and '1 of 3' in source.problem


@pytest.mark.parametrize('name', ['', 'eye', 'camera', 'left_eye'])  # of all lengths, mod 4
def test_messages_are_as_rosbags_serializes_them(name):
    types, pixels = STORE.types, np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    header = types['std_msgs/msg/Header'](
        stamp=types['builtin_interfaces/msg/Time'](sec=7, nanosec=9), frame_id=name)
    raw = types[IMAGE](header=header, height=5, width=7, encoding='rgb8', is_bigendian=0, step=21,
                       data=pixels.reshape(-1))
    assert cdr.image(7 * SECOND + 9, name, pixels[:, ::-1][:, ::-1]) == \
        bytes(STORE.serialize_cdr(raw, IMAGE))
    jpeg = cdr.jpeg(pixels)
    for form in ('jpeg', 'png'):
        small = types[COMPRESSED](header=header, format=form, data=np.frombuffer(jpeg, np.uint8))
        assert cdr.compressed(7 * SECOND + 9, name, form, jpeg) == \
            bytes(STORE.serialize_cdr(small, COMPRESSED))
    later = cdr.restamped(cdr.image(7 * SECOND + 9, name, pixels), 11 * SECOND + 1)
    assert cdr.stamp_of(later) == 11 * SECOND + 1 and later[12:] == bytes(
        STORE.serialize_cdr(raw, IMAGE))[12:]
