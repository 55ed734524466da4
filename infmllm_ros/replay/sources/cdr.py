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
Image messages in their serialized form, little-endian CDR, without ROS.

``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage`` as middlewares and bags have them.
"""

from __future__ import annotations

import io
import struct

from infmllm_ros.replay.sources.source import SECOND
import numpy as np
from PIL import Image as PillowImage

QUALITY = 90  # of the jpegs that are made here


def image(stamp_ns: int, frame_id: str, pixels: np.ndarray) -> bytes:
    """Serialize pixels, uint8 ``[H, W, 3]`` RGB, as they are."""
    height, width, channels = pixels.shape
    message = _header(stamp_ns, frame_id) + struct.pack('<II', height, width) + _text('rgb8')
    message = _aligned(message + b'\0') + struct.pack('<I', width * channels)  # is_bigendian, step
    return message + _bytes(np.ascontiguousarray(pixels).tobytes())


def compressed(stamp_ns: int, frame_id: str, form: str, data: bytes) -> bytes:
    """Serialize the bytes of a picture file of the format `form`, 'jpeg' or 'png'."""
    return _aligned(_header(stamp_ns, frame_id) + _text(form)) + _bytes(data)


def jpeg(pixels: np.ndarray) -> bytes:
    """Compress pixels, uint8 ``[H, W, 3]`` RGB."""
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, 'jpeg', quality=QUALITY)
    return file.getvalue()


def stamp_of(message: bytes) -> int:
    """Return the stamp [ns] of a message that begins with a header."""
    sec, nanosec = struct.unpack_from(_stamp_format(message), message, 4)
    return sec * SECOND + nanosec


def restamped(message: bytes, stamp_ns: int) -> bytes:
    """Return a message that begins with a header, with another stamp [ns]."""
    stamp = struct.pack(_stamp_format(message), *divmod(stamp_ns, SECOND))
    return message[:4] + stamp + message[12:]


def _stamp_format(message: bytes) -> str:
    """Return how the header's stamp lies in a message, behind 4 bytes that say so."""
    return '<iI' if message[1] & 1 else '>iI'


def _header(stamp_ns: int, frame_id: str) -> bytes:
    stamp = struct.pack('<4siI', b'\0\1\0\0', *divmod(stamp_ns, SECOND))
    return _aligned(stamp + _text(frame_id))


def _text(text: str) -> bytes:
    return _bytes(text.encode() + b'\0')


def _bytes(data: bytes) -> bytes:
    return struct.pack('<I', len(data)) + data


def _aligned(message: bytes) -> bytes:
    """Fill up to where a number of 4 bytes may begin."""
    return message + bytes(-len(message) % 4)
