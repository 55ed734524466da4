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
Which tokens sit in the slots of the cache, and at which positions they are rotated.

One :class:`Slots` serves one selection group: all layers together, one layer, or one layer with a
row for each KV head. Layers that share a group share its ledger and its cos/sin, so the
bookkeeping of a frame is done once, not once a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .chunk import Chunk, Kind
from .parallel import ALONE, Ranks
from .rope import RopeMap

if TYPE_CHECKING:
    from .fixed import Place

# rows of the ledger; the last two exist for M-RoPE only
INDEX, FRAME, KIND, STAMP, ROW, COL, SEGMENT, EXTENT = range(8)
FIELDS, PLAIN_FIELDS = 8, 6
NO_FRAME = -1


def ledger(chunk: Chunk, first: int, frame: torch.Tensor, stamp: torch.Tensor, mrope: bool,
           ) -> torch.Tensor:
    """
    Describe the tokens of a chunk: int64 [fields, 1, q].

    Parameters
    ----------
    chunk : Chunk
    first : int
        Stream index of its first token.
    frame : torch.Tensor
        int64 [q], or [] for all: ordinal of the frame each token belongs to, or NO_FRAME.
    stamp : torch.Tensor
        int64 [q], or [] for all: when, in nanoseconds.
    mrope : bool
        Whether the fields that M-RoPE needs are wanted.
    """
    index = torch.arange(first, first + len(chunk))
    out = torch.zeros(FIELDS if mrope else PLAIN_FIELDS, 1, len(chunk), dtype=torch.long)
    out[INDEX], out[FRAME], out[STAMP] = index, frame, stamp
    for place in chunk.markers:
        out[KIND, 0, place] = Kind.MARKER
    if mrope:
        out[SEGMENT], out[EXTENT] = index, 1        # a text token is a segment of its own
    for span in chunk.spans:
        part = slice(span.start, span.start + span.rows * span.cols)
        out[KIND, 0, part] = Kind.VISION
        cell = torch.arange(span.rows * span.cols)
        out[ROW, 0, part], out[COL, 0, part] = cell // span.cols, cell % span.cols
        if mrope:
            out[SEGMENT, 0, part], out[EXTENT, 0, part] = first + span.start, span.extent
    return out


