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

"""Frames of a ROS 2 bag, whole or torn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infmllm_ros.replay.sources.source import (
    COMPRESSED,
    Frame,
    GUIDES,
    IMAGE,
    natural,
    SECOND,
    Source,
    SourceError,
)
from infmllm_ros.replay.sources.torn import Topic, Torn, TornMcap, TornSqlite, unfinished

TYPES = (IMAGE, COMPRESSED)
READ = (*TYPES, *GUIDES)
TORN: dict[str, type[Torn]] = {'.mcap': TornMcap, '.db3': TornSqlite}


class Bag(Source):
    """
    Image topics of a ROS 2 bag, in the order of recording.

    Parameters
    ----------
    path : Path
        A bag's folder, with or without metadata.yaml, or one .mcap or .db3 file.
    topics : mapping of str to str, optional
        Image topic of each camera; {'': topic} for one without a name.  A bag that has one image
        topic needs none.
    """

    stamped = True

    def __init__(self, path: Path, topics: Mapping[str, str] | None = None):
        self.path = path
        self._parts, self._missing = _parts(path)
        kinds = {topic: kind for part in self._parts for topic, kind in part.counts
                 if kind in TYPES}
        offered = ', '.join(sorted(kinds))
        if not kinds:
            problem = self._problem() or f'{path}: the bag has no image topic'
            raise SourceError(f'{problem}; record one of {IMAGE} or {COMPRESSED}')
        if not topics and len(kinds) > 1:
            raise SourceError(f'{path}: has {len(kinds)} image topics, name those to play, each '
                              f'with a camera, as in front={min(kinds)}: {offered}')
        topics = topics or {'': next(iter(kinds))}
        for topic in topics.values():
            if topic not in kinds:
                raise SourceError(f'{path}: has no image topic {topic}, only these: {offered}')
        self.msgtypes = {camera: kinds[topic] for camera, topic in topics.items()}
        self._cameras = {(topic, kinds[topic]): camera for camera, topic in topics.items()}
        if len(self._cameras) < len(topics):
            raise SourceError(f'{path}: two cameras have the same topic: give each its own of '
                              f'these: {offered}')
        self.name = ' '.join([path.name, *topics.values()])
        self.count = sum(part.counts.get(topic, 0) for part in self._parts
                         for topic in self._cameras)
        times = [time_ns for part in self._parts for time_ns in part.times]
        seconds = (max(times) - min(times)) / SECOND if times else 0
        self.fps = (self.count - 1) / seconds if self.count > 1 and seconds > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        self.problem = ''
        wanted = {**dict.fromkeys(self.also.items(), ''), **self._cameras}
        for part in self._parts:
            for topic, time_ns, raw in part.messages(wanted):
                yield Frame(time_ns, raw=raw, camera=wanted[topic], topic=topic[0],
                            msgtype=topic[1])
        self.problem = self._problem()

    def _problem(self) -> str:
        return '; '.join([*self._missing, *(part.problem for part in self._parts if part.problem)])


class Whole:
    """As `Torn`: a folder or a file that rosbags reads."""

    def __init__(self, path: Path, types: Collection[str]):
        self.path, self.problem = path, ''
        self.counts: Counter[Topic] = Counter()
        with _opened(path) as reader:
            for c in reader.connections:
                if c.msgtype in types:
                    self.counts[c.topic, c.msgtype] += c.msgcount
            self.times = [reader.start_time, reader.end_time - 1] * bool(reader.message_count)
            storages = getattr(reader.storage, 'storages', [reader.storage])
            # Of an MCAP file without an index rosbags refuses what comes late.
            self.indexed = bool(reader.compression_mode) or all(
                getattr(storage, 'chunks', True) for storage in storages)

    def messages(self, topics: Collection[Topic]) -> Iterator[tuple[Topic, int, bytes]]:
        """Give topic, time of recording [ns] and data of each message of some topics."""
        given = 0
        with _opened(self.path) as reader:
            wanted = [c for c in reader.connections if (c.topic, c.msgtype) in topics]
            try:
                for connection, time_ns, raw in reader.messages(wanted) if wanted else ():
                    yield (connection.topic, connection.msgtype), time_ns, bytes(raw)
                    given += 1
            except Exception as error:  # its storage plugins let out what sqlite3, struct... raise
                self.problem = (f'{self.path}: cannot be read on after {given:,} images '
                                f'({_reason(error)}): copy or record it again for the rest')


def _parts(path: Path) -> tuple[list[Whole | Torn], list[str]]:
    """Return the files of a bag, or the whole of it, and what cannot be read at all."""
    if not path.is_dir():
        try:
            return [_part(path)], []
        except (ValueError, OSError) as error:
            raise SourceError(f'{path}: not a ROS 2 bag, nor part of one ({_reason(error)}): give '
                              'another, or record it again') from error
    files = sorted((f for f in path.iterdir() if f.suffix in TORN), key=natural)
    missing = []
    if (path / 'metadata.yaml').exists() and not any(map(unfinished, files)):
        try:
            whole = Whole(path, READ)
            if whole.indexed:
                return [whole], []
        except SourceError:
            raise
        except Exception as error:  # as above
            missing += [f'{path}: the bag is not whole ({_reason(error)}), each file was read by '
                        'itself: copy or record it again']
    parts: list[Whole | Torn] = []
    for file in files:
        try:
            parts.append(_part(file))
        except (ValueError, OSError) as error:
            missing.append(f'{file}: not a bag file ({_reason(error)}): copy or record it again')
    return parts, missing


def _part(file: Path) -> Whole | Torn:
    if not unfinished(file):  # rosbags would take zeros for what is missing
        try:
            whole = Whole(file, READ)
            if whole.indexed:
                return whole
        except SourceError:
            raise
        except Exception:  # as above; another reader says more
            pass
    return TORN[file.suffix](file, READ)


def _reason(error: Exception) -> str:
    return ' '.join(str(error).split()).rstrip('.') or type(error).__name__


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        from rosbags.rosbag2 import Reader
    except ImportError:
        raise SourceError(f'{path}: rosbags is needed to read a bag: pip install rosbags') \
            from None
    with Reader(path) as reader:
        yield reader
