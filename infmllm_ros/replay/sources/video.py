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

"""Frames of a video file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
from typing import Any

from infmllm_ros.replay.sources.source import BEGIN, Frame, SECOND, Source, SourceError


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
        self.problem, index = '', 0
        with self._opened() as capture:
            while capture.grab():
                ok, image = capture.retrieve()
                if not ok:
                    break
                yield Frame(BEGIN + round(index * SECOND / self.fps),
                            self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB))
                index += 1
        # Some files know their length by and large only.
        if self.count and index < self.count - max(2, self.count // 100):
            self.problem = (f'{self.path}: ends after {index:,} of the {self.count:,} frames that '
                            'it announces: copy or record it again')

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
                                  'mp4 file, a folder of images, or a ROS 2 bag (folder, .mcap or '
                                  '.db3)')
            yield capture
        finally:
            capture.release()
