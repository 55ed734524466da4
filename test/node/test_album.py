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

"""Thumbnails stay few and right, the picture shows what is held, paths stay in their folder."""

import io

from infmllm_ros.engine import Answer, Evidence, Frame, Holding, MemoryFileError, Stats
from infmllm_ros.node import picture
from infmllm_ros.node.album import Album
import numpy as np
from PIL import Image
import pytest

RED, BLUE = (200, 30, 30), (30, 30, 200)


def frame(number, stamp_s=None):
    return Frame(number, int(1e9 * (number if stamp_s is None else stamp_s)), 'front')


def plain(colour, height=48, width=64):
    return np.full((height, width, 3), colour, np.uint8)


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)), int)


@pytest.mark.parametrize(('height', 'width', 'shape'), [
    (480, 640, (48, 64)), (720, 1280, (36, 64)), (1, 500, (1, 64)), (20, 10, (20, 10)),
    (300, 100, (64, 21))])
def test_a_thumbnail_looks_like_its_image_in_small(height, width, shape):
    album = Album(64, 4)
    image = plain(RED, height, width)
    image[:, width // 2:] = BLUE
    album.add(frame(0), image)
    small = pixels(album.get(frame(0)))
    assert abs(np.array(small.shape[:2]) - shape).max() <= 1
    assert np.abs(small[:, 0] - RED).max() < 40 and np.abs(small[:, -1] - BLUE).max() < 40


def test_the_album_keeps_to_its_size_and_drops_what_is_forgotten_first():
    album = Album(16, 4)
    for number in range(4):
        album.add(frame(number), plain(RED))
    assert album.full
    held = [Holding(frame(0), 2.0, 2.0), Holding(frame(2), 1.0, 1.0), Holding(frame(3), 9.0, 0.0)]
    album.tidy(held)
    assert [n for n in range(4) if frame(n) in album] == [0, 2, 3]
    album.add(frame(4), plain(BLUE))
    album.tidy([*held, Holding(frame(4), 9.0, 0.0)], room=2)
    assert [n for n in range(5) if frame(n) in album] == [3, 4]


def test_an_album_of_none_keeps_none():
    album = Album(64, 0)
    album.add(frame(0), plain(RED))
    assert len(album) == 0


def test_another_frame_with_the_same_number_is_not_taken_for_it():
    album = Album(64, 4)
    album.add(frame(0), plain(RED))
    assert frame(0, stamp_s=7.0) not in album and album.get(frame(0, stamp_s=7.0)) is None


def test_notes_bring_the_album_back():
    album, other = Album(64, 4), Album(64, 4)
    for number, colour in ((3, RED), (5, BLUE)):
        album.add(frame(number), plain(colour))
    other.add(frame(9), plain(RED))
    other.recall({**album.notes(), 'frame_id': b'lens'}, {5: frame(5)})  # 3 is forgotten
    assert len(other) == 1 and other.get(frame(5)) == album.get(frame(5))


def stats(**values):
    whole = dict.fromkeys(Stats.__dataclass_fields__, 0)
    return Stats(**{**whole, 'budget': 100, 'tokens': 50, **values})


def count(image, colour):
    return int((image == colour).all(-1).sum())


def test_the_picture_shows_how_much_is_left_of_whom_and_what_an_answer_rests_on():
    album = Album(64, 9)
    held = [Holding(frame(0), 4.0, 4.0), Holding(frame(5), 2.0, 0.0)]
    for one, colour in zip(held, (RED, BLUE)):
        album.add(one.frame, plain(colour, 44, 58))
    image = picture.draw(stats(), held, album.get)
    assert image.shape == (picture.HEIGHT, picture.WIDTH, 3) and image.dtype == np.uint8
    for colour in (RED, BLUE):  # both thumbnails
        near = np.abs(image.astype(int) - colour).max(-1) < 12
        assert near.sum() > 0.9 * 44 * 58
    chosen, recent = count(image, picture._CHOSEN), count(image, picture._RECENT)
    assert count(image, picture._EVIDENCE) == 0
    answer = Answer('left', 'stop', 1, 0.1, 0.2, 0, 'front',
                    evidence=(Evidence(0, 0, 'front', 0.5),))
    after = picture.draw(stats(), held, album.get, 'Where?', answer)
    assert count(after, picture._EVIDENCE) > 2 * (44 + 58)
    assert (count(after, picture._CHOSEN), count(after, picture._RECENT)) == (chosen, recent)
    less = picture.draw(stats(), [Holding(frame(0), 4.0, 2.0), held[1]], album.get)
    assert count(less, picture._CHOSEN) < chosen and count(less, picture._RECENT) > recent


@pytest.mark.parametrize('number', [0, 1, 21, 400])
@pytest.mark.parametrize('step_s', [0.0, 0.05, -3.0, 1e4])
def test_any_memory_can_be_drawn(number, step_s):
    held = [Holding(frame(n, stamp_s=n * step_s), 1.0 + n % 3, n % 2) for n in range(number)]
    answer = Answer('ответ 回答\n' * 90, 'stop', 1, 0.1, 0.2, 0, '', evidence=tuple(
        Evidence(h.frame.ordinal, h.frame.stamp_ns, 'front', 0.1) for h in held[:30]))
    image = picture.draw(stats(tokens=1000), held, lambda _: None, 'Что это? ' * 90, answer)
    assert image.shape == (picture.HEIGHT, picture.WIDTH, 3)
    assert image.nbytes < 1 << 19  # a raw image that fits the shared memory of Fast DDS


def test_paths_stay_in_their_folder(tmp_path):
    place = pytest.importorskip('infmllm_ros.node.memory').place
    folder, outside = tmp_path / 'memories', tmp_path / 'elsewhere'
    outside.mkdir()
    assert place(folder, 'a/b', False) == folder / 'a' / 'b'
    assert place(folder, str(folder / 'a'), False) == folder / 'a'
    folder.mkdir()
    (folder / 'link').symlink_to(outside)
    for path in ('../memories2', str(outside / 'x'), 'link/x', 'a/../../x', '.', '', 'nul\0'):
        with pytest.raises(MemoryFileError, match='name a file'):
            place(folder, path, False)
    assert place(folder, 'link/x', True) == outside / 'x'
