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

"""Image messages become the right pixels, or one clear line, with every converter."""
import array
import io
import sys
from types import SimpleNamespace

from infmllm_ros import images
from infmllm_ros.images import decode, ImageError
import numpy as np
from PIL import Image as PillowImage
import pytest

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# 2 rows of 4 colours that no swap of channels, rows or columns maps to themselves.
PICTURE = np.array([[RED, GREEN, BLUE, (10, 20, 30)],
                    [(200, 100, 50), (1, 2, 3), WHITE, (0, 0, 0)]], np.uint8)
BIG = sys.byteorder == 'big'


@pytest.fixture(params=list(images.converters()))
def converter(request):
    """Run a test with every converter that works here: NumPy always, cv_bridge on a robot."""
    return request.param


def raw(pixels, encoding, pad=0, big=BIG, **fields):
    """Return an Image message of an array ``[h, w, ...]`` in the byte order that `big` names."""
    pixels = np.asarray(pixels)
    pixels = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=170)
    return SimpleNamespace(**{
        'height': pixels.shape[0], 'width': pixels.shape[1], 'encoding': encoding,
        'is_bigendian': int(big), 'step': rows.shape[1], 'data': array.array('B', rows.tobytes()),
        **fields})


def compressed(pixels, kind, **options):
    """Return a CompressedImage message."""
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, kind, **options)
    return SimpleNamespace(format=kind, data=array.array('B', file.getvalue()))


def smooth(height=32, width=48):
    """Return a picture without edges, so that interpolation and jpeg hardly change it."""
    y, x = np.mgrid[:height, :width]
    return np.stack([40 + 3 * x, 60 + 4 * y, 200 - x - 2 * y], axis=-1).astype(np.uint8)


@pytest.mark.parametrize('encoding, order', [
    ('rgb8', [0, 1, 2]), ('bgr8', [2, 1, 0]), ('8UC3', [2, 1, 0]),
    ('rgba8', [0, 1, 2, 0]), ('bgra8', [2, 1, 0, 0]), ('8UC4', [2, 1, 0, 0])])
@pytest.mark.parametrize('pad', [0, 5])
def test_colours_come_out_in_their_order(converter, encoding, order, pad):
    out = decode(raw(PICTURE[..., order], encoding, pad), converter)
    assert out.dtype == np.uint8 and out.flags.c_contiguous and out.flags.writeable
    np.testing.assert_array_equal(out, PICTURE)


@pytest.mark.parametrize('encoding, order', [('rgb16', [0, 1, 2]), ('bgr16', [2, 1, 0])])
@pytest.mark.parametrize('pad', [0, 5])
@pytest.mark.parametrize('big', [False, True])
def test_deep_colours_are_scaled_in_both_byte_orders(converter, encoding, order, pad, big):
    deep = PICTURE[..., order].astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(raw(deep, encoding, pad, big), converter), PICTURE)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
@pytest.mark.parametrize('pad', [0, 3])
def test_grey_becomes_three_equal_channels(converter, encoding, pad):
    grey = np.array([[0, 1, 2], [100, 200, 255]], np.uint8)
    out = decode(raw(grey, encoding, pad), converter)
    assert out.tolist() == [[[v] * 3 for v in row] for row in grey.tolist()]


@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('pad', [0, 3])
def test_deep_grey_is_scaled_in_both_byte_orders(converter, encoding, big, pad):
    deep = np.array([[0, 128, 129, 257], [0x1234, 0x8000, 0xfeff, 0xffff]], np.uint16)
    out = decode(raw(deep, encoding, pad, big), converter)
    assert out[..., 0].tolist() == [[0, 0, 1, 1], [18, 128, 254, 255]]
    assert np.ptp(out, axis=-1).max() == 0


# (Y, U, V) of BT.601, limited range, and the colours that they stand for.
YUV = {RED: (81, 90, 240), GREEN: (145, 54, 34), BLUE: (41, 240, 110), WHITE: (235, 128, 128),
       (0, 0, 0): (16, 128, 128), (128, 128, 128): (126, 128, 128)}


@pytest.mark.parametrize('encoding, places', [
    ('yuv422', 'UYVY'), ('uyvy', 'UYVY'), ('yuv422_yuy2', 'YUYV'), ('yuyv', 'YUYV')])
@pytest.mark.parametrize('pad', [0, 2])
def test_yuv_in_both_orders_gives_the_colours_of_bt601(converter, encoding, places, pad):
    pairs = []
    for y, u, v in YUV.values():  # a row of one colour, and its right pixel black
        lumas = iter((y, 16))
        pairs.append([next(lumas) if place == 'Y' else {'U': u, 'V': v}[place]
                      for place in places])
    message = raw(np.array(pairs, np.uint8).reshape(len(YUV), 2, 2), encoding, pad)
    out = decode(message, converter).astype(int)
    assert np.abs(out[:, 0] - np.array(list(YUV))).max() <= 2
    dark = np.array([max(0, round(1.596 * (v - 128))) for _, _, v in YUV.values()])
    assert np.abs(out[:, 1, 0] - dark).max() <= 1  # the chroma is shared, the luma is not


