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

"""The unit of prefill: a few tokens of the stream, with what the memory must know about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import accumulate
from typing import Protocol

import torch

from .features import Features, join_features


class Kind(IntEnum):
    """What a token is."""

    TEXT = 0
    VISION = 1
    MARKER = 2  # a model's own status token: the query window of `window='marker'`


@dataclass(frozen=True)
class Span:
    """``rows * cols`` consecutive vision tokens from ``ids[start]``: one frame's merged grid."""

    start: int
    rows: int
    cols: int

    @property
    def extent(self) -> int:
        """Positions the whole grid spans along its longer axis (M-RoPE)."""
        return max(self.rows, self.cols)


@dataclass
class Chunk:
    """
    Tokens that enter the cache in one forward pass.

    Parameters
    ----------
    ids : torch.Tensor
        Token ids, int64 [q].
    spans : tuple of Span
        Which of them are vision tokens.
    markers : tuple of int
        Places in `ids` of the model's status tokens.
    features : Features, optional
        Vision features for the placeholders: the model's ``mm_encoder_outputs``.
    """

    ids: torch.Tensor
    spans: tuple[Span, ...] = ()
    markers: tuple[int, ...] = ()
    features: Features | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Count the tokens."""
        return self.ids.shape[0]


def both_ways(chunk: Chunk, device: torch.device) -> torch.Tensor | None:
    """Give the last place that each token sees where frames see all of themselves: int64 [q]."""
    last = torch.arange(len(chunk), device=device)
    for span in chunk.spans:
        end = span.start + span.rows * span.cols
        last[span.start:end] = end - 1
    return last if chunk.spans else None


def join(chunks: Sequence[Chunk]) -> Chunk:
    """Put frames that follow each other into one chunk."""
    if len(chunks) == 1:
        return chunks[0]
    starts = list(accumulate(map(len, chunks), initial=0))
    return Chunk(
        torch.cat([chunk.ids for chunk in chunks]),
        tuple(replace(span, start=start + span.start)
              for start, chunk in zip(starts, chunks, strict=False) for span in chunk.spans),
        tuple(start + place
              for start, chunk in zip(starts, chunks, strict=False) for place in chunk.markers),
        join_features([chunk.features for chunk in chunks]))


class Store(Protocol):
    """Where a layer's keys and values lie: what is given is [1, Hkv, n, D]."""

    device: torch.device

    def plain(self, part: slice) -> torch.Tensor:
        """Give the un-rotated keys of some slots."""

    def rotated(self) -> torch.Tensor:
        """Give the held keys, rotated."""

    def valued(self, part: slice) -> torch.Tensor:
        """Give the values of some slots."""

    def put(self, part: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write un-rotated keys and values, [1, Hkv, n, D], into some slots."""


@dataclass(frozen=True)
class Content:
    """
    What one layer holds, read from its store when it is asked for; [Hkv, n, D] each.

    `layer` counts the full-attention layers only.
    """

    layer: int
    store: Store = field(repr=False)
    count: int
    device: torch.device

    @property
    def plain(self) -> torch.Tensor:
        """Read the un-rotated keys."""
        return self.store.plain(slice(0, self.count))[0].to(self.device)

    @property
    def keys(self) -> torch.Tensor:
        """Read the rotated keys."""
        return self.store.rotated()[0].to(self.device)

    @property
    def values(self) -> torch.Tensor:
        """Read the values."""
        return self.store.valued(slice(0, self.count))[0].to(self.device)

    def put(self, slots: torch.Tensor, plain: torch.Tensor, values: torch.Tensor) -> None:
        """Write un-rotated keys and values, [Hkv, n, D], into slots, int64 [n]."""
        self.store.put(*(part.to(self.store.device)
                         for part in (slots, plain[None], values[None])))
