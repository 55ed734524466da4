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

"""What an episode hands out: its steps, what is told after them, and questions about them."""

from __future__ import annotations

import dataclasses

from infmllm_ros.bundled.scenes.world import Box, Event, Ref
import numpy as np


@dataclasses.dataclass(frozen=True)
class Told:
    """
    A fact given in words.

    Attributes
    ----------
    id
        0, 1, ... in an episode; evidence names it as ``('told', id)``.
    text
        The sentence.
    key, value
        What it says; a later one of the same key overwrites it.
    frame
        Ordinal of the frame after which it was said; -1 before the first.
    """

    id: int  # noqa: A003
    text: str
    key: str
    value: str
    frame: int


@dataclasses.dataclass(frozen=True)
class Question:
    """
    A question after a frame, and its answer.

    Attributes
    ----------
    kind
        One of `KINDS`.
    name
        Of the fact: ``topic`` or ``topic:member``; ``told:key`` for told facts.
    text, answer, choices
        In words of `VOCABULARY`; the answer is one of the choices.
    evidence
        What must be remembered (or seen) to answer: ``('frame', ordinal)``, ``('told', id)``.
        Empty for kind 'no'.
    age_frames
        Frames since the oldest of the evidence; None for kind 'no'.
    weight
        With what probability `Episode.ask` considers it, so that answers are balanced.
    """

    kind: str
    name: str
    text: str
    answer: str
    choices: tuple[str, ...]
    evidence: tuple[Ref, ...]
    age_frames: int | None
    weight: float

    @property
    def topic(self) -> str:
        """Cut the member off the name: questions of one topic differ by one word."""
        return self.name.partition(':')[0]


@dataclasses.dataclass(frozen=True)
class Step:
    """
    One frame of an episode.

    Attributes
    ----------
    ordinal
        0, 1, ...
    frame
        uint8 [size, size, 3], RGB; None where the episode does not render.
    truth
        What the frame shows, in words: topic of a *now* question -> answer.
    boxes
        Where it shows it: name -> left, top, right, bottom, as shares of width and height,
        camera shake included. Empty where the episode does not render.
    events
        The facts that this frame changes or shows anew.
    told
        What is said after the frame.
    """

    ordinal: int
    frame: np.ndarray | None
    truth: dict[str, str]
    boxes: dict[str, Box]
    events: tuple[Event, ...]
    told: tuple[Told, ...]