def test_yuv_converters_agree_on_any_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 2), np.uint8)
    for encoding in ('uyvy', 'yuyv'):
        want = decode(raw(noise, encoding), 'numpy')
        for name in images.converters():
            np.testing.assert_array_equal(decode(raw(noise, encoding), name), want)


BAYER = {'bayer_rggb8': ((0, 1), (1, 2)), 'bayer_bggr8': ((2, 1), (1, 0)),
         'bayer_gbrg8': ((1, 2), (0, 1)), 'bayer_grbg8': ((1, 0), (2, 1))}


def mosaic(picture, pattern):
    """Return the Bayer mosaic ``[h, w]`` that a sensor of this pattern makes of a picture."""
    out = np.empty(picture.shape[:2], np.uint8)
    for row in (0, 1):
        for column in (0, 1):
            out[row::2, column::2] = picture[row::2, column::2, pattern[row][column]]
    return out


@pytest.mark.parametrize('encoding', BAYER)
@pytest.mark.parametrize('pad', [0, 3])
@pytest.mark.parametrize('shape', [(32, 48), (33, 47)])
def test_bayer_is_restored_at_full_resolution(converter, encoding, pad, shape):
    picture = smooth(*shape)
    out = decode(raw(mosaic(picture, BAYER[encoding]), encoding, pad), converter)
    assert out.shape == picture.shape
    assert np.abs(out.astype(int) - picture)[1:-1, 1:-1].max() <= 1
    assert np.abs(out.astype(int) - picture).max() <= 8  # the border has one neighbour too few


@pytest.mark.parametrize('encoding', BAYER)
@pytest.mark.parametrize('colour', [RED, GREEN, BLUE])
@pytest.mark.parametrize('shape', [(3, 3), (6, 8)])
def test_bayer_of_one_colour_is_that_colour_up_to_the_border(converter, encoding, colour, shape):
    picture = np.broadcast_to(np.array(colour, np.uint8), (*shape, 3))
    out = decode(raw(mosaic(picture, BAYER[encoding]), encoding), converter)
    np.testing.assert_array_equal(out, picture)


def test_bayer_converters_agree_on_any_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    for encoding in BAYER:
        want = decode(raw(noise, encoding), 'numpy').astype(int)
        for name in images.converters():
            got = decode(raw(noise, encoding), name)
            assert np.abs(got - want)[1:-1, 1:-1].max() <= 1


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
def test_compressed_colours_come_out(kind):
    out = decode(compressed(smooth(), kind, **({'quality': 95} if kind == 'jpeg' else {})))
    assert out.shape == smooth().shape and out.flags.writeable
    assert np.abs(out.astype(int) - smooth()).max() <= (6 if kind == 'jpeg' else 0)


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
def test_compressed_grey_becomes_three_equal_channels(kind):
    grey = smooth()[..., 0]
    out = decode(compressed(grey, kind))
    assert np.ptp(out, axis=-1).max() == 0
    assert np.abs(out[..., 0].astype(int) - grey).max() <= (6 if kind == 'jpeg' else 0)


def test_compressed_deep_grey_is_scaled_and_transparency_dropped():
    deep = np.array([[0, 257 * 7], [257 * 100, 65535]], np.uint16)
    assert decode(compressed(deep, 'png'))[..., 1].tolist() == [[0, 7], [100, 255]]
    clear = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 40, np.uint8)])
    np.testing.assert_array_equal(decode(compressed(clear, 'png')), PICTURE)


def test_the_kind_of_a_compressed_image_is_read_from_its_data():
    message = compressed(PICTURE, 'png')
    message.format = 'rgb8; jpeg compressed bgr8'
    np.testing.assert_array_equal(decode(message), PICTURE)


@pytest.mark.parametrize('wrap', [bytes, bytearray, lambda data: np.frombuffer(data, np.uint8)])
def test_data_may_be_any_buffer(converter, wrap):
    message = raw(PICTURE, 'bgr8')
    message.data = wrap(bytes(message.data))
    out = decode(message, converter)
    np.testing.assert_array_equal(out, PICTURE[..., ::-1])
    out[0, 0] = 9  # the engine may write: never a view on bytes that must not change


def test_an_unpadded_rgb_image_is_not_copied():
    message = raw(smooth(), 'rgb8')
    assert np.shares_memory(decode(message), np.frombuffer(message.data, np.uint8))


def test_the_last_row_may_lack_its_padding(converter):
    message = raw(PICTURE, 'bgr8', pad=4)
    message.data = message.data[:-4]
    np.testing.assert_array_equal(decode(message, converter), PICTURE[..., ::-1])


