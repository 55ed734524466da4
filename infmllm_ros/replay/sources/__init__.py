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
Where frames come from: a bag, a video, a folder of images, or a drive rendered on the way.

Nothing here knows ROS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import os
from pathlib import Path
import re

from infmllm_ros.replay.sources.bag import Bag, TORN
from infmllm_ros.replay.sources.folder import Folder
from infmllm_ros.replay.sources.rendered import Rendered
from infmllm_ros.replay.sources.source import (
    BEGIN,
    CAMERA,
    COMPRESSED,
    Frame,
    GUIDES,
    IMAGE,
    ODOMETRY,
    PATH,
    SECOND,
    Source,
    SourceError,
    TF,
)
from infmllm_ros.replay.sources.video import Video

__all__ = ['BEGIN', 'camera_topics', 'COMPRESSED', 'Frame', 'GUIDES', 'IMAGE', 'ODOMETRY',
           'open_source', 'PATH', 'Rendered', 'SECOND', 'Source', 'SourceError', 'TF']


def open_source(path: str | os.PathLike | None = None,
                topics: Mapping[str, str] | None = None, fps: float | None = None,
                seed: int = 0) -> Source:
    """
    Return the frames of a file or a folder, or of a rendered drive where there is no path.

    Parameters
    ----------
    path : str or path, optional
        A bag folder, a single ``.mcap`` or ``.db3`` file, a folder of images, or a video file.
    topics : mapping of str to str, optional
        Of a bag: the image topic of each camera, {'': topic} for one without a name.  It need not
        be named where there is one only. Of a folder: the sub-folder of each camera.
    fps : float, optional
        [1/s] of a folder of images that have no stamps.
    seed : int
        Of the rendered drive.

    Raises
    ------
    SourceError
        No such file, not readable, no image topic, several and none named.
    """
    path = Path(path).expanduser() if path else None
    if path is not None and not path.exists():
        raise SourceError(f'{path}: no such file or folder')
    bag = path is not None and (path.suffix in TORN or path.is_dir() and any(
        file.name == 'metadata.yaml' or file.suffix in TORN for file in path.iterdir()))
    folder = path is not None and not bag and path.is_dir()
    what = path or 'a rendered drive'
    if topics and not (bag or folder):
        raise SourceError(f'{what}: has no topics to choose from: leave out '
                          f'{", ".join(topics.values())}')
    if fps is not None and not folder:
        raise SourceError(f'{what}: has a frame rate of its own: leave out fps {fps:g}, which is '
                          'for a folder of images')
    if bag:
        return Bag(path, topics)
    if folder:
        return Folder(path, topics, fps)
    return Rendered(seed) if path is None else Video(path)


def camera_topics(words: Iterable[str]) -> dict[str, str]:
    """
    Read cameras as they are given on a command line.

    Parameters
    ----------
    words : iterable of str
        ``NAME=TOPIC`` each, or a single ``TOPIC``.

    Returns
    -------
    dict of str to str
        Topic of each camera, as `open_source` takes it.

    Raises
    ------
    SourceError
        Not of that form, or a name twice.
    """
    words, topics = list(words), {}
    for word in words:
        name, equals, topic = word.partition('=')
        if not equals and len(words) == 1:
            return {'': word}
        if not (topic and re.fullmatch(CAMERA, name, re.ASCII)):
            raise SourceError(f'camera {word}: write NAME=TOPIC, with a name of a letter, and '
                              'letters, digits and _ behind it')
        if name in topics:
            raise SourceError(f'camera {word}: the name {name} was given to {topics[name]} '
                              'already: choose another')
        topics[name] = topic
    return topics
