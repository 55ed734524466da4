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
The KV cache of fixed size.

Each layer keeps its keys twice: un-rotated, as the master, and rotated at contiguous in-cache
positions, as the working copy that attention reads. After an eviction the working copy is derived
afresh from the master, so nothing ever drifts, however often tokens move.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, get_layer_types_and_kwargs

from .chunk import Content
from .errors import ModelError
from .positions import FRAME, ledger, Mark, NO_FRAME, Slots
from .rope import RopeMap, rotate

SCOPES = ('head', 'layer', 'all')


def kv_shapes(config: Any) -> list[tuple[int, int]]:
    """
    KV heads and head size of every layer, from a text config.

    Raises
    ------
    ModelError
        If a layer is not plain full attention.
    """
    types, _ = get_layer_types_and_kwargs(config)
    for number, kind in enumerate(types):
        if kind != 'full_attention':
            raise ModelError(
                f'layer {number} of {config.model_type} is {kind!r}: only full_attention layers '
                'are supported')
    heads = config.num_attention_heads
    size = getattr(config, 'head_dim', None) or config.hidden_size // heads
    return [(getattr(config, 'num_key_value_heads', None) or heads, size)] * len(types)


class KVLayer(CacheLayerMixin):
    """
    Keys and values of one attention layer, in buffers allocated once.

    Parameters
    ----------
    slots : Slots
        The ledger, shared with the other layers of the selection group.
    heads, size : int
        KV heads and channels of a head.
    kind : str
        Pairing of channels, see :func:`~infmllm_ros.engine.rope.rotate`.
    table : int
        Which cos/sin table.
    dtype : torch.dtype
    device : torch.device
    """

    is_compileable = False
    is_croppable = False
    is_sliding = False

    def __init__(self, slots: Slots, heads: int, size: int, kind: str, table: int,
                 dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.slots, self.kind, self.table = slots, kind, table
        # not zeroed: on a CPU, pages that are never written cost no memory
        shape = (1, heads, slots.capacity, size)
        self.master = torch.empty(shape, dtype=dtype, device=device)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.dtype, self.device, self.is_initialized = dtype, device, True

    def update(self, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any,
               ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Write the chunk's un-rotated keys and its values; return all that the chunk may attend to.

        Parameters
        ----------
        key, value : torch.Tensor
            [1, Hkv, q, D].

        Returns
        -------
        tuple of torch.Tensor
            Rotated keys and values, views of the buffers: [1, Hkv, n + q, D].
        """
        first = self.slots.count
        new = slice(first, first + key.shape[2])
        self.master[:, :, new] = key
        self.values[:, :, new] = value
        cos, sin = self.slots.rotation[self.table]
        rotate(key, cos, sin, self.kind, out=self.keys[:, :, new])
        return self.keys[:, :, :new.stop], self.values[:, :, :new.stop]

    def rotate_query(self, query: torch.Tensor,
                     turn: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """Rotate queries [1, H, q, D]: to the positions of the chunk's keys, or by cos and sin."""
        cos, sin = turn or self.slots.rotation[self.table]
        if cos.shape[0] > 1:        # each KV head has its own positions
            repeats = query.shape[1] // cos.shape[0]
            cos, sin = cos.repeat_interleave(repeats, 0), sin.repeat_interleave(repeats, 0)
        return rotate(query, cos, sin, self.kind)

    def rotate_held(self, rotation: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Derive the working copy of all held keys from the master."""
        held = slice(0, self.slots.count)
        rotate(self.master[:, :, held], *rotation[self.table], self.kind,
               out=self.keys[:, :, held])

    def compact(self, keep: torch.Tensor) -> None:
        """Move the kept tokens to the front; `keep` is int64 [G, m], ascending in each row."""
        _, heads, capacity, size = self.master.shape
        offset = torch.arange(heads, device=keep.device)[:, None] * capacity
        # one flat index_select is an order of magnitude faster than gather on a CPU
        flat = (keep + offset).flatten()
        for buffer in (self.master, self.values):
            moved = buffer.view(heads * capacity, size).index_select(0, flat)
            buffer[0, :, :keep.shape[1]] = moved.view(heads, -1, size)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the buffers exist from the start."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Say how many keys a query sees, and where they begin (transformers asks)."""
        return self.slots.count + query_length, 0

    def get_seq_length(self) -> int:
        """Count the held tokens."""
        return self.slots.count

    def get_max_length(self) -> int:
        """Count the slots."""
        return self.slots.capacity


class StreamCache(Cache):
    """
    The bounded cache of a whole model: its layers and their ledgers.

    Parameters
    ----------
    config
        The text config of the model.
    rope : RopeMap
    capacity : int
        Slots per layer: the budget and the headroom above it.
    extent : int
        The most positions that one frame spans (M-RoPE).
    scope : str
        Who selects together: 'head', 'layer' or 'all'.
    channels, reduce
        See :class:`~infmllm_ros.engine.positions.Slots`.
    dtype, device
        Of keys and values.
    """

    def __init__(self, config: Any, rope: RopeMap, capacity: int, extent: int, scope: str,
                 channels: int, reduce: str, dtype: torch.dtype, device: torch.device) -> None:
        shapes = kv_shapes(config)

        def slots(groups: int, layers: int) -> Slots:
            return Slots(groups, capacity, layers, rope, capacity + extent, dtype, device,
                         channels, reduce)

        if scope == 'all':
            self.slots = [slots(1, len(shapes))]
        else:
            self.slots = [slots(heads if scope == 'head' else 1, 1) for heads, _ in shapes]
        super().__init__(layers=[
            KVLayer(self.slots[number % len(self.slots)], heads, size, rope.layers[number].kind,
                    rope.layers[number].table, dtype, device)
            for number, (heads, size) in enumerate(shapes)])
        self.capacity, self.mrope = capacity, rope.mrope
        self.seen = self.evicted = 0

    @property
    def count(self) -> int:
        """Tokens in the fullest layer."""
        return max(slots.count for slots in self.slots)

    def nbytes(self) -> int:
        """Bytes of every buffer; constant from the first moment."""
        tensors = [t for layer in self.layers for t in (layer.master, layer.keys, layer.values)]
        tensors += [t for s in self.slots for t in (s.meta, s.state, s.window, s.evidence)]
        return sum(t.numel() * t.element_size() for t in tensors)

    def frames(self) -> list[int]:
        """List the ordinals of the frames of which some layer holds a token, ascending."""
        found = torch.cat([slots.held(FRAME).flatten().unique() for slots in self.slots])
        return [number for number in found.unique().tolist() if number != NO_FRAME]

    def attention_by_frame(self) -> dict[int, float]:
        """Sum the evidence of each retained frame, averaged over the selection groups."""
        weights: dict[int, float] = {}
        for slots in self.slots:
            frames, place = slots.held(FRAME).unique(return_inverse=True)
            share = torch.zeros(len(frames), device=frames.device).index_add_(
                0, place.flatten(), slots.evidence[:, :slots.count].flatten())
            share /= slots.groups * len(self.slots)
            for frame, value in zip(frames.tolist(), share.tolist(), strict=True):
                weights[frame] = weights.get(frame, 0.0) + value
        weights.pop(NO_FRAME, None)
        return weights

    def begin(self, chunk: Any, frame: int, stamp: int, windowed: bool) -> None:
        """Prepare every ledger for a chunk; nothing counts as held before :meth:`commit`."""
        meta = ledger(chunk, self.seen, frame, stamp, self.mrope).to(self.slots[0].meta.device)
        for slots in self.slots:
            if windowed:
                slots.window.zero_()
            if slots.begin(meta):
                self._rotate(slots, slots.repack())

    def commit(self) -> None:
        """Count the chunk as held."""
        for slots in self.slots:
            self.seen += slots.pending if slots is self.slots[0] else 0
            slots.commit()

    def compact(self, slots: Slots, keep: torch.Tensor) -> None:
        """Evict from one selection group all but `keep`: int64 [G, m], ascending in each row."""
        if keep.shape[1] == slots.count:
            return
        for layer in self.layers:
            if layer.slots is slots:
                layer.compact(keep)
        self.evicted += slots.count - keep.shape[1] if slots is self.slots[0] else 0
        slots.compact(keep)
        self._rotate(slots, slots.repack())

    def contents(self, slots: Slots) -> list[Content]:
        """List what each layer of a selection group holds, as views of the buffers."""
        return [Content(number, *(t[0, :, :slots.count]
                                  for t in (layer.master, layer.keys, layer.values)))
                for number, layer in enumerate(self.layers) if layer.slots is slots]

    def mark(self) -> tuple[int, int, list[Mark]]:
        """Remember this moment; valid until the next eviction."""
        return self.seen, self.evicted, [slots.mark() for slots in self.slots]

    def rollback(self, mark: tuple[int, int, list[Mark]]) -> None:
        """Return to a marked moment, bit for bit."""
        self.seen, self.evicted, marks = mark
        for slots, moment in zip(self.slots, marks, strict=True):
            slots.rollback(moment)

    def clear(self) -> None:
        """Forget every token."""
        self.seen = self.evicted = 0
        for slots in self.slots:
            slots.clear()

    def derive(self) -> None:
        """Derive what follows from the masters and ledgers: positions and the working copies."""
        for slots in self.slots:
            self._rotate(slots, slots.repack())

    def _rotate(self, slots: Slots, rotation: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for layer in self.layers:
            if layer.slots is slots:
                layer.rotate_held(rotation)
