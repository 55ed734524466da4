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
A slow, independent reference of LiveVLM: one token after the other, in plain Python and float64.

Nothing here is shared with the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
import math

from keepers import Keeper
import numpy as np
from references import Token


@dataclass
class LiveReference(Keeper):
    """LiveVLM's memory: buckets that are filled, and pages that are looked up."""

    recent: float = 0.25
    rows: int = 32
    bucket: int = 1
    sinks_share: float = 0.1
    position: str = 'stream'
    text: float = 0.25
    page: int = 16
    retrieved: float = 0.4

    def feed(self, tokens: list[Token]) -> None:
        """Let a chunk in; the last vision queries of a frame score all vision anew."""
        attention = self.enter(tokens)
        asking = [at for at, token in enumerate(tokens) if token.grid][-self.rows:]
        if not asking:
            return
        for unit in self.units:
            held = self.held[unit]
            vision = [slot for slot, token in enumerate(held) if token.grid]
            scores = dict.fromkeys((held[slot].index for slot in vision), 0.0)
            voters = self.voters(attention, unit)
            for head in voters:
                for row in asking:
                    # of a softmax over all keys, the share among the vision keys is the softmax
                    # over these alone
                    total = sum(head[row, slot] for slot in vision)
                    for slot in vision:
                        scores[held[slot].index] += (
                            head[row, slot] / total / len(asking) / len(voters))
            self.ledger[unit] = scores

    def _parts(self, unit: tuple) -> tuple[list[Token], int]:
        """Tell which tokens are long-term, and how many of these may stay."""
        held = self.held[unit]
        recent = int(self.recent * self.budget if self.recent <= 1 else self.recent)
        recent = min(recent, self.budget - self.pinned)
        old = [token for token in held[:len(held) - recent] if token.index >= self.pinned]
        return old, self.budget - self.pinned - recent

    def must_stay(self, unit: tuple) -> set[int]:
        """Tokens that no score can remove: all but the vision of the long-term memory."""
        old, _ = self._parts(unit)
        free = {token.index for token in old if token.grid}
        return set(self.best(unit)) - free

    def ranks(self, unit: tuple) -> dict[int, float]:
        """S of every held token."""
        return {token.index: self.ledger[unit].get(token.index, 0.0)
                for token in self.held[unit]}

    def best(self, unit: tuple) -> list[int]:
        """Choose what stays by the paper's two phases."""
        held = self.held[unit]
        if len(held) <= self.budget:
            return [token.index for token in held]
        old, room = self._parts(unit)
        words = [token.index for token in old if token.frame is None]
        certain = words[len(words) - min(len(words), int(self.text * room)):]
        vision = [token.index for token in old if token.grid]
        chosen = certain + self.fill(
            vision, self.ledger[unit], room - len(certain), self.pinned, old[-1].index)
        rest = [i for i in words if i not in certain]
        while len(chosen) < room and rest:
            chosen.append(rest.pop())
        around = [token.index for token in old if token.frame is not None and not token.grid]
        while len(chosen) < room:
            chosen.append(around.pop())
        taken = {token.index for token in old} - set(chosen)
        return [token.index for token in held if token.index not in taken]

    def fill(self, vision: list[int], scores: dict[int, float], size: int, first: int, end: int,
             ) -> list[int]:
        """
        Fill N buckets with M = `size` of these tokens, by their stream indices.

        `first` and `end` are the first and the last stream index of the time that is cut.
        """
        count = math.ceil(size / self.bucket)       # N
        room = [self.bucket] * (count + 1)
        if self.position == 'stream':
            places = {index: index - first + 1 for index in vision}
            length = end - first + 1
        else:
            places = {index: at for at, index in enumerate(vision, 1)}
            length = len(vision)
        order = sorted(vision, key=lambda index: (-scores[index], index))
        stay, passed = [], []
        for rank, index in enumerate(order):
            own = -(-places[index] * count // length)    # ceil(p / (L / N)), exactly
            if len(stay) == size:
                break
            if rank < round(self.sinks_share * size) or room[own] > 0:
                room[own] -= 1
                stay.append(index)
            else:
                passed.append(index)
        # what no other stretch of time has a use for
        return stay + passed[:size - len(stay)]

    def ask(self, chunks: list[list[Token]], remember: bool) -> list[np.ndarray]:
        """
        Let a question in, then its answer, token by token; the logits after each of the chunks.

        Each layer sees the pages that the question chose there, whole for as long as it lasts.
        """
        asked, seen, logits = len(self.held[self.units[0]]), {}, []

        def sight(layer, queries):
            if layer not in seen:
                seen[layer] = self.visible(layer, queries)
            return [*seen[layer], *range(asked, len(self.oracle.store[layer][0]))]

        for chunk in chunks:
            self.oracle.feed(chunk, sight)
            logits.append(self.oracle.logits)
        said = [token for chunk in chunks for token in chunk]
        if remember:
            self.held = {unit: held + [
                replace(token, index=self.seen + at) for at, token in enumerate(said)]
                for unit, held in self.held.items()}
            self.seen += len(said)
        else:
            self.oracle.forget(len(said))
        self.visible_slots = seen
        return logits

    def visible(self, layer: int, queries: np.ndarray) -> list[int]:
        """Tell which slots a question sees: queries [queries, heads, D], un-rotated."""
        unit = layer, 0
        old, room = self._parts(unit)
        held = self.held[unit]
        slots = [slot for slot, token in enumerate(held)
                 if token.frame is not None and any(token is one for one in old)]
        pages = [slots[at:at + self.page] for at in range(0, len(slots), self.page)]
        most = math.ceil(self.retrieved * room / self.page)
        total = np.zeros(len(pages))
        for head in range(self.oracle.heads):
            store = self.oracle.store[layer][head * self.oracle.groups // self.oracle.heads]
            means = [np.mean([store[slot][0] for slot in page], 0) for page in pages]
            for query in queries[:, head]:
                weights = np.array([
                    math.exp(query @ mean / math.sqrt(len(query))) for mean in means])
                total += weights / weights.sum()
        lost = {slot for at in np.argsort(-total)[most:] for slot in pages[at]}
        return [slot for slot in range(len(held)) if slot not in lost]
