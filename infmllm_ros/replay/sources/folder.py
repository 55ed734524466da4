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

"""Frames of a folder of jpeg and png files, or of one such folder a camera."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
import re

from infmllm_ros.replay.sources.cdr import compressed
from infmllm_ros.replay.sources.source import (
    BEGIN,
    CAMERA,
    COMPRESSED,
    Frame,
    natural,
    SECOND,
    Source,
    SourceError,
)

FPS = 10.0  # [1/s] of files whose names are no stamps
FORMATS = {'.jpg': 'jpeg', '.jpeg': 'jpeg', '.png': 'png'}


class Folder(Source):
    """
    Image files in natural order of their names; they go on as they are, as compressed images.

    A name that is a number of 16 digits or more is the frame's stamp in nanoseconds (as in EuRoC),
    one with seconds before a point and decimals behind it is one in seconds (as in TUM RGB-D).

    Parameters
    ----------
    path : Path
        With images in it, or with sub-folders that have images, or a folder ``data`` of images.
    folders : mapping of str to str, optional
        Sub-folder of each camera; by default each sub-folder is a camera of its name.
    fps : float, optional
        [1/s] of files whose names are no stamps, by default 10; the cameras run side by side.
    """

    def __init__(self, path: Path, folders: Mapping[str, str] | None = None,
                 fps: float | None = None):
        found = {'': _images(path)} if _images(path) else {
            sub.name: files for sub in sorted(path.iterdir(), key=natural)
            if sub.is_dir() and (files := _images(sub) or _images(sub / 'data'))}
        if not found:
            raise SourceError(f'{path}: no bag (it has no metadata.yaml, .mcap or .db3), and no '
                              'images (.jpg, .png) in it or its sub-folders')
        if folders:
            missing = ', '.join(set(folders.values()) - set(found))
            if missing:
                raise SourceError(f'{path}: has no images in a sub-folder {missing}, only in '
                                  f'these: {", ".join(found)}')
            found = {camera: found[sub] for camera, sub in folders.items()}
        for camera in found:
            if camera and not re.fullmatch(CAMERA, camera, re.ASCII):
                raise SourceError(f'{path}: a camera cannot be called {camera}: give it a name of '
                                  f'letters, digits and _, as in front={camera}')
        stamps = {file: _stamp(file) for files in found.values() for file in files}
        self.stamped = None not in stamps.values()
        if self.stamped and fps is not None:
            raise SourceError(f'{path}: fps {fps:g} is for images without stamps, the names of '
                              'these are stamps: leave it out')
        rate = FPS if fps is None else fps
        if not 0 < rate <= 1000:
            raise SourceError(f'{path}: fps {rate:g}: give one above 0, 1000 at most')
        self.path, self.name = path, path.name
        self._frames = sorted(
            (stamps[file] if self.stamped else BEGIN + round(index * SECOND / rate), order, file)
            for order, files in enumerate(found.values()) for index, file in enumerate(files))
        self.msgtypes = dict.fromkeys(found, COMPRESSED)
        self.count = len(self._frames)
        seconds = (self._frames[-1][0] - self._frames[0][0]) / SECOND
        self.fps = (self.count - 1) / seconds if seconds > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        self.problem, cameras = '', self.cameras
        for number, (time_ns, order, file) in enumerate(self._frames):
            try:
                data = file.read_bytes()
            except OSError as error:
                self.problem = (f'{file}: cannot be read ({error.strerror}) after {number:,} of '
                                f'{self.count:,} images: give it back and replay again')
                return
            yield Frame(time_ns, raw=compressed(time_ns, '', FORMATS[file.suffix.lower()], data),
                        camera=cameras[order], msgtype=COMPRESSED)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir()
                   if file.suffix.lower() in FORMATS and file.is_file()),
                  key=lambda file: natural(file.stem))


def _stamp(file: Path) -> int | None:
    """Return the stamp [ns] that the file's name is, if it is one."""
    if re.fullmatch(r'[0-9]{16,19}', file.stem) and int(file.stem) < SECOND << 31:
        return int(file.stem)
    if seconds := re.fullmatch(r'([0-9]{9,10})\.([0-9]{1,9})', file.stem):
        return int(seconds[1]) * SECOND + int(seconds[2].ljust(9, '0'))
    return None
