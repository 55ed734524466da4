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

"""What a report shows of a run's frames, questions and watches, in the order of its time."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
import io
from itertools import groupby
from pathlib import Path
from typing import Any
import zipfile

from infmllm_ros.replay.records import Answer, Event, Frame, Record, Told
from infmllm_ros.replay.records.thumbnails import frame_of
from infmllm_ros.replay.report.charts import clock
from PIL import Image, UnidentifiedImageError

WIDE, NARROW = 16, 6  # pictures in a camera's strip, on a desktop and on a phone
ROOM = 3_000_000  # bytes of all pictures in a report
ROWS = 1500  # answers in a report
LEVELS, APART = 3, 2.2  # rows of marks for questions, and how near two may be in one [% of width]
COLOURS = 6  # of watches' choices
BLANK = (4, 3)


class Pictures:
    """
    The thumbnails beside the records, each once in the page however often it is shown.

    Parameters
    ----------
    path : Path
        thumbnails.zip; where it is missing or torn there are none.
    """

    def __init__(self, path: Path) -> None:
        self.symbols: list[tuple[str, int, int, str]] = []  # (id, width, height, base64)
        self._ids: dict[tuple[str, int], str | None] = {}
        self._names: dict[tuple[str, int], str] = {}
        self._room = ROOM
        self._zip: zipfile.ZipFile | None = None
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile):
            return
        for name in self._zip.namelist():
            if (frame := frame_of(name)) is not None:
                self._names[frame] = name

    def stamps(self, camera: str) -> list[int]:
        """List the stamps of a camera's pictures [ns]."""
        return sorted(stamp for name, stamp in self._names if name == camera)

    def get(self, camera: str, stamp_ns: int) -> str | None:
        """Take a picture into the page, if there is one and room for it; return its id."""
        key = (camera, stamp_ns)
        if key not in self._ids:
            self._ids[key] = self._take(key) if key in self._names else None
        return self._ids[key]

    def size(self, camera: str, stamp_ns: int) -> tuple[int, int]:
        """Give width and height of a picture in the page; those of a blank one if it is not."""
        place = self._ids.get((camera, stamp_ns))
        return self.symbols[int(place[1:])][1:3] if place else BLANK

    def _take(self, key: tuple[str, int]) -> str | None:
        try:
            data = self._zip.read(self._names[key])
            with Image.open(io.BytesIO(data), formats=('JPEG',)) as image:
                width, height = image.size
        except (OSError, RuntimeError, zipfile.BadZipFile, UnidentifiedImageError):
            return None
        text = b64encode(data).decode()
        if len(text) > self._room:
            return None
        self._room -= len(text)
        self.symbols.append((f'p{len(self.symbols)}', width, height, text))
        return self.symbols[-1][0]


@dataclass
class Clock:
    """Where moments of a run lie: from its first frame [s], and across a figure [%]."""

    first_ns: int
    seconds: float

    @classmethod
    def of(cls, records: Iterable[Record]) -> Clock:
        """Take the time from the frames, or from all else where none was recorded."""
        records = [record for record in records if getattr(record, 'stamp_ns', 0)]
        stamps = [r.stamp_ns for r in records if isinstance(r, Frame)] or [
            r.stamp_ns for r in records] or [0]
        return cls(min(stamps), (max(stamps) - min(stamps)) / 1e9)

    def at(self, stamp_ns: int) -> float:
        """Give seconds since the first frame."""
        return (stamp_ns - self.first_ns) / 1e9

    def across(self, stamp_ns: int) -> float:
        """Give the place across, 0 to 100."""
        return round(min(100., max(0., 100 * self.at(stamp_ns) / (self.seconds or 1.))), 3)

    def text(self, stamp_ns: int) -> str:
        """Write the time since the first frame."""
        return clock(self.at(stamp_ns))


@dataclass
class Row:
    """An answer, or turns of a watch that follow each other and say the same."""

    answer: Answer
    id: str  # noqa: A003
    at: str
    across: float
    until: float
    turns: int
    verdict: str  # 'right', 'wrong', 'open' (nothing was expected) or 'failed'
    bars: list[tuple[str, float, bool]]
    timings: str
    evidence: list[dict[str, Any]] = field(default_factory=list)
    level: int = 0
    colour: int = 0


