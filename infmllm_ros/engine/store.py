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
How the keys and values of one layer lie in memory, in buffers allocated once.

Whichever layout, the un-rotated keys are the master: what attention reads follows from them and
from the positions alone, so nothing ever drifts, however often tokens move.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

from .fused import attend_rotating, can_fuse, try_fused
from .layers import LayerSpec
from .positions import Slots
from .rope import LayerRope, rotate


class Scratch:
    """Buffers that the layers of a cache take turns with: what one leaves, the next overwrites."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, LayerSpec], torch.Tensor] = {}

    def take(self, name: str, spec: LayerSpec, shape: tuple[int, ...], dtype: torch.dtype,
             ) -> torch.Tensor:
        """Give the one buffer of that name for all layers of a device, shape and window."""
        if (name, spec) not in self._buffers:
            self._buffers[name, spec] = torch.empty(shape, dtype=dtype, device=spec.place)
        return self._buffers[name, spec]

    def nbytes(self) -> int:
        """Count the bytes of all of them."""
        return sum(buffer.nbytes for buffer in self._buffers.values())


class KVLayer(CacheLayerMixin):
    """
    The `fast` layout: keys lie twice, un-rotated and rotated at contiguous in-cache positions.

    The rotated copy, which attention reads, is derived afresh from the master after an eviction,
    so a pass rotates its own keys alone. Other layouts differ in what they override.

    Parameters
    ----------
    slots : Slots
        The ledger, shared with the other layers of the selection group.
    spec : LayerSpec
        KV heads, channels of a head, the window, and where the layer computes.
    rope : LayerRope
        How the layer rotates.
    dtype : torch.dtype
    scratch : Scratch
        Shared with the other layers of the cache.

    Attributes
    ----------
    lasting : bool
        Whether rotated keys stay where they are from one pass to the next.
    quantised : bool
        Whether what is held is no longer the very numbers that the model made.
    fresh : bool
        Whether something is to be measured or tried before the stream begins.
    """

    is_compileable = False
    is_croppable = False
    lasting = True
    quantised = fresh = False

    def __init__(self, slots: Slots, spec: LayerSpec, rope: LayerRope, dtype: torch.dtype,
                 scratch: Scratch) -> None:
        super().__init__()
        self.slots, self.kind, self.table, self.window = slots, rope.kind, rope.table, spec.window
        self.is_sliding = spec.window > 0
        self.heads = spec.heads
        self.dtype, self.device, self.is_initialized = dtype, spec.place, True
        self._allocate(spec, (1, spec.heads, slots.capacity, spec.size), scratch)

    @staticmethod
    def slot_bytes(spec: LayerSpec, itemsize: int) -> int:
        """Count the bytes of one slot of one layer, for weights of `itemsize` bytes."""
        return 3 * spec.heads * spec.size * itemsize

    @staticmethod
    def scratch_bytes(spec: LayerSpec, itemsize: int) -> int:
        """Count the bytes of one slot of the scratch that all layers like this one share."""
        return 0

    @staticmethod
    def fixed_bytes(spec: LayerSpec, itemsize: int) -> int:
        """Count the bytes of one layer that do not depend on its slots."""
        return 0

    # ---- what layouts differ in

    def _allocate(self, spec: LayerSpec, shape: tuple[int, ...], scratch: Scratch) -> None:
        """Make the buffers: not zeroed, as on a CPU pages never written cost no memory."""
        self.master, self.keys, self.values = (
            torch.empty(shape, dtype=self.dtype, device=self.device) for _ in range(3))

    def _write(self, new: slice | torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Take the chunk in: [1, Hkv, q, D] each."""
        self.put(new, key, value)
        turn = self.slots.turn(self.table, self.device)
        if isinstance(new, slice):
            rotate(key, *turn, self.kind, out=self.keys[:, :, new])
        else:
            self.keys[:, :, new] = rotate(key, *turn, self.kind)

    def put(self, part: slice | torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write un-rotated keys and values, [1, Hkv, n, D], into some slots."""
        self.master[:, :, part] = key
        self.values[:, :, part] = value

    def _ready(self, part: slice) -> None:
        """Have `keys` and `values` say what those slots hold, rotated."""

    def rotate_held(self, rotation: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Derive the working copy of all held keys from the master."""
        held = slice(0, self.slots.count)
        turn = (part.to(self.device) for part in rotation[self.table])
        rotate(self.master[:, :, held], *turn, self.kind, out=self.keys[:, :, held])

    def _own(self) -> dict[str, torch.Tensor]:
        """Name the buffers that move with the tokens, [1, Hkv, capacity, any], as in a file."""
        return {'keys': self.master, 'values': self.values}

    def plain(self, part: slice | torch.Tensor) -> torch.Tensor:
        """Give un-rotated keys of some slots: [1, Hkv, n, D]."""
        return self.master[:, :, part]

    def valued(self, part: slice) -> torch.Tensor:
        """Give the values of some slots: [1, Hkv, n, D]."""
        return self.values[:, :, part]

    def rotated(self) -> torch.Tensor:
        """Give the held keys, rotated: [1, Hkv, n, D]."""
        return self.keys[:, :, :self.slots.count]

    def nbytes(self) -> int:
        """Count the bytes of its own buffers."""
        return self.keys.nbytes + sum(buffer.nbytes for buffer in self._own().values())

    def fuses(self, query: torch.Tensor) -> bool:
        """Tell whether :meth:`attend_fused` can be used, by queries [1, H, q, D]."""
        return False

    # ---- what they share

    def update(self, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any,
               ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Write the chunk's un-rotated keys and its values: [1, Hkv, q, D].

        Returns
        -------
        tuple of torch.Tensor
            Shaped as what :meth:`show` will give: transformers hands it on to the attention.
        """
        self._write(self.slots.new, key, value)
        return self._seen()

    def show(self) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Give all that the chunk, once written, may attend to; valid until another layer's turn.

        Returns
        -------
        tuple of torch.Tensor
            Rotated keys and values, views of buffers: [1, Hkv, n + q, D], or of the last
            window - 1 + q tokens, where the others are beyond every query's window.
        """
        self._ready(self._span())
        return self._seen()

    def _span(self) -> slice:
        if self.slots.fixed is not None:
            return slice(0, self.slots.capacity)
        count = self.slots.count
        first = max(0, count + 1 - self.window) if self.window else 0
        return slice(first, count + self.slots.pending)

    def _seen(self) -> tuple[torch.Tensor, torch.Tensor]:
        span = self._span()
        return self.keys[:, :, span], self.values[:, :, span]

    def rotate_query(self, query: torch.Tensor,
                     turn: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """Rotate queries [1, H, q, D]: to the positions of the chunk's keys, or by cos and sin."""
        cos, sin = turn or self.slots.turn(self.table, query.device)
        if cos.shape[0] > 1:        # each KV head has its own positions
            repeats = query.shape[1] // cos.shape[0]
            cos, sin = cos.repeat_interleave(repeats, 0), sin.repeat_interleave(repeats, 0)
        return rotate(query, cos, sin, self.kind)

    def place(self, where: torch.Tensor | slice,
              rotation: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Rotate the keys of some slots otherwise, until they are derived again."""
        turn = (part.to(self.device) for part in rotation[self.table])
        self.keys[:, :, where] = rotate(self.plain(where), *turn, self.kind)

    def clean(self) -> None:
        """Clear the slots that hold nothing."""
        for buffer in (self.keys, *self._own().values()):
            buffer[:, :, self.slots.count:] = 0

    def compact(self, keep: torch.Tensor) -> None:
        """Move the kept tokens to the front; `keep` is int64 [G, m], ascending in each row."""
        heads, capacity = self.heads, self.slots.capacity
        keep = keep.to(self.device)
        offset = torch.arange(heads, device=keep.device)[:, None] * capacity
        # one flat index_select is an order of magnitude faster than gather on a CPU
        flat = (keep + offset).flatten()
        for buffer in self._own().values():
            moved = buffer.view(heads * capacity, -1).index_select(0, flat)
            buffer[0, :, :keep.shape[1]] = moved.view(heads, -1, buffer.shape[-1])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Name what is held, as it is written to a file: views of the buffers."""
        return {name: buffer[:, :, :self.slots.count] for name, buffer in self._own().items()}

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


class LeanLayer(KVLayer):
    """
    The `lean` layout: masters and values alone, two thirds of the bytes of `fast`.

    Each pass rotates all keys of a layer from the master into a buffer that all layers share.
    Outcomes are those of `fast`, bit for bit: the same rotation of the same numbers.
    """

    lasting = False

    @staticmethod
    def slot_bytes(spec: LayerSpec, itemsize: int) -> int:
        """Count the bytes of one slot of one layer, for weights of `itemsize` bytes."""
        return 2 * spec.heads * spec.size * itemsize

    @staticmethod
    def scratch_bytes(spec: LayerSpec, itemsize: int) -> int:
        """Count the bytes of one slot of the scratch that all layers like this one share."""
        return spec.heads * spec.size * itemsize

    def _allocate(self, spec: LayerSpec, shape: tuple[int, ...], scratch: Scratch) -> None:
        self.master, self.values = (
            torch.empty(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        self.keys = scratch.take('keys', spec, shape, self.dtype)

    def _write(self, new: slice, key: torch.Tensor, value: torch.Tensor) -> None:
        self.put(new, key, value)

    def _ready(self, part: slice) -> None:
        rotate(self.plain(part), *self._turn(part), self.kind, out=self.keys[:, :, part])

    def _turn(self, part: slice) -> list[torch.Tensor]:
        return [t[:, part] for t in self.slots.turn(self.table, self.device, held=True)]

    def rotate_held(self, rotation: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Do nothing: every pass rotates all keys."""

    def rotated(self) -> torch.Tensor:
        """Give the held keys, rotated, in a tensor of their own: [1, Hkv, n, D]."""
        held = slice(0, self.slots.count)
        return rotate(self.plain(held), *self._turn(held), self.kind)

    def nbytes(self) -> int:
        """Count the bytes of its own buffers."""
        return sum(buffer.nbytes for buffer in self._own().values())


class FusedLayer(LeanLayer):
    """
    The `fused` layout: as `lean`, but a kernel turns keys as it attends, on a GPU with Triton.

    Where the kernel cannot be used, and in passes that it is not made for (see
    :class:`~infmllm_ros.engine.attention.Pass`), this is `lean`.
    """

    def __init__(self, slots: Slots, spec: LayerSpec, rope: LayerRope, dtype: torch.dtype,
                 scratch: Scratch) -> None:
        super().__init__(slots, spec, rope, dtype, scratch)
        self.fresh = self.fuses(self.master)

    def fuses(self, query: torch.Tensor) -> bool:
        """Tell whether :meth:`attend_fused` can be used, by queries [1, H, q, D]."""
        return not self.is_sliding and can_fuse(query, self.master, self.values)

    def attend_fused(self, query: torch.Tensor, scaling: float, rows: torch.Tensor | None,
                     window: torch.Tensor | None, final: torch.Tensor | None) -> torch.Tensor:
        """
        Attend to what is held and to the chunk.

        Parameters and result as of :func:`~infmllm_ros.engine.fused.attend_rotating`.

        Raises
        ------
        ModelError
            If the kernel does not work here, which is tried before the stream begins.
        """
        part = self._span()
        inputs = query, self.plain(part), self.valued(part), *self._turn(part), scaling, self.kind
        if self.fresh:
            try_fused(*inputs)
        return attend_rotating(*inputs, rows, window, final)
