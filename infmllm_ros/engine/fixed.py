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
A pass whose shapes and addresses are the same however many tokens are held: what a graph records.

Where the chunk goes and how it is turned are numbers in tensors; every slot is attended to, and
those that hold nothing, or a later token, are hidden. Outcomes are those of a plain
:class:`~infmllm_ros.engine.attention.Pass`, as near as any two kernels' are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from .attention import grouped, Pass
from .blocks import attend_in_blocks
from .cache import StreamCache
from .store import KVLayer


class Place(NamedTuple):
    """
    Where a ledger puts a chunk.

    Parameters
    ----------
    new : torch.Tensor
        int64 [q]: its slots.
    rotation : list of tuple of torch.Tensor
        cos and sin of each table, [G|1, q, R].
    """

    new: torch.Tensor
    rotation: list[tuple[torch.Tensor, torch.Tensor]]


def places(cache: StreamCache) -> list[Place]:
    """List where the chunk that a cache has begun goes, one of each ledger."""
    return [Place(torch.arange(slots.count, slots.count + slots.pending, device=cache.device),
                  slots.rotation) for slots in cache.ledgers]


@contextmanager
def fixed(cache: StreamCache, where: Sequence[Place]) -> Iterator[None]:
    """Let layers write the chunk where tensors say, and show all their slots."""
    for slots, place in zip(cache.ledgers, where, strict=True):
        slots.fixed = place
    try:
        yield
    finally:
        for slots in cache.ledgers:
            slots.fixed = None


def can_be_fixed(cache: StreamCache) -> bool:
    """Tell whether a cache lies on one device, whole, its rotated keys at hand."""
    here = cache.memory[0].meta.device      # 'cuda:0', where that of the model may be 'cuda'
    return cache.ranks.size == 1 and all(
        layer.device == here and (not isinstance(layer, KVLayer) or layer.lasting)
        for layer in cache.own.values())


class FixedPass(Pass):
    """A pass inside :func:`fixed`: parameters as of :class:`Pass`, but no glance nor `among`."""

    @classmethod
    def suits(cls, stream: Pass, queries: int) -> bool:
        """Tell whether a pass of so many queries can be fixed."""
        cache, sparse = stream.cache, stream.sparse
        # what begins a state is not what goes on from one
        begun = all(layer.has_previous_state[0] for layer in cache.states)
        return (begun and stream.glance is None and (stream.among is None or stream.rows is None)
                and not (sparse and any(
                    sparse.suits(queries, slots.count + queries) for slots in cache.slots)))

    def attend(self, module: nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, scaling: float | None) -> torch.Tensor:
        """Attend to every slot that holds what the queries see; as :meth:`Pass.attend`."""
        layer = self.cache.layers[module.layer_idx]
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        query, (key, value) = layer.rotate_query(query), layer.show()
        seen, hidden = self._seen(layer)
        slots, queries = None if layer.is_sliding else layer.slots, query.shape[2]
        asked = slots is not None and self.rows is not None
        if queries == 1 or asked and len(self.rows) == queries:
            return self._reading(slots, query, *key.shape[1:3], lambda rows, *sums: (
                attend_in_blocks(query, key, value, scaling, None, hidden, None, *sums, False)))
        if asked:
            slots.add_window(self._probabilities(
                query[:, :, self.rows], key, scaling, None, hidden[self.rows]).sum(2))
        if slots is not None and self.evidence:
            slots.add_evidence(self._probabilities(
                query[:, :, -1:], key, scaling, None, hidden[-1:]).squeeze(2))
        key, value, options = grouped(query, key, value, scaling)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, **options).transpose(1, 2)

    def _seen(self, layer: KVLayer) -> tuple[torch.Tensor, torch.Tensor]:
        """Tell what queries see, as :meth:`Pass._mask`, and what not: bool [q, capacity] each."""
        slots, window = layer.slots, layer.window
        if (slots, window) not in self._masks:
            place, column = slots.fixed.new, torch.arange(slots.capacity, device=self.cache.device)
            last = self._last(place - place[0], place[0], self.ahead if window else self.far)
            seen = (column <= last[:, None]) & (
                place[:, None] - column < (window or slots.capacity))
            self._masks[slots, window] = seen, ~seen
        return self._masks[slots, window]
