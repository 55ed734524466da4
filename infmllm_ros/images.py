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

"""
Image messages to pixels: ``decode(msg)`` gives uint8 RGB, whatever the camera sent.

The messages are duck-typed (``sensor_msgs/Image``: height, width, encoding, is_bigendian, step,
data; ``sensor_msgs/CompressedImage``: format, data), so this file needs no ROS.

The layout of a raw image (``step``, byte order, sizes) is always resolved here, because
``cv_bridge`` shears padded rows. The packed pixels are then turned into RGB by one of three
converters, the first that works: ``cv_bridge``, OpenCV, NumPy. All three are held to the same
test vectors. Compressed images are read by Pillow, which tells their size before it decodes them.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import io
import os
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image as PillowImage

# Larger images are refused: 8192 x 8192 is beyond any camera of a robot and 192 MiB as RGB.
MAX_PIXELS = 1 << 26

# encoding of the message: (the name it is converted under, bytes per value, values per pixel)
_ENCODINGS = {
    'rgb8': ('rgb8', 1, 3),
    'bgr8': ('bgr8', 1, 3),
    'rgba8': ('rgba8', 1, 4),
    'bgra8': ('bgra8', 1, 4),
    'mono8': ('mono8', 1, 1),
    'rgb16': ('rgb16', 2, 3),
    'bgr16': ('bgr16', 2, 3),
    'mono16': ('mono16', 2, 1),
    # Chroma first: U Y V Y.  'yuv422' is its old name.
    'yuv422': ('yuv422', 1, 2),
    'uyvy': ('yuv422', 1, 2),
    # Luma first: Y U Y V.
    'yuv422_yuy2': ('yuyv', 1, 2),
    'yuyv': ('yuyv', 1, 2),
    'bayer_rggb8': ('bayer_rggb8', 1, 1),
    'bayer_bggr8': ('bayer_bggr8', 1, 1),
    'bayer_gbrg8': ('bayer_gbrg8', 1, 1),
    'bayer_grbg8': ('bayer_grbg8', 1, 1),
    # These name no colours: grey and BGR are what OpenCV, where the names come from, means.
    '8UC1': ('mono8', 1, 1),
    '8UC3': ('bgr8', 1, 3),
    '8UC4': ('bgra8', 1, 4),
    '16UC1': ('mono16', 2, 1),
}
ENCODINGS = tuple(_ENCODINGS)
FORMATS = ('jpeg', 'png')


class ImageError(ValueError):
    """An image message that cannot be decoded; one line: the value, the limit, the remedy."""


def decode(msg: Any, converter: str | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """
    Return the pixels of an image message.

    Parameters
    ----------
    msg : Any
        ``sensor_msgs/Image`` or ``sensor_msgs/CompressedImage``, or anything with their fields.
    converter : str, optional
        ``'cv_bridge'``, ``'opencv'`` or ``'numpy'``; by default the first of them that works here.
    max_pixels : int
        A larger image is refused before anything is allocated for it; at most ``MAX_PIXELS``.

    Returns
    -------
    numpy.ndarray
        uint8 ``[height, width, 3]``, RGB, contiguous and writable. An unpadded ``rgb8`` image may
        share its memory with the message.

    Raises
    ------
    ImageError
        Unsupported encoding or format, a size of zero or beyond ``max_pixels``, a ``step`` or data
        too small for the size, bytes that are no image.
    """
    if hasattr(msg, 'encoding'):
        rgb = _decode_raw(msg, converter, max_pixels)
    else:
        rgb = _decode_compressed(msg, max_pixels)
    return np.require(rgb, np.uint8, ['C_CONTIGUOUS', 'WRITEABLE'])


def _decode_raw(msg: Any, converter: str | None, max_pixels: int) -> np.ndarray:
    """Return uint8 RGB ``[h, w, 3]`` of a raw image."""
    try:
        name, size, channels = _ENCODINGS[msg.encoding]
    except KeyError:
        raise ImageError(f'unsupported image encoding {_short(msg.encoding)}: publish one of '
                         + ', '.join(ENCODINGS)) from None
    _check_size(msg.width, msg.height, max_pixels)
    if channels == 2 and msg.width % 2:
        raise ImageError(f'{msg.encoding} image is {msg.width} pixels wide: two pixels share a '
                         'colour, so publish an even width')
    if name.startswith('bayer') and min(msg.width, msg.height) < 3:  # OpenCV's limit
        raise ImageError(f'{msg.encoding} image of {msg.width} x {msg.height} pixels: publish at '
                         'least 3 x 3')
    pixels = _pixels(msg, size, channels)
    if name == 'rgb8':
        return pixels
    if name == 'yuyv':  # not every cv_bridge knows it
        name, pixels = 'yuv422', np.ascontiguousarray(pixels[..., ::-1])
    convert = converters()[converter] if converter else next(iter(converters().values()))
    return convert(pixels, name)


def _short(text: str) -> str:
    """Quote a text of a message on one line."""
    return repr(text[:60])


def _check_size(width: int, height: int, most: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f'image of {width} x {height} pixels: publish at least 1 x 1')
    if width * height > most:
        raise ImageError(f'image of {width} x {height} pixels is over the limit of {most}: '
                         'publish a smaller one, or correct its width and height')


def _pixels(msg: Any, size: int, channels: int) -> np.ndarray:
    """Return ``[h, w, channels]`` in native byte order, rows packed; a view where possible."""
    row = msg.width * channels * size
    if msg.step < row:
        raise ImageError(f'image step of {msg.step} bytes is below the {row} that {msg.width} '
                         f'pixels of {msg.encoding} take: publish step >= {row}')
    data = np.frombuffer(msg.data, np.uint8)
    need = msg.step * (msg.height - 1) + row  # the last row may come without its padding
    if data.size < need:
        raise ImageError(f'image data of {data.size} bytes is below the {need} that {msg.height} '
                         f'rows of step {msg.step} take: publish step * height bytes')
    rows = np.lib.stride_tricks.as_strided(data, (msg.height, row), (msg.step, 1))
    pixels = np.ascontiguousarray(rows)
    if size == 2:
        pixels = pixels.view('>u2' if msg.is_bigendian else '<u2').astype(np.uint16)
    return pixels.reshape(msg.height, msg.width, channels)


def _decode_compressed(msg: Any, max_pixels: int) -> np.ndarray:
    """Return uint8 RGB ``[h, w, 3]`` of a jpeg or png; the data says which it is."""
    data = bytes(msg.data)
    what = f'compressed image of format {_short(msg.format)} ({len(data)} bytes)'
    if not data.startswith((b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n')):
        raise ImageError(f'{what} is neither jpeg nor png by its first bytes: publish one of '
                         + ', '.join(FORMATS))
    try:
        image = PillowImage.open(io.BytesIO(data), formats=FORMATS)
        _check_size(*image.size, max_pixels)
        if image.mode.startswith('I'):  # 16-bit grey, which Pillow would clip instead of scale
            return _numpy(np.asarray(image).astype(np.uint16)[..., None], 'mono16')
        return np.asarray(image.convert('RGB'))
    except ImageError:
        raise
    except PillowImage.DecompressionBombError as error:
        raise ImageError(f'{what} is over the limit of {max_pixels} pixels ({error}): publish a '
                         'smaller one') from error
    except Exception as error:  # Pillow's readers let out whatever broken bytes make them raise
        raise ImageError(f'{what} cannot be decoded ({error}): it is damaged, look at the camera '
                         'or the link') from error


# Packed pixels [h, w, c] of one encoding to uint8 RGB [h, w, 3].
_Converter = Callable[[np.ndarray, str], np.ndarray]


@functools.cache
def converters() -> dict[str, _Converter]:
    """Return the converters that work here, best first."""
    found: dict[str, _Converter] = {}
    for name, make in (('cv_bridge', _make_cv_bridge), ('opencv', _make_opencv)):
        try:
            convert = make()
            grey = convert(np.full((2, 2, 1), 7, np.uint8), 'mono8')
            if np.array_equal(grey, np.full((2, 2, 3), 7)):
                found[name] = convert
        except Exception:  # not installed, or built for another NumPy or OpenCV: the next will do
            continue
    return found | {'numpy': _numpy}


def _make_cv_bridge() -> _Converter:
    # The distributions up to Kilted build cv_bridge for NumPy 1. With NumPy 2, which pip brings,
    # it does not raise: it ends the process.
    if os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy', 'kilted') \
            and int(np.__version__.split('.')[0]) > 1:
        raise ImportError('cv_bridge of this distribution needs NumPy 1')
    from cv_bridge import CvBridge
    bridge = CvBridge()

    def convert(pixels: np.ndarray, name: str) -> np.ndarray:
        height, width = pixels.shape[:2]
        return bridge.imgmsg_to_cv2(SimpleNamespace(
            height=height, width=width, encoding=name, is_bigendian=sys.byteorder == 'big',
            step=pixels.nbytes // height, data=pixels), 'rgb8')
    return convert


def _make_opencv() -> _Converter:
    import cv2
    # OpenCV names a mosaic by its second row, from the second pixel on: RGGB is its 'BG'.
    codes = {'yuv422': cv2.COLOR_YUV2RGB_UYVY,
             'bayer_rggb8': cv2.COLOR_BayerBG2RGB, 'bayer_bggr8': cv2.COLOR_BayerRG2RGB,
             'bayer_gbrg8': cv2.COLOR_BayerGR2RGB, 'bayer_grbg8': cv2.COLOR_BayerGB2RGB}

    def convert(pixels: np.ndarray, name: str) -> np.ndarray:
        if name not in codes:
            return _numpy(pixels, name)  # no more than a copy
        return cv2.cvtColor(pixels, codes[name])
    return convert


def _numpy(pixels: np.ndarray, name: str) -> np.ndarray:
    if name == 'yuv422':
        return _yuv422(pixels)
    if name.startswith('bayer'):
        return _bilinear(pixels[..., 0], name[6:8])
    if name.endswith('16'):  # x * 255 / 65535, rounded, as cv_bridge does
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if name.startswith('mono'):
        return pixels.repeat(3, axis=-1)
    return pixels[..., :3] if name.startswith('rgb') else pixels[..., 2::-1]


def _yuv422(pixels: np.ndarray) -> np.ndarray:
    """Return RGB of UYVY pairs ``[h, w, 2]``, BT.601, limited range; bit-exact with OpenCV."""
    y = (pixels[..., 1].astype(np.int32) - 16).clip(0) * 1220542
    chroma = pixels[..., 0].astype(np.int32) - 128
    u = chroma[:, 0::2].repeat(2, axis=1)
    v = chroma[:, 1::2].repeat(2, axis=1)
    # 20 bits of fraction: 1.164, 1.596, 0.813, 0.391, 2.018.
    rgb = np.stack([y + 1673527 * v, y - 852492 * v - 409993 * u, y + 2116026 * u], axis=-1)
    return ((rgb + (1 << 19)) >> 20).clip(0, 255).astype(np.uint8)


def _bilinear(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """Return RGB ``[h, w, 3]`` of a Bayer mosaic ``[h, w]`` that begins with `pattern`."""
    height, width = mosaic.shape
    row, column = {'rg': (0, 0), 'gr': (0, 1), 'gb': (1, 0), 'bg': (1, 1)}[pattern]  # of the red
    value = np.pad(mosaic.astype(np.uint16), 1, mode='reflect')  # colours keep their places
    beside = value[1:-1, :-2] + value[1:-1, 2:]
    above = value[:-2, 1:-1] + value[2:, 1:-1]
    corners = value[:-2, :-2] + value[:-2, 2:] + value[2:, :-2] + value[2:, 2:]
    itself, cross = mosaic, (beside + above + 2) // 4
    beside, above, corners = (beside + 1) // 2, (above + 1) // 2, (corners + 2) // 4
    rgb = np.empty((height, width, 3), np.uint8)
    # Channels by place: (row, column) counted from a red pixel.
    for place, channels in (((0, 0), (itself, cross, corners)), ((0, 1), (beside, itself, above)),
                            ((1, 0), (above, itself, beside)), ((1, 1), (corners, cross, itself))):
        where = (slice((row + place[0]) % 2, None, 2), slice((column + place[1]) % 2, None, 2))
        for channel, plane in enumerate(channels):
            rgb[where + (channel,)] = plane[where]
    return rgb
