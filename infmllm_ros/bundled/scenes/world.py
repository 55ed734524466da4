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

"""What the drive and the bench have in common: dice, facts, events and the shape of a world."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import random
from typing import Any

Ref = tuple[str, int]
"""Where a fact was shown or said: ``('frame', ordinal)`` or ``('told', id)``."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the image's width and height."""


class Dice:
    """
    Draws that are the same on every machine and for every Python version.

    Only ``random.Random.random`` is used: it alone is promised never to change.

    Parameters
    ----------
    key
        The seed: any words and numbers.
    """

    def __init__(self, *key: object) -> None:
        self._random = random.Random('/'.join(map(str, key)))

    def share(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random.random() < probability

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._random.random()

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return low + int((high - low + 1) * self._random.random())

    def pick(self, items: Sequence[Any]) -> Any:
        """Return one of the items, each as likely."""
        return items[int(len(items) * self._random.random())]

    def few(self, items: Sequence[Any], count: int) -> list[Any]:
        """Return that many different items (all of them where there are fewer), in any order."""
        rest = list(items)
        return [rest.pop(int(len(rest) * self._random.random()))
                for _ in range(min(count, len(rest)))]


@dataclasses.dataclass(frozen=True)
class Fact:
    """A remembered fact: its value in words, and what must be kept of the stream to know it."""

    value: str
    evidence: tuple[Ref, ...]


@dataclasses.dataclass(frozen=True)
class Event:
    """A fact that changed, or was shown anew, in a frame: its name, its value, its evidence."""

    name: str
    value: str
    evidence: tuple[Ref, ...]


def frames(*ordinals: int) -> tuple[Ref, ...]:
    """Return evidence that lies in these frames."""
    return tuple(('frame', ordinal) for ordinal in ordinals)


class World:
    """
    A world that changes frame by frame, knows its truth and can be painted.

    Attributes
    ----------
    truth
        What the newest frame shows: name of a *now* question -> its answer.
    facts
        What has been shown so far: name of a *back* question -> fact.
    boxes
        Where the newest frame shows it: name -> left, top, right, bottom, as shares of the image
        before the camera shakes; set by `paint`.
    light
        How bright it is, a factor on the image.
    """

    kind: str
    truth: dict[str, str]
    facts: dict[str, Fact]
    boxes: dict[str, Box]
    light: float

    def advance(self, ordinal: int) -> list[Event]:
        """Go on by one frame, the frame of this ordinal; return what changed."""
        raise NotImplementedError

    def paint(self, canvas: Any) -> None:
        """Paint the newest frame on a ``Canvas``."""
        raise NotImplementedError

    def now(self, name: str) -> str:
        """Return the answer to a *now* question: what the newest frame shows."""
        return self.truth[name]

    def back(self, name: str) -> Fact | None:
        """Return the fact behind a *back* question; None where it was never shown."""
        return self.facts.get(name)