def rows(records: Iterable[Record], time: Clock) -> list[Row]:
    """List answers in the order of the run, watches' turns put together where nothing changes."""
    answers = [record for record in records if isinstance(record, Answer)]
    asked = [[answer] for answer in answers if not answer.watch]
    watched = sorted((a for a in answers if a.watch), key=lambda a: a.name)  # stable
    for _, turns in groupby(watched, lambda a: (a.name, a.text, a.status)):
        asked.append(list(turns))
    asked.sort(key=lambda turns: turns[0].asked_ns)
    listed, used = [], set()
    for turns in asked:
        answer = turns[0]
        name = answer.id if answer.id not in used else f'{answer.id}~{len(listed)}'
        used.add(name)
        listed.append(Row(
            answer, name, time.text(answer.asked_ns), time.across(answer.asked_ns),
            time.across(turns[-1].asked_ns), len(turns), _verdict(answer),
            [(choice, p, place == answer.choice) for place, (choice, p)
             in enumerate(zip(answer.choices, answer.probabilities))], _timings(answer)))
    return listed


def illustrate(listed: Sequence[Row], pictures: Pictures, time: Clock) -> None:
    """Give answers the pictures of their evidence: wrong ones first, watches last."""
    for row in sorted(listed, key=lambda row: (row.answer.watch, row.verdict != 'wrong')):
        row.evidence = [{
            'picture': pictures.get(camera, stamp), 'at': time.text(stamp), 'camera': camera,
            'across': time.across(stamp), 'weight': weight, 'size': pictures.size(camera, stamp),
        } for stamp, camera, weight in row.answer.evidence]


def strips(cameras: Sequence[str], pictures: Pictures, time: Clock,
           ) -> list[dict[str, Any]]:
    """Choose the pictures of each camera's strip: in each cell that nearest to its middle."""
    found = []
    for camera in cameras:
        stamps = pictures.stamps(camera)
        strip: dict[str, Any] = {'camera': camera}
        for name, count in (('wide', WIDE), ('narrow', NARROW)):
            width = 100 / count
            strip[name] = cells = []
            for cell in range(count):
                middle = (cell + .5) * width
                near = [s for s in stamps if abs(time.across(s) - middle) <= width / 2]
                best = min(near, key=lambda s: abs(time.across(s) - middle), default=None)
                if best is not None and (picture := pictures.get(camera, best)):
                    cells.append((cell * width, width, picture, time.text(best)))
        found.append(strip)
    return found


def marks(listed: Sequence[Row]) -> list[Row]:
    """Give the marks of questions a row each, so that neighbours do not cover each other."""
    questions = [row for row in listed if not row.answer.watch]
    last = [-100.0] * LEVELS
    for row in questions:
        row.level = next((level for level in range(LEVELS) if row.across - last[level] >= APART),
                         min(range(LEVELS), key=last.__getitem__))
        last[row.level] = row.across
    return questions


def lanes(listed: Sequence[Row], records: Iterable[Record], time: Clock) -> list[dict[str, Any]]:
    """Make each watch a lane: what it said from when to when, and the events."""
    events = [record for record in records if isinstance(record, Event)]
    watched = [row for row in listed if row.answer.watch]
    found = []
    for name in dict.fromkeys([row.answer.name for row in watched] + [e.name for e in events]):
        mine = [row for row in watched if row.answer.name == name]
        texts = list(dict.fromkeys(row.answer.text for row in mine))
        for row in mine:
            choices = row.answer.choices or texts
            row.colour = (choices.index(row.answer.text) if row.answer.text in choices
                          else 0) % COLOURS
        segments = []
        for row, after in zip(mine, [*mine[1:], None]):
            stop = after.across if after else max(row.until, min(100., row.until + .5))
            if stop - row.across > .05:  # narrower ones cannot be seen
                segments.append((row, stop - row.across))
        found.append({'name': name, 'segments': segments, 'events': [
            {'id': f'event-{name}-{place}', 'across': time.across(e.stamp_ns),
             'at': time.text(e.stamp_ns), 'event': e}
            for place, e in enumerate(events) if e.name == name]})
    return found


def told(records: Iterable[Record], time: Clock) -> list[dict[str, Any]]:
    """List the texts that were put into the memory."""
    texts = [record for record in records if isinstance(record, Told)]
    return [{'id': f'told-{place}', 'across': time.across(one.stamp_ns),
             'at': time.text(one.stamp_ns), 'text': one.text} for place, one in enumerate(texts)]


def _verdict(answer: Answer) -> str:
    if answer.right is not None:
        return 'right' if answer.right else 'wrong'
    return 'open' if answer.status == 'OK' else 'failed'


def _timings(answer: Answer) -> str:
    times = (('first token', 'time_to_first_token'), ('answer', 'latency'))
    return ', '.join(f'{name} {1e3 * answer.measured[key]:.0f} ms' for name, key in times
                     if key in answer.measured)
