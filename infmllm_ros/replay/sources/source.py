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

"""What every source of frames has in common. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import re
from typing import Any

import numpy as np

SECOND = 1_000_000_000
BEGIN = SECOND  # [ns] first frame of what has no clock of its own: in ROS a time of 0 is none
IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
GUIDES = PATH, ODOMETRY, TF = (
    'nav_msgs/msg/Path', 'nav_msgs/msg/Odometry', 'tf2_msgs/msg/TFMessage')
CAMERA = r'[A-Za-z]\w*'  # what a camera may be called, in ASCII


class SourceError(ValueError):
    """An input that cannot be played; one line: what is wrong, what to do."""


@dataclass(frozen=True)
class Frame:
    """One frame: pixels, or a serialized message, which is passed on as it is."""

    time_ns: int  # [ns] on the source's own clock: a bag's recording time, the stamps of images
    image: np.ndarray | None = None  # uint8 [H, W, 3] RGB
    raw: bytes | None = None  # CDR
    camera: str = ''
    topic: str = ''  # of the bag; '' elsewhere
    msgtype: str = IMAGE  # of the message


class Source:
    """
    Frames of all cameras in time order; every iteration starts at the first.

    Attributes
    ----------
    name : str
        What is played, for people.
    msgtypes : dict of str to str
        Of each camera, ``IMAGE`` or ``COMPRESSED``; ``IMAGE`` where there are pixels. One camera
        may be called ''.
    fps : float or None
        [1/s] mean frame rate, all cameras together, where it is known.
    count : int or None
        Number of frames, all cameras together, as the file says, if it does.
    stamped : bool
        Whether raw messages carry stamps of their own.
    also : mapping of str to str
        Topics besides those of the images, with their types, of ``GUIDES``: where there are such,
        an iteration gives their messages as well, which belong to no camera.
    problem : str
        After an iteration: why it ended before the source does, one line; '' if it did not.
    """

    name: str
    msgtypes: Mapping[str, str] = {'': IMAGE}
    fps: float | None = None
    count: int | None = None
    stamped: bool = False
    also: Mapping[str, str] = {}
    problem: str = ''

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras, [''] for one without a name."""
        return list(self.msgtypes)

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError


def natural(text: Any) -> list[tuple[int, str]]:
    """Return a key that sorts image_9 before image_10."""
    return [(int(part), '') if part.isdigit() else (-1, part)
            for part in re.findall(r'[0-9]+|[^0-9]+', str(text))]
