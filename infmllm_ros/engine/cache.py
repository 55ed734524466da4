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

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from .chunk import Chunk, Content
from .errors import ModelError
from .layers import layer_specs, StateLayer
from .parallel import ALONE
from .positions import FRAME, INDEX, ledger, Mark, NO_FRAME, Slots
from .rope import RopeMap, rotate


@dataclass
class CacheMark:
    """A moment of the whole cache to roll back to; valid until the next eviction."""

    seen: int
    evicted: int
    ledgers: list[Mark]
    states: list[tuple[bool, list[torch.Tensor]]]


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
    window : int
        How many tokens a query sees, itself included; 0: all that are held.
    """

    is_compileable = False
    is_croppable = False

    def __init__(self, slots: Slots, heads: int, size: int, kind: str, table: int,
                 dtype: torch.dtype, device: torch.device, window: int = 0) -> None:
        super().__init__()
        self.slots, self.kind, self.table, self.window = slots, kind, table, window
        self.is_sliding = window > 0
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
            Rotated keys and values, views of the buffers: [1, Hkv, n + q, D], or of the last
            window - 1 + q tokens, where the others are beyond every query's window.
        """
        new = slice(self.slots.count, self.slots.count + key.shape[2])
        self.master[:, :, new] = key
        self.values[:, :, new] = value
        rotate(key, *self.slots.turn(self.table, self.device), self.kind, out=self.keys[:, :, new])
        first = max(0, new.start + 1 - self.window) if self.window else 0
        return self.keys[:, :, first:new.stop], self.values[:, :, first:new.stop]

    def rotate_query(self, query: torch.Tensor,
                     turn: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """Rotate queries [1, H, q, D]: to the positions of the chunk's keys, or by cos and sin."""
        cos, sin = turn or self.slots.turn(self.table, query.device)
        if cos.shape[0] > 1:        # each KV head has its own positions
            repeats = query.shape[1] // cos.shape[0]
            cos, sin = cos.repeat_interleave(repeats, 0), sin.repeat_interleave(repeats, 0)
        return rotate(query, cos, sin, self.kind)

    def rotate_held(self, rotation: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Derive the working copy of all held keys from the master."""
        held = slice(0, self.slots.count)
        turn = (part.to(self.device) for part in rotation[self.table])
        rotate(self.master[:, :, held], *turn, self.kind, out=self.keys[:, :, held])

    def compact(self, keep: torch.Tensor) -> None:
        """Move the kept tokens to the front; `keep` is int64 [G, m], ascending in each row."""
        _, heads, capacity, size = self.master.shape
        keep = keep.to(self.device)
        offset = torch.arange(heads, device=keep.device)[:, None] * capacity
        # one flat index_select is an order of magnitude faster than gather on a CPU
        flat = (keep + offset).flatten()
        for buffer in (self.master, self.values):
            moved = buffer.view(heads * capacity, size).index_select(0, flat)
            buffer[0, :, :keep.shape[1]] = moved.view(heads, -1, size)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Name what is held, as it is written to a file: views of masters and values."""
        held = slice(0, self.slots.count)
        return {'keys': self.master[:, :, held], 'values': self.values[:, :, held]}

    def nbytes(self) -> int:
        """Count the bytes of the buffers."""
        return 3 * self.master.numel() * self.master.element_size()

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
        Slots of a layer that the policy bounds: the budget and the headroom above it.
    headroom : int
        The headroom alone; a sliding layer has it above its window.
    extent : int
        The most positions that one frame spans (M-RoPE).
    scope : str
        Who selects together: 'head', 'layer' or 'all'.
    channels, reduce
        See :class:`~infmllm_ros.engine.positions.Slots`.
    dtype
        Of keys and values, which lie where their layer computes.
    device
        Of the ledgers.

    Attributes
    ----------
    slots : list of Slots
        The ledgers of the selection groups: of the layers that the policy bounds, the full ones.
    windows : dict of int to Slots
        The ledger of the sliding layers of each window; they keep its last tokens by themselves.
    memory : list of Slots
        What counts as the memory: `slots`, or the windows of a model that has nothing else.
    ledgers : list of Slots
        All of them.
    layers : list of KVLayer or StateLayer
        One for each of the model's; layers that read an earlier one's keys share its entry.
    own : dict of int to KVLayer or StateLayer
        Those that keep something, each once, by number.
    full : list of KVLayer
        Those that the policy bounds.
    states : list of StateLayer
    seen, evicted : int
        Tokens since the start, and those of them that left the memory.
    """

    def __init__(self, config: Any, rope: RopeMap, capacity: int, headroom: int, extent: int,
                 scope: str, channels: int, reduce: str, dtype: torch.dtype,
                 device: torch.device) -> None:
        ranks = rope.ranks
        specs = layer_specs(config, ranks.size)
        bounded = {number: spec for number, spec in enumerate(specs) if spec.full}
        # whoever attends to what a layer keeps has a say in it
        readers = Counter(number if spec.source is None else spec.source
                          for number, spec in enumerate(specs))

        def slots(groups: int, layers: int) -> Slots:
            return Slots(groups, capacity, layers, rope, capacity + extent, dtype, device,
                         channels, reduce, ALONE if scope == 'head' else ranks)

        if scope == 'all':
            self.slots = [slots(1, sum(map(readers.get, bounded)))] if bounded else []
        else:
            self.slots = [slots(spec.heads if scope == 'head' else 1, readers[number])
                          for number, spec in bounded.items()]
        self.windows = {}
        for window in sorted({spec.window for spec in specs if spec.window}):
            room = window - 1 + headroom
            self.windows[window] = Slots(
                1, room, 1, rope, room + extent, dtype, device, 0, reduce, whole=True)
        groups = iter(self.slots * len(bounded) if scope == 'all' else self.slots)
        layers: list[KVLayer | StateLayer] = []
        for number, spec in enumerate(specs):
            if spec.source is not None:
                layers.append(layers[spec.source])
                continue
            place = rope.places[number]
            if not spec.heads:
                layers.append(StateLayer(spec, dtype, place))
                continue
            layers.append(KVLayer(
                self.windows[spec.window] if spec.window else next(groups), spec.heads, spec.size,
                rope.layers[number].kind, rope.layers[number].table, dtype, place, spec.window))
        super().__init__(layers=layers)
        self.own = {number: layer for number, layer in enumerate(layers)
                    if specs[number].source is None}
        self.states = [layer for layer in layers if isinstance(layer, StateLayer)]
        self.full = [layers[number] for number in bounded]
        self.ledgers = [*self.slots, *self.windows.values()]
        self.memory = self.slots or self.ledgers
        self.mrope, self.device, self.ranks = rope.mrope, device, ranks
        self.seen = self.evicted = 0
        self._before: list | None = None        # the states before a pass that may not count

    @property
    def count(self) -> int:
        """Tokens in the fullest layer that the policy bounds."""
        return max(slots.count for slots in self.memory)

    def nbytes(self) -> int:
        """Bytes of every buffer; constant from the first moment."""
        ledgers = [t for s in self.ledgers for t in (s.meta, s.state, s.window, s.evidence)]
        return (sum(layer.nbytes() for layer in self.own.values())
                + sum(t.numel() * t.element_size() for t in ledgers))

    def kept(self, layer: int) -> torch.Tensor:
        """
        Give the stream indices of the tokens that a layer holds.

        Parameters
        ----------
        layer : int
            Of the model; one of sliding attention holds the last tokens of the stream, and one
            that reads an earlier layer's keys what that one holds.

        Returns
        -------
        torch.Tensor
            int64 [KV heads, n], ascending.

        Raises
        ------
        ModelError
            If the layer keeps a state instead of tokens.
        """
        kept = self.layers[layer]
        if isinstance(kept, StateLayer):
            others = [n for n, one in enumerate(self.layers) if isinstance(one, KVLayer)]
            raise ModelError(
                f'layer {layer} keeps a state of constant size, not tokens: ask a layer of '
                f'{others}')
        return kept.slots.held(INDEX).expand(kept.keys.shape[1], -1).clone()

    def frames(self) -> list[int]:
        """List the ordinals of the frames of which the memory holds a token, ascending."""
        found = torch.cat([slots.held(FRAME).flatten().unique() for slots in self.memory])
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
        return self.ranks.mean(weights)

    def begin(self, chunk: Chunk, frame: torch.Tensor, stamp: torch.Tensor, windowed: bool,
              ) -> None:
        """Prepare every ledger for a chunk; nothing counts as held before :meth:`commit`."""
        self._before = [layer.mark() for layer in self.states]
        meta = ledger(chunk, self.seen, frame, stamp, self.mrope).to(self.device)
        # LongRoPE's frequencies follow the length of the whole memory, in sliding layers too
        end = max(slots.count for slots in self.ledgers) + len(chunk)
        for slots in self.ledgers:
            if windowed:
                slots.window.zero_()
            if slots.begin(meta, end):
                self._rotate(slots, slots.repack())

    def commit(self) -> None:
        """Count the chunk as held."""
        self.seen += self.ledgers[0].pending
        self._before = None
        for slots in self.ledgers:
            slots.commit()

    def end(self) -> None:
        """End a pass: without :meth:`commit`, put the states back that it wrote in place."""
        if self._before is not None:
            for layer, mark in zip(self.states, self._before, strict=True):
                layer.rollback(mark)
            self._before = None

    def compact(self, slots: Slots, keep: torch.Tensor) -> None:
        """Evict from one ledger's layers all but `keep`: int64 [G, m], ascending in each row."""
        if keep.shape[1] == slots.count:
            return
        for layer in self._layers(slots):
            layer.compact(keep)
        self.evicted += slots.count - keep.shape[1] if slots is self.memory[0] else 0
        slots.compact(keep)
        self._rotate(slots, slots.repack())

    def trim(self) -> None:
        """Leave each sliding layer the last window - 1 tokens: what the next token will see."""
        for window, slots in self.windows.items():
            first = max(0, slots.count + 1 - window)
            self.compact(slots, torch.arange(first, slots.count, device=self.device)[None])

    def contents(self, slots: Slots) -> list[Content]:
        """List what each layer of a selection group holds, as views of the buffers."""
        return [Content(number, *(t[0, :, :slots.count].to(self.device)
                                  for t in (layer.master, layer.keys, layer.values)))
                for number, layer in enumerate(self.full) if layer.slots is slots]

    def mark(self) -> CacheMark:
        """Remember this moment; valid until the next eviction."""
        return CacheMark(self.seen, self.evicted, [slots.mark() for slots in self.ledgers],
                         [layer.mark() for layer in self.states])

    def rollback(self, mark: CacheMark) -> None:
        """Return to a marked moment, bit for bit."""
        self.seen, self.evicted = mark.seen, mark.evicted
        for part, own in zip([*self.ledgers, *self.states],
                             [*mark.ledgers, *mark.states], strict=True):
            part.rollback(own)

    def clear(self) -> None:
        """Forget every token."""
        self.seen = self.evicted = 0
        for slots in self.ledgers:
            slots.clear()
        for layer in self.states:
            layer.reset()

    def derive(self) -> None:
        """Derive what follows from the masters and ledgers: positions and the working copies."""
        for slots in self.ledgers:
            self._rotate(slots, slots.repack())

    def restored(self) -> None:
        """Derive what follows from masters, ledgers and states, after they were loaded."""
        self.derive()
        for layer in self.states:
            layer.has_previous_state[0] = self.seen > 0

    def _layers(self, slots: Slots) -> list[KVLayer]:
        return [layer for layer in self.own.values()
                if isinstance(layer, KVLayer) and layer.slots is slots]

    def _rotate(self, slots: Slots, rotation: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for layer in self._layers(slots):
            layer.rotate_held(rotation)
