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
Slow, independent references of the policies: what each paper keeps, in plain Python and float64.

Nothing here is shared with the engine; the attention comes from the decoders of `references`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from references import OneLayer, TinyLlama, Token


def keep_streaming_llm(held: list[int], budget: int, pinned: int) -> list[int]:
    """StreamingLLM: the first `pinned` tokens of the stream and the most recent ones."""
    if len(held) <= budget:
        return held
    first = [i for i in held if i < pinned]
    rest = [i for i in held if i >= pinned]
    return first + rest[len(rest) - (budget - len(first)):]


def keep_recent_frames(
        held: list[int], budget: int, pinned: int, frames: int,
        starts: dict[int, int]) -> list[int]:
    """
    SimpleStream: the newest frames that fit and all that came after the oldest of them.

    `starts` gives the stream index where each held frame begins, by its ordinal.
    """
    if len(held) <= budget and len(starts) <= frames:
        return held
    first = [i for i in held if i < pinned]
    for count in range(min(frames, len(starts)), 0, -1):
        since = sorted(starts.values())[-count]
        kept = first + [i for i in held if i >= since and i >= pinned]
        if len(kept) <= budget:
            return kept
    return keep_streaming_llm(held, budget, pinned)


def rank_at_random(index: int, seed: int, unit: int = 0) -> int:
    """Hash a stream index to 32 bits: Wellons' "lowbias32", three times over."""
    def scatter(x: int) -> int:
        for shift, factor in ((16, 0x21f0aaad), (15, 0xd35a2d97)):
            x = (x ^ (x >> shift)) * factor % 2 ** 32
        return x ^ (x >> 15)
    own = scatter(scatter(unit + 1) ^ seed)
    return scatter(scatter(index % 2 ** 32 ^ own) ^ index // 2 ** 32 ^ seed)


def keep_random(seen: int, budget: int, pinned: int, recent: int, seed: int,
                unit: int = 0) -> list[int]:
    """
    Draw at random, without a stream: everything that was ever seen takes part.

    `unit` counts the lists: 0 if all layers share one.
    """
    if seen <= budget:
        return list(range(seen))
    recent = min(recent, budget - pinned)
    past = sorted(range(pinned, seen - recent), key=lambda i: -rank_at_random(i, seed, unit))
    return sorted([*range(pinned), *past[:budget - pinned - recent],
                   *range(seen - recent, seen)])


# ------------------------------------------------------------------------------- ranks
def column_means(attention: np.ndarray, rows: list[int]) -> list[float | None]:
    """
    S_j = mean of A_ij over the window's queries i that can see key j (i >= j); None if none can.

    Parameters
    ----------
    attention : numpy.ndarray
        One head, [queries, held + queries]: row r is the query of slot held + r.
    rows : list of int
        The window: which rows of `attention` ask.
    """
    count = attention.shape[1]
    first = count - attention.shape[0]
    means = []
    for slot in range(count):
        column = [attention[row, slot] for row in rows if first + row >= slot]
        means.append(sum(column) / len(column) if column else None)
    return means


@dataclass
class Keeper:
    """
    A memory that ranks its tokens, one KV head at a time: who is held, and who must go.

    Fields are those of the policy; `pinned` is the number of first tokens that never leave.
    """

    oracle: TinyLlama | OneLayer
    budget: int
    pinned: int
    recent: float = 0.25
    scope: str = 'layer'
    reduce: str = 'mean'

    def __post_init__(self):
        """Start with an empty memory."""
        self.units = [(layer, group) for layer in range(self.oracle.layers)
                      for group in range(self.oracle.groups)]
        self.held: dict[tuple, list[Token]] = {unit: [] for unit in self.units}
        self.ledger: dict[tuple, dict[int, tuple | float]] = {unit: {} for unit in self.units}
        self.seen = 0

    def enter(self, tokens: list[Token]) -> list[np.ndarray]:
        """Let a chunk in; return each layer's attention, [heads, queries, held + queries]."""
        tokens = [replace(token, index=self.seen + at) for at, token in enumerate(tokens)]
        attention = self.oracle.feed(tokens)
        self.seen += len(tokens)
        for unit in self.units:
            self.held[unit] = self.held[unit] + tokens
        return attention

    def voters(self, per_head: list[list], unit: tuple) -> list:
        """Pick from a value for each [layer][head] those of the heads that choose for a unit."""
        layer, group = unit
        size = self.oracle.heads // self.oracle.groups
        return {
            'head': per_head[layer][group * size:(group + 1) * size],
            'layer': per_head[layer],
            'all': [head for heads in per_head for head in heads],
        }[self.scope]

    def ranks(self, unit: tuple) -> dict[int, float]:
        """Value of every held token, by its stream index."""
        raise NotImplementedError

    def must_stay(self, unit: tuple) -> set[int]:
        """Tokens that no score can remove: the first `pinned` and the most recent."""
        held = [token.index for token in self.held[unit]]
        share = self.recent
        recent = int(share * self.budget) if isinstance(share, float) and share <= 1 else share
        return {i for i in held if i < self.pinned} | set(held[len(held) - int(recent):])

    def best(self, unit: tuple) -> list[int]:
        """Choose what stays by the formula alone."""
        held = [token.index for token in self.held[unit]]
        if len(held) <= self.budget:
            return held
        must, values = self.must_stay(unit), self.ranks(unit)
        free = sorted((i for i in held if i not in must), key=values.get, reverse=True)
        return sorted(must | set(free[:self.budget - len(must)]))

    def evict(self) -> None:
        """Evict by the formula alone."""
        self.settle({unit: self.best(unit) for unit in self.units})

    def judge(self, session) -> None:
        """Compare what a session kept with what the paper allows, and take it over."""
        self.settle({
            (layer, group): session.kept(layer)[group].tolist() for layer, group in self.units})

    def settle(self, kept: dict[tuple, list[int]], tie: float = 1e-6) -> None:
        """
        Judge an eviction and take it over.

        Parameters
        ----------
        kept : dict
            By (layer, KV head), the stream indices that the engine kept.
        tie : float
            Values closer than this (relatively, above 1) are equal: float32 may order them
            either way.
        """
        best = {unit: self.best(unit) for unit in self.units}
        ranks = {unit: self.ranks(unit) for unit in self.units if best[unit] != kept[unit]}
        for unit in self.units:
            held = [token.index for token in self.held[unit]]
            chosen, expected = kept[unit], best[unit]
            if chosen != expected:
                story = f'{unit}: expected {expected}, got {chosen}, held {held}'
                assert len(chosen) == len(expected), story
                assert chosen == sorted(set(chosen) & set(held)), story
                assert self.must_stay(unit) <= set(chosen), story
                values = ranks[unit]
                lost = min(values[i] for i in set(expected) - set(chosen))
                won = max(values[i] for i in set(chosen) - set(expected))
                assert abs(lost - won) <= tie * max(1, abs(lost)), f'{story}: {won}, not {lost}'
            slots = [held.index(i) for i in chosen]
            self.held[unit] = [self.held[unit][slot] for slot in slots]
            self.ledger[unit] = {i: v for i, v in self.ledger[unit].items() if i in set(chosen)}
            self.oracle.keep(*unit, slots)


# ------------------------------------------------------------------------------- Inf-MLLM
@dataclass
class SaddleReference(Keeper):
    """Inf-MLLM's memory: the mean attention of a window, biased against age."""

    bias: float = 0.0
    age: str = 'slot'
    rows: int = 8
    window: str = 'question'
    discount: float = 0.0
    normalise: bool = False

    def feed(self, tokens: list[Token], question: bool = False, score: bool = True) -> None:
        """Let a chunk in, and let its window vote."""
        attention = self.enter(tokens)
        newest = list(range(len(tokens)))[-self.rows:]
        asking = {
            'question': list(range(len(tokens))) if question else newest,
            'chunk': newest,
            'marker': [at for at, token in enumerate(tokens) if token.marker][-1:],  # the newest
            'probe': [],
        }[self.window]
        if score and asking:
            self._vote(attention, asking)

    def probe(self, tokens: list[Token]) -> None:
        """Let a guidance text vote, and forget it."""
        attention = self.oracle.feed(tokens)
        self.oracle.forget(len(tokens))
        self._vote(attention, list(range(len(tokens))))

    def _vote(self, attention: list[np.ndarray], rows: list[int]) -> None:
        per_head = [[column_means(head, rows) for head in layer] for layer in attention]
        for unit in self.units:
            voters, ledger = self.voters(per_head, unit), self.ledger[unit]
            for slot, token in enumerate(self.held[unit]):
                votes = [voter[slot] for voter in voters]
                score, seen = ledger.get(token.index, (0.0, 0.0))
                score, seen = self.discount * score, self.discount * seen
                if votes[0] is not None:  # a query of the window could see it
                    score += np.mean(votes) if self.reduce == 'mean' else max(votes)
                    seen += 1
                ledger[token.index] = (score, seen)

    def ranks(self, unit: tuple) -> dict[int, float]:
        """Value of every held token: normalised score and age bias."""
        held = [token.index for token in self.held[unit]]
        ledger = self.ledger[unit]
        values = []
        for index in held:
            score, seen = ledger.get(index, (0.0, 0.0))
            values.append(score / seen if seen else 0.0)
        if self.normalise and sum(values):
            mean = sum(values) / len(values)
            values = [value / mean for value in values]
        last = len(held) - 1
        for slot, index in enumerate(held):
            if self.age == 'slot':
                values[slot] -= self.bias * (last - slot) / last
            elif self.age == 'stream':
                values[slot] -= self.bias * (held[-1] - index) / (held[-1] - held[0])
            else:
                values[slot] -= self.bias * (last - slot)
        return dict(zip(held, values))


# ------------------------------------------------------------------------------- H2O
@dataclass
class H2OReference(Keeper):
    """H2O's memory: all the attention that a token was ever given, by anyone, added up."""

    recent: float = 0.5
    scope: str = 'head'

    def feed(self, tokens: list[Token]) -> None:
        """Let a chunk in; all of its queries count."""
        attention = self.enter(tokens)
        for unit in self.units:
            ledger = self.ledger[unit]
            for slot, token in enumerate(self.held[unit]):
                given = [sum(row[slot] for row in head)     # rows that cannot see it hold 0
                         for head in self.voters(attention, unit)]
                received = max(given) if self.reduce == 'max' else sum(given) / len(given)
                ledger[token.index] = ledger.get(token.index, 0.0) + received

    def ranks(self, unit: tuple) -> dict[int, float]:
        """Value of every held token: its sum."""
        return self.ledger[unit]


class ReleasedH2O:
    """
    What the authors' code keeps, head by head, from a reading of it; it has no other rule.

    FMInference/H2O at ac75c2a, h2o_hf/utils_real_drop/modify_llama.py: class
    ``H2OKVCache_LayerWise``, methods ``__call__`` and ``_update_hh_score``. After each forward
    pass the attention is summed over its queries and added to what each key had; when more than
    ``hh_size + recent_size`` keys are held, the ``hh_size`` best of those before the last
    ``recent_size`` stay with these, in order, and keep their sums.

    Parameters
    ----------
    heavy, recent : int
        Their ``hh_size`` and ``recent_size``.
    """

    def __init__(self, heavy: int, recent: int):
        self.heavy, self.recent = heavy, recent
        self.sums: np.ndarray | None = None

    def __call__(self, attention: np.ndarray) -> list[list[int]]:
        """Take attention, [heads, queries, keys]; tell which keys each head keeps."""
        heads, _, keys = attention.shape
        received = attention.sum(1)
        if self.sums is not None:
            received[:, :self.sums.shape[1]] += self.sums
        kept = []
        for head in range(heads):
            slots = list(range(keys))
            if keys > self.heavy + self.recent:
                old = slots[:keys - self.recent]
                old = sorted(old, key=lambda slot: -received[head, slot])[:self.heavy]
                slots = sorted(old) + slots[keys - self.recent:]
            kept.append(slots)
        self.sums = np.stack([received[head, slots] for head, slots in enumerate(kept)])
        return kept


def released_streaming_llm(keys: int, start: int, recent: int) -> list[int]:
    """
    Keep of so many keys what StreamingLLM's authors' code keeps, from a reading of it.

    mit-han-lab/streaming-llm at 2e50426, streaming_llm/kv_cache.py: class
    ``StartRecentKVCache``, method ``__call__``.
    """
    if keys <= start + recent:
        return list(range(keys))
    return [*range(start), *range(keys - recent, keys)]
