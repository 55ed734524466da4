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

"""Frames of a world that the project renders and knows the truth of."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.replay.sources.source import BEGIN, Frame, SECOND, Source


class Rendered(Source):
    """
    A world that the project renders and knows the truth of.

    Parameters
    ----------
    seed : int
        Which one of its kind.
    kind : str
        'drive' or 'bench'.
    count : int
        [frames]

    Attributes
    ----------
    episode : Episode
        The world, at the frame that was given last; None before the first.
    """

    fps: ClassVar[float] = 20
    size: ClassVar[int] = 64  # [pixels] what the bundled model looks at

    def __init__(self, seed: int = 0, kind: str = 'drive', count: int = 600):
        self.seed, self.kind, self.count = seed, kind, count
        self.name = f'rendered {kind} {seed}'
        self.episode: Episode | None = None

    def __iter__(self) -> Iterator[Frame]:
        self.episode = Episode(self.kind, self.seed, self.size, keys=0)
        for index, step in enumerate(islice(self.episode, self.count)):
            yield Frame(BEGIN + index * SECOND // self.fps, step.frame)
