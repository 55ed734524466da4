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
Slow, independent references of the policies that know frames: time, grids, keys and values.

Nothing here is shared with the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class StreamingVLMReference:
    """
    StreamingVLM, from the paper's three regions: two lists of text and one of frames.

    `pinned` first tokens of the stream never leave and belong to no region.
    """

    budget: int
    pinned: int
    sink: int
    window: int
    seconds: float
    with_frame: bool = True             # whether a frame's wrapper leaves with it
    first: list[int] = field(default_factory=list)      # text sink
    latest: list[int] = field(default_factory=list)     # text window
    frames: list[tuple[float, list[int]]] = field(default_factory=list)     # (stamp [s], tokens)
    seen: int = 0

    def text(self, count: int) -> None:
        """Let text in."""
        for index in range(self.seen, self.seen + count):
            self._word(index)
        self.seen += count

    def frame(self, stamp: float, vision: list[bool]) -> None:
        """Let a frame in: which of its tokens are vision, not wrapper."""
        tokens = []
        for index, seen in enumerate(vision, self.seen):
            if seen or self.with_frame:
                tokens.append(index)
            else:
                self._word(index)
        self.seen += len(vision)
        self.frames.append((stamp, tokens))

    def _word(self, index: int) -> None:
        if index >= self.pinned:
            (self.first if len(self.first) < self.sink else self.latest).append(index)

    def kept(self, now: float) -> list[int]:
        """Forget what has left its region, and tell what stays."""
        self.latest = self.latest[max(0, len(self.latest) - self.window):]
        self.frames = [(at, tokens) for at, tokens in self.frames if abs(now - at) < self.seconds]
        text = [*range(min(self.pinned, self.seen)), *self.first, *self.latest]
        while len(text) + sum(len(tokens) for _, tokens in self.frames) > self.budget:
            self.frames.pop(0)
        return sorted(text + [index for _, tokens in self.frames for index in tokens])
