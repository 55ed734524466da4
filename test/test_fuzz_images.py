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

"""Whatever stands in an image message, it is the pixels that it says, or refused by name."""

import io
from types import SimpleNamespace

from cases import cases, HOSTILE, one_line, tried
from hypothesis import example, given
from hypothesis import strategies as st
from infmllm_ros.images import converters, decode, ENCODINGS, ImageError
import numpy as np
from PIL import Image as Pillow

MOST = 4096  # [pixels]
SIZES = st.integers(0, 9) | st.sampled_from([64, 65, 4096, 2**16, 2**31, 2**32 - 1])
# bytes of a pixel, and where its red, green and blue are; of 16 bits the number
PLACES = {'rgb8': (3, 0, 1, 2), 'bgr8': (3, 2, 1, 0), '8UC3': (3, 2, 1, 0), 'rgba8': (4, 0, 1, 2),
          'bgra8': (4, 2, 1, 0), '8UC4': (4, 2, 1, 0), 'mono8': (1, 0, 0, 0), '8UC1': (1, 0, 0, 0),
          'rgb16': (6, 0, 1, 2), 'bgr16': (6, 2, 1, 0), 'mono16': (2, 0, 0, 0),
          '16UC1': (2, 0, 0, 0)}


def deep(message):
    return message.encoding in ('rgb16', 'bgr16', 'mono16', '16UC1')


def row(message):
    """Tell how many bytes the pixels of a row take."""
    return message.width * PLACES.get(message.encoding, (
        1 if message.encoding.startswith('bayer') else 2,))[0]


def sound(message):
    """Tell whether a message is an image, by the definition of sensor_msgs/Image."""
    least = 3 if message.encoding.startswith('bayer') else 1
    paired = message.encoding.startswith(('yuv', 'uyvy', 'yuyv'))
    return (message.encoding in ENCODINGS and min(message.width, message.height) >= least
            and message.width * message.height <= MOST and not (paired and message.width % 2)
            and message.step >= row(message)
            and len(message.data) >= message.step * (message.height - 1) + row(message))


def colours(message, y, x):
    """Read a pixel as the definition of its encoding says, byte by byte."""
    size, *places = PLACES[message.encoding]
    start = y * message.step + x * size
    if not deep(message):
        return [message.data[start + place] for place in places]
    order = 'big' if message.is_bigendian else 'little'
    values = [int.from_bytes(message.data[start + 2 * place:start + 2 * place + 2], order)
              for place in places]
    return [int(value * 255 / 65535 + 0.5) for value in values]


@st.composite
def raws(draw):
    """Draw a raw image message: half of them nearly right."""
    message = SimpleNamespace(
        encoding=draw(st.sampled_from(ENCODINGS) | HOSTILE), height=draw(SIZES),
        width=draw(SIZES), is_bigendian=draw(st.integers(0, 255)), data=b'')
    message.step = draw(st.integers(0, 2**32 - 1) | st.integers(0, 9).map(
        lambda more: max(0, row(message) + more - 1)))
    need = message.step * max(0, message.height - 1) + row(message)
    length = draw(st.integers(0, 9).map(lambda more: max(0, need + more - 1)) | st.integers(0, 99))
    length = min(length, 2**16)
    message.data = (draw(st.binary(min_size=1, max_size=64)) * length)[:length]
    return message


@cases(300)
@given(message=raws(), where=st.tuples(*[st.integers(0, 2**16)] * 2))
def test_any_raw_image(message, where):
    tried['raw images'] += 1
    for converter in converters():
        try:
            pixels = decode(message, converter, MOST)
        except ImageError as error:
            one_line(error)
            assert not sound(message)
            continue
        assert sound(message)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (message.height, message.width, 3)
        y, x = where[0] % message.height, where[1] % message.width
        if message.encoding in PLACES:
            assert pixels[y, x].tolist() == colours(message, y, x)


def files():
    """Make jpegs and pngs of all sorts."""
    dice = np.random.default_rng(0)
    for mode, shape in (('RGB', (9, 7, 3)), ('L', (9, 7)), ('RGBA', (9, 7, 4)), ('1', (9, 7)),
                        ('P', (9, 7)), ('CMYK', (9, 7, 4)), ('I;16', (9, 7)), ('LA', (9, 7))):
        picture = Pillow.fromarray(dice.integers(0, 256, shape[:2] + (3,), np.uint8)).convert(
            'L' if mode == 'I;16' else mode)
        picture = picture.convert('I;16') if mode == 'I;16' else picture
        for kind in ('jpeg', 'png'):
            file = io.BytesIO()
            try:
                picture.save(file, kind, **{'interlace': 1, 'progressive': mode == 'L'})
            except OSError:  # a kind that has no such mode
                continue
            yield file.getvalue()


FILES = list(files())


@cases(300)
@given(data=st.data())
def test_any_damage_of_a_compressed_image(data):
    content = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 3))):
        at, end = (data.draw(st.integers(0, len(content))) for _ in range(2))
        content[at:max(at, min(end, at + 9))] = data.draw(st.binary(max_size=9))
    tried['compressed images'] += 1
    check(SimpleNamespace(format=data.draw(HOSTILE), data=bytes(content)))


@cases(100)
@given(content=st.binary(max_size=200), begin=st.sampled_from([
    b'', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', FILES[0][:99], FILES[1][:60]]))
@example(content=b'', begin=b'\xff\xd8\xff')
def test_any_bytes_as_a_compressed_image(content, begin):
    tried['compressed images'] += 1
    check(SimpleNamespace(format='jpeg', data=begin + content))


def check(message):
    """Decode a compressed image: pixels, or a refusal in one line."""
    try:
        pixels = decode(message, max_pixels=MOST)
    except ImageError as error:
        one_line(error)
    else:
        height, width, channels = pixels.shape
        assert pixels.dtype == np.uint8 and channels == 3 and 1 <= height * width <= MOST