def pack(meta: torch.Tensor, whole: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Place tokens on M-RoPE's axes, segment after segment, without gaps.

    A token of a segment at base b sits at (b, b + row, b + col), its place in the original grid,
    so that left stays left. The next base is b + min(extent, tokens of the segment still held):
    Hugging Face's rule (``get_rope_index``) while a frame is whole, and no more bases than tokens
    when only crumbs of it are left, so that no stream, however long, outruns the context.

    Parameters
    ----------
    meta : torch.Tensor
        Ledger, int64 [8, G, n].
    whole : bool
        Whether a segment advances the base by its extent however few of its tokens are held: in
        a sliding window, where only the oldest one can be cut, this keeps the stream's distances.

    Returns
    -------
    positions : torch.Tensor
        int64 [3, G, n].
    end : torch.Tensor
        int64 [G, 1]: the next free base.
    """
    segment = meta[SEGMENT]
    opens = torch.ones_like(segment)
    opens[:, 1:] = segment[:, 1:] != segment[:, :-1]
    run = opens.cumsum(-1) - 1
    advance = meta[EXTENT]
    if not whole:
        held = torch.zeros_like(run).scatter_add_(1, run, torch.ones_like(run)).gather(1, run)
        advance = torch.minimum(advance, held)
    passed = (advance * opens).cumsum(-1)
    base = passed - advance
    return torch.stack((base, base + meta[ROW], base + meta[COL])), passed[:, -1:]


@dataclass
class Mark:
    """A moment to roll back to."""

    count: int
    end: torch.Tensor
    state: torch.Tensor


class Slots:
    """
    The ledger of one selection group.

    Parameters
    ----------
    groups : int
        Rows: 1, or one per KV head where heads select apart.
    capacity : int
        Slots per row.
    layers : int
        How many layers share this ledger (their window attention is averaged).
    rope : RopeMap
    span : int
        Positions to tabulate: the capacity, and with M-RoPE the extent of one more frame.
    dtype : torch.dtype
        Of the cos/sin handed to the layers.
    device : torch.device
    channels : int
        Running numbers that the policy keeps with each token.
    reduce : str
        'mean' or 'max' over the heads (and layers) that share a row.
    ranks : Ranks
        The processes that share out the heads of a row.
    whole : bool
        See :func:`pack`.

    Attributes
    ----------
    count : int
        Tokens held, the same in every row.
    state : torch.Tensor
        fp32 [channels, G, capacity]: travels with the tokens.
    fixed : Place or None
        During a pass of fixed shape, where the chunk goes, and how it is turned.
    """

    fixed: Place | None = None

    def __init__(self, groups: int, capacity: int, layers: int, rope: RopeMap, span: int,
                 dtype: torch.dtype, device: torch.device, channels: int, reduce: str,
                 ranks: Ranks = ALONE, whole: bool = False) -> None:
        self.groups, self.capacity, self.layers = groups, capacity, layers
        self.rope, self.span, self.dtype, self.reduce = rope, span, dtype, reduce
        self.ranks, self.whole = ranks, whole
        self.meta = torch.zeros(
            FIELDS if rope.mrope else PLAIN_FIELDS, groups, capacity, dtype=torch.long,
            device=device)
        self.state = torch.zeros(channels, groups, capacity, device=device)
        self.window = torch.zeros(groups, capacity, device=device)
        self.evidence = torch.zeros(groups, capacity, device=device)
        self.end = torch.zeros(groups, 1, dtype=torch.long, device=device)
        self.clear()

    def clear(self) -> None:
        """Forget every token."""
        self.count = self.pending = self.regime = 0
        self.end = torch.zeros_like(self.end)
        self.rotation: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._turns: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}

    # ---- a pass over the cache

    def begin(self, meta: torch.Tensor, end: int) -> bool:
        """
        Take in the ledger of a chunk, not yet counted as held.

        Parameters
        ----------
        meta : torch.Tensor
            int64 [fields, 1, q].
        end : int
            Tokens that the fullest layer of the model will hold with it.

        Returns
        -------
        bool
            Whether the held keys must be rotated afresh, because LongRoPE changes its frequencies
            here.
        """
        self.pending = meta.shape[-1]
        new = self.new
        self.meta[:, :, new] = meta
        self.state[:, :, new] = 0
        self.evidence[:, new] = 0
        regime = self.rope.regime(end)
        changed, self.regime = regime != self.regime, regime
        self._turns = {}
        if self.rope.mrope:
            local, self._advance = pack(meta, self.whole)
            self._places = local + self.end
            self.rotation = self._rotation(self._places)
        else:
            self.rotation = self._rotation(None, new)
        return changed

    @property
    def new(self) -> slice | torch.Tensor:
        """Say where the chunk goes: its slots, or int64 [q]."""
        if self.fixed is not None:
            return self.fixed.new
        return slice(self.count, self.count + self.pending)

    def turn(self, table: int, device: torch.device, held: bool = False,
             ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Give cos and sin of the chunk, [G|1, q, R] each, where a layer computes.

        With `held`, of all that is held and the chunk: [G|1, n + q, R].
        """
        if self.fixed is not None:
            return self.fixed.rotation[table]
        key = table, device, held
        if key not in self._turns:
            cos, sin = (self._everywhere() if held else self.rotation)[table]
            self._turns[key] = cos.to(device), sin.to(device)
        return self._turns[key]

    def _everywhere(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        part = slice(0, self.count + self.pending)
        if not self.rope.mrope:
            return self._rotation(None, part)
        return self._rotation(pack(self.meta[:, :, part], self.whole)[0])

    def commit(self) -> None:
        """Count the chunk of :meth:`begin` as held."""
        self.count += self.pending
        if self.rope.mrope:
            self.end = self.end + self._advance
        self.pending = 0

    def add_window(self, weights: torch.Tensor) -> None:
        """Add one layer's attention, fp32 [Hkv, H / Hkv, K], summed over the window's rows."""
        window = self.window[:, :weights.shape[-1]]
        heads = (1, 0) if self.groups == 1 else (1,)
        if self.reduce == 'mean':
            window += weights.mean(heads).to(window.device) / self.layers
        else:
            torch.maximum(window, weights.amax(heads).to(window.device), out=window)

    def close_window(self) -> torch.Tensor:
        """Join the heads of all ranks; the attention that the held tokens got: fp32 [G, n]."""
        return self.ranks.join(self.window[:, :self.count].contiguous(), self.reduce)

    def add_evidence(self, weights: torch.Tensor) -> None:
        """Add one layer's attention of one query, fp32 [Hkv, H / Hkv, K]."""
        heads = (1, 0) if self.groups == 1 else (1,)
        evidence = self.evidence[:, :weights.shape[-1]]
        evidence += weights.mean(heads).to(evidence.device) / self.layers

    # ---- what is held

    def held(self, field: int) -> torch.Tensor:
        """View one field of the ledger: int64 [G, n]."""
        return self.meta[field, :, :self.count]

    def repack(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Place the held tokens contiguously; cos and sin of each table, [G|1, n, R]."""
        self._turns = {}
        if not self.rope.mrope:
            return self._rotation(None, slice(0, self.count))
        positions, self.end = pack(self.meta[:, :, :self.count], self.whole)
        return self._rotation(positions)

    def packed(self, slots: torch.Tensor, regime: int,
               ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], int | torch.Tensor]:
        """
        Place some slots, the whole chunk of :meth:`begin` among them, as if there were no others.

        Returns
        -------
        rotation : list of tuple of torch.Tensor
            cos and sin of each table, [G|1, n, R].
        shift : int or torch.Tensor
            How far that moves the chunk towards 0; [G, 1] for M-RoPE.
        """
        if not self.rope.mrope:
            count = len(slots)
            rotation = self._rotation(None, slice(0, count), regime)
            return rotation, self.count + self.pending - count
        positions, end = pack(self.meta[:, :, slots], self.whole)
        return self._rotation(positions, regime=regime), self.end + self._advance - end

    def shifted(self, shift: int | torch.Tensor, regime: int,
                ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Place the chunk of :meth:`begin` nearer to 0: cos and sin of each table, [G|1, q, R]."""
        if self.rope.mrope:
            return self._rotation(self._places - shift, regime=regime)
        first = self.count - shift
        return self._rotation(None, slice(first, first + self.pending), regime)

    def unlike(self, kind: Kind) -> torch.Tensor:
        """Tell which slots, the chunk's included, hold another kind: bool [G, K]."""
        return self.meta[KIND, :, :self.count + self.pending] != kind

    def compact(self, keep: torch.Tensor) -> None:
        """Keep only the slots `keep`: int64 [G, m], ascending in each row."""
        kept = slice(0, keep.shape[1])
        self.meta[:, :, kept] = self.meta.gather(2, keep.expand(len(self.meta), -1, -1))
        self.state[:, :, kept] = self.state.gather(2, keep.expand(len(self.state), -1, -1))
        self.evidence[:, kept] = self.evidence.gather(1, keep)
        self.count = keep.shape[1]

    def mark(self) -> Mark:
        """Remember this moment; valid until the next eviction."""
        return Mark(self.count, self.end, self.state[:, :, :self.count].clone())

    def rollback(self, mark: Mark) -> None:
        """Return to a marked moment."""
        self.count, self.end, self.pending, self._turns = mark.count, mark.end, 0, {}
        self.state[:, :, :self.count] = mark.state

    def _rotation(self, positions: torch.Tensor | None, part: slice = slice(0),
                  regime: int | None = None) -> list[tuple[torch.Tensor, torch.Tensor]]:
        regime = self.regime if regime is None else regime
        tables = self.rope.tables(self.span, self.dtype, regime)
        if positions is None:
            return [(t.cos[None, part], t.sin[None, part]) for t in tables]
        return [t.at(positions) for t in tables]
