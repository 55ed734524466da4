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
One door to camera frames: ``open_source(path)``.

A path leads to a video file (OpenCV reads it) or a ROS 2 bag, MCAP or sqlite3 (rosbags reads it);
no path leads to a drive that is rendered on the way.  No file here needs ROS.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
import os
from pathlib import Path
from typing import Any, ClassVar

from infmllm_ros.bundled.scenes import Episode
import numpy as np

SECOND = 1_000_000_000
IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'


class SourceError(ValueError):
    """An input that cannot be played; one line: what is wrong, what to do."""


@dataclass(frozen=True)
class Frame:
    """One frame: pixels, or a bag's serialized message, which is passed on as it is."""

    time_ns: int  # [ns] on the source's own clock: recording time of a bag, else 0 at the first
    image: np.ndarray | None = None  # uint8 [H, W, 3] RGB
    raw: bytes | None = None  # CDR


class Source:
    """
    Frames in time order; every iteration starts at the first.

    Attributes
    ----------
    name : str
        What is played, for people.
    msgtype : str
        ``IMAGE`` or ``COMPRESSED``, of the raw messages; ``IMAGE`` where there are pixels.
    fps : float or None
        [1/s] mean frame rate, where it is known.
    count : int or None
        Number of frames as the file says, if it does.

    """

    msgtype: str = IMAGE
    name: str
    fps: float | None
    count: int | None

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError


class Rendered(Source):
    """
    A drive that the project renders and knows the truth of.

    Parameters
    ----------
    seed : int
        Which drive.

    Attributes
    ----------
    episode : Episode
        The drive, at the frame that was given last; None before the first.

    """

    fps: ClassVar[float] = 20
    count: ClassVar[int] = 600
    size: ClassVar[int] = 64  # [pixels] what the bundled model looks at

    def __init__(self, seed: int = 0):
        self.seed, self.name = seed, f'rendered drive {seed}'
        self.episode: Episode | None = None

    def __iter__(self) -> Iterator[Frame]:
        self.episode = Episode('drive', self.seed, self.size, keys=0)
        for index, step in enumerate(islice(self.episode, self.count)):
            yield Frame(index * SECOND // self.fps, step.frame)


class Video(Source):
    """A file that OpenCV can read; its frames are taken to be evenly spaced."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        with self._opened() as capture:
            self.fps = capture.get(self._cv2.CAP_PROP_FPS)
            count = int(capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        if not 0 < self.fps < 1000:
            raise SourceError(f'{path}: the file names no frame rate ({self.fps:g} fps): convert '
                              'it to one that does')
        self.count = count if count > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        with self._opened() as capture:
            while True:
                ok, image = capture.read()
                if not ok:
                    return
                yield Frame(round(index * SECOND / self.fps),
                            self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB))
                index += 1

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        # Its own words on a bad file would come on top of the one line below.
        os.environ.setdefault('OPENCV_LOG_LEVEL', 'OFF')
        os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
        try:
            import cv2
        except ImportError:
            raise SourceError(f'{self.path}: OpenCV is needed to read a video: '
                              'pip install opencv-python-headless') from None
        self._cv2 = cv2
        capture = cv2.VideoCapture(str(self.path))
        try:
            if not capture.isOpened():
                raise SourceError(f'{self.path}: not a video that OpenCV can read: give an avi or '
                                  'mp4 file, or a ROS 2 bag (folder, .mcap or .db3)')
            yield capture
        finally:
            capture.release()


class Bag(Source):
    """An image topic of a ROS 2 bag."""

    def __init__(self, path: Path, topic: str | None):
        self.path = path
        with self._opened() as reader:
            topics = {c.topic: c for c in reader.connections if c.msgtype in (IMAGE, COMPRESSED)}
            offered = ', '.join(sorted(topics))
            if not topics:
                raise SourceError(f'{path}: the bag has no image topic: record one of {IMAGE} or '
                                  f'{COMPRESSED}')
            if topic is None and len(topics) > 1:
                raise SourceError(f'{path}: has {len(topics)} image topics, name the one to play: '
                                  f'{offered}')
            if topic is not None and topic not in topics:
                raise SourceError(f'{path}: has no image topic {topic}, only these: {offered}')
            connection = topics[topic] if topic else next(iter(topics.values()))
            self.topic, self.msgtype = connection.topic, connection.msgtype
            self.count = connection.msgcount
            seconds = reader.duration / SECOND
        self.name = f'{path.name} {self.topic}'
        self.fps = (self.count - 1) / seconds if self.count > 1 and seconds > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        with self._opened() as reader:
            wanted = [c for c in reader.connections if c.topic == self.topic]
            for _, stamp, raw in reader.messages(wanted):
                yield Frame(stamp, raw=bytes(raw))

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            from rosbags.rosbag2 import Reader
        except ImportError:
            raise SourceError(f'{self.path}: rosbags is needed to read a bag: '
                              'pip install rosbags') from None
        try:
            with Reader(self.path) as reader:
                yield reader
        except SourceError:
            raise
        except Exception as error:  # its storage plugins let out what sqlite3, struct... raise
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise SourceError(f'{self.path}: not a whole ROS 2 bag ({reason})') from error


def open_source(path: str | os.PathLike | None = None, topic: str | None = None,
                seed: int = 0) -> Source:
    """
    Return the frames of a file, or of a rendered drive where there is no path.

    Parameters
    ----------
    path : str or path, optional
        A video file, a bag folder, or a single ``.mcap`` or ``.db3`` file.
    topic : str, optional
        Of a bag: the image topic to play.  It need not be named where there is one only.
    seed : int
        Of the rendered drive.

    Raises
    ------
    SourceError
        No such file, not readable, no (or not one) image topic.

    """
    if not path:
        return Rendered(seed)
    path = Path(path).expanduser()
    if not path.exists():
        raise SourceError(f'{path}: no such file or folder')
    if path.is_dir() and not (path / 'metadata.yaml').exists():
        raise SourceError(f'{path}: the folder has no metadata.yaml: give a bag folder, a .mcap '
                          'or .db3 file, or a video')
    if path.is_dir() or path.suffix in ('.mcap', '.db3'):
        return Bag(path, topic)
    return Video(path)
