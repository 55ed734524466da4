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
import math

from keepers import Keeper
import numpy as np
from references import Token


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


@dataclass
class InfiniPotReference(Keeper):
    """InfiniPot-V's memory: pairs of patches, compared one by one; neighbours, looked for anew."""

    recent: float = 0.25
    scope: str = 'head'
    target: float = 0.75
    tar: float = 0.5
    keys: str = 'rotated'
    pooling: str = 'layers'
    text: str = 'stay'

    def feed(self, tokens: list[Token]) -> None:
        """Let a chunk in."""
        self.enter(tokens)

    def must_stay(self, unit: tuple) -> set[int]:
        """Tokens that no score can remove: the first `pinned` and the most recent."""
        held = [token.index for token in self.held[unit]]
        recent = int(self.recent * (self.budget - self.pinned))
        return {i for i in held if i < self.pinned} | set(held[len(held) - recent:])

    def ranks(self, unit: tuple) -> dict[int, float]:
        """Value norm of every held token: in layer 0 the same word has the same, to a hair."""
        _, norms = self.scores(unit, [])
        return {token.index: norm for token, norm in zip(self.held[unit], norms)}

    def best(self, unit: tuple) -> list[int]:
        """Choose what stays by the formulas alone."""
        tokens = self.held[unit]
        if len(tokens) <= self.budget:
            return [token.index for token in tokens]
        limit = self.budget - self.pinned               # |M|
        size = int(self.target * limit)                 # |C|
        recent = int(self.recent * limit)
        last = range(len(tokens) - recent, len(tokens))
        old = [at for at in range(len(tokens) - recent) if tokens[at].index >= self.pinned]
        redundancy, norms = self.scores(unit, list(last))
        for at, token in enumerate(tokens):
            if token.frame is None and self.text == 'stay':
                norms[at] = 1e6 + at
            if token.grid is None:
                redundancy[at] = math.inf
        share = round((1 - self.tar) * size)            # of VaN
        novel = sorted(old, key=lambda at: (redundancy[at], -at))[:max(0, size - share - recent)]
        large = sorted(set(old) - set(novel), key=lambda at: -norms[at])
        chosen = {*novel, *large[:size - recent - len(novel)], *last}
        return [token.index for at, token in enumerate(tokens)
                if at in chosen or token.index < self.pinned]

    def scores(self, unit: tuple, last: list[int]) -> tuple[list[float], list[float]]:
        """Work out redundancy and value norm of each token held by a unit, joined as `scope`."""
        units = [other for other in self.units if {
            'head': other == unit, 'layer': other[0] == unit[0], 'all': True}[self.scope]]
        pairs = [(self._redundancy(other, last), self._pooled(other)) for other in units]
        return tuple(list(np.mean(kind, 0)) for kind in zip(*pairs))

    def _redundancy(self, unit: tuple, last: list[int]) -> list[float]:
        tokens, store = self.held[unit], self.oracle.store[unit[0]][unit[1]]
        keys = [key for key, _, _ in store]
        if self.keys == 'rotated':
            keys = self.oracle._rotate(np.stack(keys), self.oracle._places(tokens))
        out = []
        for token, key in zip(tokens, keys):
            alike = [key @ keys[at] / np.linalg.norm(key) / np.linalg.norm(keys[at])
                     for at in last
                     if token.grid and tokens[at].grid and tokens[at].grid[:2] == token.grid[:2]]
            out.append(float(np.mean(alike)) if alike else 0.0)
        return out

    def _pooled(self, unit: tuple) -> list[float]:
        layer, tokens = unit[0], self.held[unit]
        norms = np.array([np.linalg.norm(v) for _, v, _ in self.oracle.store[layer][unit[1]]])
        norms = norms / norms.mean()
        quarter = min(3, layer // max(1, self.oracle.layers // 4))
        if self.pooling == 'none' or quarter == 3:
            return list(norms)
        # frames, rows and columns that some head of those which share the ledger still holds
        heads = [(layer, group) for group in range(self.oracle.groups)]
        vision = [token for other in (heads if self.scope == 'head' else [unit])
                  for token in self.held[other] if token.grid]
        frames = sorted({token.frame for token in vision})
        sides = [len(frames), max((t.grid[0] + 1 for t in vision), default=1),
                 max((t.grid[1] + 1 for t in vision), default=1)]
        width = min([7, 5, 3][quarter], *sides[quarter:]) if quarter < 2 else 3
        reach = (width - 1) // 2

        def near(one: int, other: int) -> bool:
            a, b = tokens[one], tokens[other]
            if quarter == 2:
                return abs(one - other) <= reach
            apart = frames.index(a.frame) - frames.index(b.frame)
            return abs(apart) <= (reach if quarter == 0 else 0) and all(
                abs(a.grid[axis] - b.grid[axis]) <= reach for axis in (0, 1))

        seen = [at for at, token in enumerate(tokens) if token.grid]
        return [float(np.mean([norms[other] for other in seen if near(at, other)]))
                if token.grid else float(norms[at]) for at, token in enumerate(tokens)]
