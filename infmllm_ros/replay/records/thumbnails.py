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

"""The small pictures that go with the records of a replay, in one ZIP file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

FILE = 'thumbnails.zip'
SIZE = 160  # [pixels] longest side
MOST = 60  # pictures that show what the run was like


def member(camera: str, stamp_ns: int) -> str:
    """Name the picture of a frame within the file."""
    return f'{camera or "_"}/{stamp_ns}.jpg'


def frame_of(name: str) -> tuple[str, int] | None:
    """Give camera and stamp of the frame that a picture is named after; None of other files."""
    camera, _, file = name.rpartition('/')
    stamp = file.removesuffix('.jpg')
    return ('' if camera == '_' else camera, int(stamp)) if stamp.isdecimal() else None


class Thumbnails:
    """
    Keeps the pictures that somebody names, and others evenly spread over the run.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    cameras : sequence of str
        Each gets its share of the others.
    """

    def __init__(self, path: Path, cameras: Sequence[str] = ('',)):
        """Make the file."""
        self._zip = ZipFile(path, 'w', ZIP_STORED)
        self._written: set[str] = set()
        self._spreads = {camera: Spread(max(1, MOST // len(cameras))) for camera in cameras}

    def pass_by(self, camera: str, stamp_ns: int, jpeg: bytes) -> None:
        """Take note of a camera's next frame, which may be one of the others."""
        self._spreads[camera].add(member(camera, stamp_ns), jpeg)

    def keep(self, camera: str, stamp_ns: int, jpeg: bytes) -> None:
        """Write a picture, unless it is there."""
        self._write(member(camera, stamp_ns), jpeg)

    def _write(self, name: str, jpeg: bytes) -> None:
        if name not in self._written:
            self._written.add(name)
            self._zip.writestr(name, jpeg)

    def close(self) -> None:
        """Write those that are spread over the run, and close the file."""
        for spread in self._spreads.values():
            for name, jpeg in spread.chosen:
                self._write(name, jpeg)
        self._zip.close()


class Spread:
    """
    Some of a series of unknown length, at even distances.

    Parameters
    ----------
    most : int
        How many; at the end it is more than half of that, if there were as many.
    """

    def __init__(self, most: int):
        """Start with none."""
        self._most, self._step, self._seen = most, 1, 0
        self.chosen: list[tuple[str, bytes]] = []

    def add(self, name: str, jpeg: bytes) -> None:
        """Take note of the next one."""
        if self._seen % self._step == 0:
            if len(self.chosen) == self._most:
                self.chosen = self.chosen[::2]
                self._step *= 2
            if self._seen % self._step == 0:
                self.chosen.append((name, jpeg))
        self._seen += 1
