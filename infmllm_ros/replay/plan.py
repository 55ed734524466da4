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

"""What to tell and to ask in a replay, and when. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, takewhile
import json
from math import inf
from typing import Any

END = 'end'  # as a time: after the last frame


@dataclass(frozen=True)
class Entry:
    """
    One question of the file, which may be asked more than once.

    Parameters
    ----------
    name : str
    question : str
    at : tuple of float
        [s] from the first frame, ascending; infinite = after the last frame.
    frame : int or None
        After this one, counted from 0 over all cameras.
    every : float or None
        [s] from one time to the next.
    begin, until : float
        [s] first time, and the last one possible, with `every`.
    choices : tuple of str
        The answers allowed; empty = free text.
    schema : str
        JSON Schema that the answer must fit; empty = free text.
    camera : str
        That it is about; empty = all.
    max_tokens : int
        Longest answer; 0 = as the node's parameters say.
    deadline : float
        [s] that the answer may take; 0 = any.
    remember : bool or None
        Whether question and answer stay in the memory; None = as the node's parameters say.
    expected : tuple of str
        The right answers; empty = not known.
    """

    name: str
    question: str
    at: tuple[float, ...] = ()
    frame: int | None = None
    every: float | None = None
    begin: float = 0.0
    until: float = inf
    choices: tuple[str, ...] = ()
    schema: str = ''
    camera: str = ''
    max_tokens: int = 0
    deadline: float = 0.0
    remember: bool | None = None
    expected: tuple[str, ...] = ()

    def judge(self, text: str) -> bool | None:
        """
        Say whether an answer is right; None where nothing is expected.

        Texts are compared without regard to case and to how much white space there is; with a
        schema, as JSON.
        """
        if not self.expected:
            return None
        if self.schema:
            try:
                answer = json.loads(text)
            except (ValueError, RecursionError):
                return False
            return any(_same(json.loads(right), answer) for right in self.expected)
        return any(_plain(text) == _plain(right) for right in self.expected)

    def times(self) -> Iterator[float]:
        """Iterate over the times that it is asked at, in seconds from the first frame."""
        if self.every is None:
            return iter(self.at)
        series = (round(self.begin + i * self.every, 6) for i in count())
        return takewhile(lambda at: at <= self.until, series)


def _plain(text: str) -> str:
    return ' '.join(text.casefold().split())


def _same(one: Any, other: Any) -> bool:
    """Compare JSON, where true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@dataclass(frozen=True)
class Telling:
    """A text for the memory, and when: [s] from the first frame."""

    at: float
    text: str

    def times(self) -> Iterator[float]:
        """Iterate over the one time that it is told at."""
        return iter((self.at,))


@dataclass(frozen=True)
class Turn:
    """
    One time that a question is asked.

    Parameters
    ----------
    entry : Entry
    id : str
        Unique in the run: the name, and the time where there may be several.
    at : float or None
        [s] from the first frame, infinite = after the last one; None = after a frame by number.
    """

    entry: Entry
    id: str  # noqa: A003
    at: float | None


@dataclass(frozen=True)
class Plan:
    """What to tell and to ask; `name` is that of the file."""

    questions: tuple[Entry, ...] = ()
    tellings: tuple[Telling, ...] = ()
    name: str = ''

    def agenda(self) -> Agenda:
        """Begin a run."""
        return Agenda(self)


class Agenda:
    """
    What is due as the frames of one run go by.

    What is planned for a time comes after the last frame of that time or earlier, which is just
    before the first later one is handed in. At the same time, what is told comes before what is
    asked; else the order of the file counts.

    Parameters
    ----------
    plan : Plan
    """

    def __init__(self, plan: Plan):
        """Start before the first frame."""
        self._frames = [entry for entry in plan.questions if entry.frame is not None]
        self._times = {place: (item, item.times()) for place, item in enumerate(
            (*plan.tellings, *plan.questions))}
        self._next: list[tuple[float, int]] = []  # a heap: when, and the place of what
        for place in self._times:
            self._renew(place)

    def before(self, elapsed_s: float) -> list[Telling | Turn]:
        """List what is due before a frame of this time, and has not been listed yet."""
        due = []
        while self._next and self._next[0][0] < elapsed_s:
            due.append(self._take())
        return due

    def after(self, number: int) -> list[Turn]:
        """List what is due after this frame, by its number from 0 over all cameras."""
        due = [entry for entry in self._frames if entry.frame <= number]
        self._frames = [entry for entry in self._frames if entry.frame > number]
        return [Turn(entry, entry.name, None) for entry in due]

    def end(self, elapsed_s: float, whole: bool = True) -> tuple[list[Telling | Turn], list[str]]:
        """
        List what is left when the source has ended.

        Parameters
        ----------
        elapsed_s : float
            Time of the last frame.
        whole : bool
            Whether the source was read to its end: if not, what is planned for later is not due.

        Returns
        -------
        list of Telling or Turn
            What is due now: also what is planned for a time after the last frame, once.
        list of str
            What is left out, and why, a line each.
        """
        due, lost = [], [
            f'question {entry.name} is not asked: it is planned for frame {entry.frame}, counted '
            'from 0, which the source does not have' for entry in self._frames]
        while self._next:
            at, place = self._next[0]
            item, _ = self._times[place]
            if at > elapsed_s and getattr(item, 'every', None) is not None:
                heappop(self._next)  # it goes on as long as the frames do
                continue
            taken = self._take()
            if at <= elapsed_s or at == inf or whole:
                due.append(taken)
            else:
                what = (f'question {taken.id}' if isinstance(taken, Turn)
                        else f'text {taken.text!r}')
                lost.append(f'{what} is left out: it is planned for {_seconds(at)} s, but the '
                            f'source could be read up to {_seconds(elapsed_s)} s only')
        return due, lost

    def _renew(self, place: int) -> None:
        """Look up when one is due next."""
        at = next(self._times[place][1], None)
        if at is not None:
            heappush(self._next, (at, place))

    def _take(self) -> Telling | Turn:
        """Take out what is due first."""
        at, place = heappop(self._next)
        item, _ = self._times[place]
        self._renew(place)
        if isinstance(item, Telling):
            return item
        several = item.every is not None or len(item.at) > 1
        return Turn(item, f'{item.name}@{_seconds(at)}' if several else item.name, at)


def _seconds(at: float) -> str:
    return END if at == inf else f'{at:.6f}'.rstrip('0').rstrip('.')