def test_rows_are_packed_before_cv_bridge_sees_them(monkeypatch):
    """Stand in for cv_bridge, which shears padded rows and cannot swap bytes with NumPy 2."""
    seen = []

    class CvBridge:

        def imgmsg_to_cv2(self, msg, desired_encoding):
            seen.append(msg)
            grey = np.ndarray((msg.height, msg.step), np.uint8, buffer=msg.data)
            return grey[..., None].repeat(3, axis=-1)

    monkeypatch.delenv('ROS_DISTRO', raising=False)
    monkeypatch.setitem(sys.modules, 'cv_bridge', SimpleNamespace(CvBridge=CvBridge))
    images.converters.cache_clear()
    try:
        grey = smooth()[..., 0]
        np.testing.assert_array_equal(decode(raw(grey, '8UC1', pad=7))[..., 0], grey)
    finally:
        images.converters.cache_clear()
    assert seen[-1].encoding == 'mono8' and seen[-1].step == grey.shape[1]
    assert bool(seen[-1].is_bigendian) == BIG


def test_a_cv_bridge_that_fails_is_passed_over(monkeypatch):
    class CvBridge:

        def imgmsg_to_cv2(self, msg, desired_encoding):
            raise RuntimeError("No module named 'cv_bridge.boost'")

    monkeypatch.setitem(sys.modules, 'cv_bridge', SimpleNamespace(CvBridge=CvBridge))
    images.converters.cache_clear()
    try:
        np.testing.assert_array_equal(decode(raw(PICTURE[..., ::-1], 'bgr8')), PICTURE)
        assert 'cv_bridge' not in images.converters()
    finally:
        images.converters.cache_clear()


@pytest.mark.parametrize('message, says', [
    (raw(PICTURE, 'yuv420'), ["'yuv420'", 'rgb8', 'bayer_rggb8', '16UC1']),
    (raw(PICTURE, '32FC1'), ["'32FC1'", 'mono16']),
    (raw(PICTURE, ''), ["''", 'rgb8']),
    (raw(PICTURE, 'rgb8', step=11), ['11 bytes', '12', 'step >= 12']),
    (raw(PICTURE, 'rgb8', step=0), ['0 bytes', 'step >= 12']),
    (raw(PICTURE, 'rgb16', step=23), ['23 bytes', 'step >= 24']),
    (raw(PICTURE, 'rgb8', height=3), ['24 bytes', '36', 'step * height']),
    (raw(PICTURE, 'rgb8', data=array.array('B')), ['0 bytes', '24']),
    (raw(PICTURE, 'rgb8', width=0), ['0 x 2', 'at least 1 x 1']),
    (raw(PICTURE, 'rgb8', height=0), ['4 x 0', 'at least 1 x 1']),
    (raw(PICTURE, 'rgb8', width=2 ** 31, step=2 ** 32 - 1), ['2147483648 x 2', '67108864']),
    (raw(PICTURE[:, :3, :2], 'uyvy'), ['uyvy', '3 pixels wide', 'even']),
    (raw(PICTURE[..., 0], 'bayer_rggb8'), ['4 x 2', '3 x 3']),
])
def test_a_bad_raw_image_is_refused_with_value_limit_and_remedy(message, says):
    with pytest.raises(ImageError) as error:
        decode(message)
    for text in says:
        assert text in str(error.value)
    assert '\n' not in str(error.value)


def cut(message, size):
    message.data = message.data[:size]
    return message


def bomb():
    """Return a png of a few kB that says it is 30000 x 30000."""
    data = bytearray(compressed(PICTURE, 'png').data.tobytes())
    data[16:24] = (30000).to_bytes(4, 'big') * 2
    return SimpleNamespace(format='png', data=array.array('B', data))


@pytest.mark.parametrize('message, says', [
    (SimpleNamespace(format='h264', data=array.array('B', b'\0\0\0\1')), ["'h264'", 'jpeg, png']),
    (SimpleNamespace(format='jpeg', data=array.array('B')), ["'jpeg'", '0 bytes']),
    (cut(compressed(smooth(), 'jpeg'), 100), ["'jpeg'", 'cannot be decoded', 'damaged']),
    (cut(compressed(smooth(), 'png'), 60), ["'png'", 'cannot be decoded', 'damaged']),
    (bomb(), ["'png'", 'cannot be decoded']),
])
def test_a_bad_compressed_image_is_refused_with_its_reason(message, says):
    with pytest.raises(ImageError) as error:
        decode(message)
    for text in says:
        assert text in str(error.value)
    assert '\n' not in str(error.value)


def test_a_size_over_the_limit_is_refused_before_it_is_decoded():
    message = compressed(smooth(), 'jpeg')
    assert decode(message, max_pixels=32 * 48).shape == (32, 48, 3)
    with pytest.raises(ImageError, match='48 x 32 pixels is over the limit of 1535'):
        decode(message, max_pixels=32 * 48 - 1)
