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
A memory without a model: what was let in, and which of it a policy must still hold.

Independent of the engine: plain lists of stream indices, and the references of `keepers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from keepers import keep_recent_frames, keep_streaming_llm, rank_at_random
from keepers_video import StreamingVLMReference
from zoo import POLICIES

TEXT, VISION, NO_FRAME = 0, 1, -1


@dataclass
class Ledger:
    """
    What a session must know of its stream; copy it to go back to a moment.

    Attributes
    ----------
    tokens : list of tuple
        Of every token since the start: kind, frame ordinal, stamp [ns].
    held : list of int or None
        Stream indices that must be held; None where only attention could tell.
    frames : list of tuple
        Stamp [ns] and camera of every frame.
    """

    row: str
    budget: int
    pinned: int
    answers: int = 0
    tokens: list = field(default_factory=list)
    frames: list = field(default_factory=list)
    held: list[int] | None = None
    video: StreamingVLMReference | None = None

    def __post_init__(self):
        """Find the reference of the policy, if it has one."""
        name, own = POLICIES[self.row]
        if name == 'streaming_vlm':
            self.video = StreamingVLMReference(
                self.budget, self.pinned, own['text_sink'], own['text_window'],
                own['vision_window'])
        if name in ('streaming_llm', 'random', 'recent_frames', 'full', 'streaming_vlm'):
            self.held = []

    @property
    def stamp(self) -> int:
        """Stamp of the newest frame, 0 before the first."""
        return self.frames[-1][0] if self.frames else 0

    def text(self, count: int) -> None:
        """Let words in."""
        self._enter([(TEXT, NO_FRAME, self.stamp)] * count)
        if self.video:
            self.video.text(count)

    def frame(self, kinds: list[int], stamp: int, camera: str) -> None:
        """Let a frame in, of tokens of such kinds."""
        self.frames.append((stamp, camera))
        self._enter([(kind, len(self.frames) - 1, stamp) for kind in kinds])
        if self.video:
            self.video.frame(stamp / 1e9, [kind == VISION for kind in kinds])

    def settle(self) -> bool:
        """Evict as the policy must; tell whether something had to go, as far as is known."""
        if self.held is None:
            return False
        before, kept = self.held, self._keep()
        self.held = kept
        return kept != before

    def _enter(self, tokens: list) -> None:
        if self.held is not None:
            self.held = self.held + list(range(len(self.tokens), len(self.tokens) + len(tokens)))
        self.tokens = self.tokens + tokens

    def _keep(self) -> list[int]:
        name, own = POLICIES[self.row]
        if name == 'streaming_vlm':
            self.video.budget = self.budget
            return self.video.kept(self.stamp / 1e9)
        if name == 'streaming_llm':
            return keep_streaming_llm(self.held, self.budget, self.pinned)
        if name == 'recent_frames':
            starts: dict[int, int] = {}
            for index in self.held:
                if self.tokens[index][1] != NO_FRAME:
                    starts.setdefault(self.tokens[index][1], index)
            return keep_recent_frames(
                self.held, self.budget, self.pinned, own['frames'], starts)
        if name == 'random' and len(self.held) > self.budget:
            recent = min(int(0.25 * self.budget), self.budget - self.pinned)
            first = [index for index in self.held if index < self.pinned]
            past = sorted(self.held[len(first):len(self.held) - recent],
                          key=lambda index: -rank_at_random(index, own['seed']))
            room = self.budget - len(first) - recent
            return sorted([*first, *past[:room], *self.held[len(self.held) - recent:]])
        return self.held
