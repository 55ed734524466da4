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
The KV cache of fixed size: the layers of a model and their ledgers.

How a layer's keys and values lie in memory is the matter of `store`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

from .chunk import Chunk, Content
from .errors import ModelError
from .layers import layer_specs, StateLayer
from .layouts import LAYOUTS
from .parallel import ALONE
from .positions import FRAME, INDEX, ledger, Mark, NO_FRAME, Slots
from .rope import RopeMap
from .store import KVLayer, Scratch


@dataclass
class CacheMark:
    """A moment of the whole cache to roll back to; valid until the next eviction."""

    seen: int
    evicted: int
    ledgers: list[Mark]
    states: list[tuple[bool, list[torch.Tensor]]]


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
    layout : str
        One of `LAYOUTS`: how keys and values lie.

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
    soiled : bool
        Whether slots that hold nothing may lie full of NaN, as memory that was never written may,
        or what a failed pass wrote.
    seen, evicted : int
        Tokens since the start, and those of them that left the memory.
    """

    def __init__(self, config: Any, rope: RopeMap, capacity: int, headroom: int, extent: int,
                 scope: str, channels: int, reduce: str, dtype: torch.dtype,
                 device: torch.device, layout: str = 'fast') -> None:
        ranks, self.scratch = rope.ranks, Scratch()
        specs = layer_specs(config, ranks.size, rope.places)
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
            if not spec.heads:
                layers.append(StateLayer(spec, dtype, spec.place))
                continue
            layers.append(LAYOUTS[layout](
                self.windows[spec.window] if spec.window else next(groups), spec,
                rope.layers[number], dtype, self.scratch))
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
        self.soiled = True

    @property
    def count(self) -> int:
        """Tokens in the fullest layer that the policy bounds."""
        return max(slots.count for slots in self.memory)

    def nbytes(self) -> int:
        """Bytes of every buffer; constant from the first moment."""
        ledgers = [t for s in self.ledgers for t in (s.meta, s.state, s.window, s.evidence)]
        return (sum(part.nbytes() for part in [self.scratch, *self.own.values()])
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
        return kept.slots.held(INDEX).expand(kept.heads, -1).clone()

    def fresh(self) -> list[KVLayer]:
        """List the layers that have something to measure before the stream begins."""
        return [layer for layer in self.own.values()
                if isinstance(layer, KVLayer) and layer.fresh]

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

    def remember(self) -> Callable[[], None]:
        """Note what a pass changes beside its own slots; give what puts it back."""
        sums = [part for slots in self.ledgers for part in (slots.window, slots.evidence)]
        noted = [part.clone() for part in sums]
        states = [layer.mark() for layer in self.states]

        def restore() -> None:
            for part, value in zip(sums, noted, strict=True):
                part.copy_(value)
            for layer, mark in zip(self.states, states, strict=True):
                layer.rollback(mark)
        return restore

    def clean(self) -> None:
        """Clear the slots that hold nothing, for a pass that multiplies them by 0."""
        if self.soiled:
            for layer in self.own.values():
                if isinstance(layer, KVLayer):
                    layer.clean()
        self.soiled = False

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
        """Show what each layer of a selection group holds."""
        return [Content(number, layer, slots.count, self.device)
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
