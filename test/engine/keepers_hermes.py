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
HERMES, slow and independent: the paper's scores in plain Python, token by token.

Nothing here is shared with the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
import math

from keepers import Keeper
import numpy as np
from references import Token


def stretch(values: list[float]) -> list[float]:
    """Map the lowest to 0 and the highest to 1."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


@dataclass
class HermesRule:
    """HERMES' scores; fields as those of the policy."""

    shallow: float = 0.1
    deep: float = 0.3
    weight: float = 0.75
    weight_fall: float = 0.6
    decay: float = 20.0
    decay_end: float = 0.5
    age: str = 'slot'
    normalise: bool = True
    smooth_shallow: float = 0.1
    smooth_middle: float = 0.3
    smooth_deep: float = 0.4
    smoothing: str = 'chain'
    gone: str = 'zero'
    summary: bool = False
    target: float = 1.0

    def layers(self, depth: int) -> tuple[list[int], list[int], list[int]]:
        """Tell which layers are shallow, middle and deep."""
        first, second = round(self.shallow * depth), round((1 - self.deep) * depth)
        return ([*range(first)], [*range(first, second)], [*range(second, depth)])

    def scores(self, held: list[list[int]], guide: list[dict[int, float]], pinned: int,
               ) -> list[dict[int, float]]:
        """
        Score every token that may go.

        Parameters
        ----------
        held : list of list of int
            Stream indices by layer, ascending.
        guide : list of dict
            By layer, the guidance's mean attention on each.
        pinned : int
            So many first tokens of the stream never go.
        """
        shallow, middle, deep = self.layers(len(held))
        alone = []
        for layer, tokens in enumerate(held):
            free = [token for token in tokens if token >= pinned]
            if layer in middle:
                way = middle.index(layer) / (len(middle) - 1) if len(middle) > 1 else 0
                weight = self.weight - self.weight_fall * way
                decay = self.decay * (1 - way) + self.decay_end * way
            else:
                weight, decay = (1, self.decay) if layer in shallow else (0, 0)
            stamps = free if self.age == 'stream' else list(range(len(free)))
            length = stamps[-1] - stamps[0]
            recency = [math.exp(-decay * (stamps[-1] - stamp) / length) for stamp in stamps]
            attention = [guide[layer].get(token, 0.0) for token in free]
            if self.normalise:
                recency, attention = stretch(recency), stretch(attention)
            alone.append({token: weight * new + (1 - weight) * wanted
                          for token, new, wanted in zip(free, recency, attention)})
        smoothed = [dict(scores) for scores in alone]
        for layer in range(len(held) - 2, -1, -1):
            share = (self.smooth_shallow if layer in shallow else
                     self.smooth_middle if layer in middle else self.smooth_deep)
            below = (smoothed if self.smoothing == 'chain' else alone)[layer + 1]
            for token, score in alone[layer].items():
                there = below.get(token, score if self.gone == 'own' else 0.0)
                smoothed[layer][token] = (1 - share) * score + share * there
        return smoothed

    def choose(self, held: list[int], scores: dict[int, float], budget: int, pinned: int,
               merges: bool) -> tuple[list[int], list[int]]:
        """Tell which tokens of one layer stay, and which are merged into the last of them."""
        order = sorted(scores, key=lambda token: -scores[token])
        room = int(self.target * (budget - pinned))
        first = [token for token in held if token < pinned]
        if not merges:
            return sorted(first + order[:room]), []
        best, rest = order[:room - 1], order[room - 1:]
        return sorted([*first, *best, max(rest)]), sorted(rest)


@dataclass
class HermesReference(Keeper):
    """HERMES' memory: each layer with a guide of its own."""

    rule: HermesRule = field(default_factory=HermesRule)

    def __post_init__(self):
        """Start without guidance."""
        super().__post_init__()
        self.guide: list[dict[int, float]] = [{} for _ in range(self.oracle.layers)]

    def probe(self, tokens: list[Token]) -> None:
        """Let the guidance text look, and forget it."""
        for layer, heads in enumerate(self.oracle.feed(tokens)):
            given = [sum(head) / len(head) for head in heads]
            joined = np.max(given, 0) if self.reduce == 'max' else np.mean(given, 0)
            self.guide[layer] = {token.index: joined[slot]
                                 for slot, token in enumerate(self.held[layer, 0])}
        self.oracle.forget(len(tokens))

    def ranks(self, unit: tuple) -> dict[int, float]:
        """Value of every token that may go."""
        held = [[token.index for token in self.held[layer, 0]]
                for layer in range(self.oracle.layers)]
        return self.rule.scores(held, self.guide, self.pinned)[unit[0]]

    def must_stay(self, unit: tuple) -> set[int]:
        """Tokens that no score can remove: the first ones."""
        return {token.index for token in self.held[unit] if token.index < self.pinned}

    def best(self, unit: tuple) -> list[int]:
        """Choose what stays by the formulas alone."""
        return self._choose(unit)[0]

    def settle(self, kept: dict[tuple, list[int]], tie: float = 1e-5) -> None:
        """Judge an eviction, merge what leaves, and take it over."""
        merged = {unit: self._choose(unit)[1] for unit in self.units}
        for (layer, group), leaving in merged.items():
            if leaving:
                store = self.oracle.store[layer][group]
                slots = [slot for slot, token in enumerate(self.held[layer, group])
                         if token.index in leaving]
                store[slots[-1]] = (np.mean([store[slot][0] for slot in slots], 0),
                                    np.mean([store[slot][1] for slot in slots], 0),
                                    store[slots[-1]][2])
        super().settle(kept, tie)

    def _choose(self, unit: tuple) -> tuple[list[int], list[int]]:
        held = [token.index for token in self.held[unit]]
        if len(held) <= self.budget:
            return held, []
        deep = unit[0] in self.rule.layers(self.oracle.layers)[2]
        return self.rule.choose(held, self.ranks(unit), self.budget, self.pinned,
                                self.rule.summary and deep)
