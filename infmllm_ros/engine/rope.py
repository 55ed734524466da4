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
Which rotation each attention layer applies, and its cos/sin at any position.

The cache keeps keys un-rotated, so the engine must rotate by itself, exactly as the model would.
Nothing here knows a model family: with ONE token in the sequence the softmax over one key is 1, so
the hidden states do not depend on the position, and the queries and keys that reach the attention
function at position p are R(p) times those at position 0. Two such passes reveal R of every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .attention import install, streaming
from .errors import ModelError

PROBE = (11, 14, 16)  # three unlike positions, so that the axes of M-RoPE can be told apart
HALF, INTERLEAVED, NONE = 'half', 'interleaved', 'none'


def rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, kind: str,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Rotate queries or keys (RoFormer, arXiv 2104.09864, eq. 34).

    Parameters
    ----------
    x : torch.Tensor
        [..., n, D].
    cos, sin : torch.Tensor
        [..., n, R] with R <= D; the last D - R channels pass unchanged (partial rotary).
    kind : str
        'half' (channel i pairs with i + R/2), 'interleaved' (2i with 2i + 1) or 'none'.
    out : torch.Tensor, optional
        Where to write, shaped as `x`; must not overlap it.
    """
    if kind == NONE:
        return x.clone() if out is None else out.copy_(x)
    size = cos.shape[-1]
    out = torch.empty_like(x) if out is None else out
    turned, source = out[..., :size], x[..., :size]
    torch.mul(source, cos, out=turned)
    if kind == HALF:
        half = size // 2
        turned[..., :half].addcmul_(source[..., half:], sin[..., :half], value=-1)
        turned[..., half:].addcmul_(source[..., :half], sin[..., half:])
    else:
        turned[..., 0::2].addcmul_(source[..., 1::2], sin[..., 0::2], value=-1)
        turned[..., 1::2].addcmul_(source[..., 0::2], sin[..., 1::2])
    if size < x.shape[-1]:
        out[..., size:] = x[..., size:]
    return out


@dataclass(frozen=True)
class LayerRope:
    """How one layer rotates: the pairing of channels, and which table it reads."""

    kind: str
    table: int


@dataclass(frozen=True)
class RopeTable:
    """
    cos and sin of positions 0..P-1.

    Parameters
    ----------
    cos, sin : torch.Tensor
        [P, R], attention scaling divided out (the model has applied it already).
    axis : torch.Tensor or None
        int64 [R]: which of (time, height, width) turns each channel; None for 1-D RoPE.
    """

    cos: torch.Tensor
    sin: torch.Tensor
    axis: torch.Tensor | None

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up [G, n] positions, or [3, G, n] for M-RoPE: cos and sin, each [G, n, R]."""
        if self.axis is None:
            return self.cos[positions], self.sin[positions]
        rows = positions.index_select(0, self.axis).movedim(0, -1)      # [G, n, R]
        shape = rows.shape
        rows = rows.reshape(-1, shape[-1])
        return self.cos.gather(0, rows).view(shape), self.sin.gather(0, rows).view(shape)


class RopeMap:
    """
    The rotation of every layer of a language model, found by probing it.

    Attributes
    ----------
    layers : dict of int to LayerRope
        By layer index.
    mrope : bool
        Whether positions have three axes (Qwen-VL's M-RoPE).

    Raises
    ------
    ModelError
        When a layer rotates in a way that no known scheme explains.
    """

    def __init__(self, model: nn.Module) -> None:
        self.decoder = model.get_decoder()
        self.rotary = getattr(self.decoder, 'rotary_emb', None)
        if self.rotary is None:
            raise ModelError(
                f'{type(model).__name__} has no rotary_emb: only RoPE decoders can be streamed')
        install(model)
        self.device = next(self.decoder.parameters()).device
        self.mrope = hasattr(self.rotary, 'mrope_section')
        still, calls = self._probe((0, 0, 0))
        moved, turned = self._probe(PROBE)
        self._calls = [extra for extra, _ in calls]
        self._scale = [cos.flatten()[0].item() for _, (cos, _) in calls]
        tables = [(cos / scale, sin / scale)
                  for (_, (cos, sin)), scale in zip(turned, self._scale, strict=True)]
        self.layers = {
            i: self._explain(i, still[i], moved[i], tables) for i in sorted(still)}
        parameters = getattr(self.rotary.config, 'rope_parameters', None) or {}
        self._switch = (parameters.get('original_max_position_embeddings')
                        if parameters.get('rope_type') == 'longrope' else None)
        self._tables: dict[tuple, list[RopeTable]] = {}

    def regime(self, end: int) -> int:
        """Say which frequency set serves `end` positions: 1 past LongRoPE's switch, else 0."""
        return int(self._switch is not None and end > self._switch)

    @torch.no_grad()
    def tables(self, length: int, dtype: torch.dtype, regime: int = 0) -> list[RopeTable]:
        """
        Tabulate at least positions 0..length-1.

        One table per way the model calls its rotary module. The largest tables are kept: all
        sessions of one model share them.
        """
        # LongRoPE picks its frequencies by the largest position of the call
        if self._switch is not None:
            length = max(length, self._switch + 1) if regime else min(length, self._switch)
        tables = self._tables.get((dtype, regime))
        if tables is None or len(tables[0].cos) < length:
            call = self._caller(torch.arange(length, device=self.device)[None])
            tables = self._tables[dtype, regime] = [
                RopeTable((cos[0] / scale).to(dtype), (sin[0] / scale).to(dtype), axis)
                for (cos, sin), scale, axis in zip(
                    map(call, self._calls), self._scale, self._axes(), strict=True)]
        return tables

    def _axes(self) -> list[torch.Tensor | None]:
        if not self.mrope:
            return [None] * len(self._calls)
        eye = torch.eye(3, dtype=torch.long, device=self.device)
        touched = [
            [call(extra)[1][0, 0] != 0 for extra in self._calls]
            for call in (self._caller(unit[:, None]) for unit in eye)]
        axes = []
        for masks in zip(*touched, strict=True):
            count = torch.stack(masks).sum(0)
            if (count > 1).any():
                raise ModelError('M-RoPE channels that follow several axes are not supported')
            axes.append(torch.stack(masks).long().argmax(0))
        return axes

    def _caller(self, positions: torch.Tensor) -> Callable[[tuple], tuple]:
        """Call the rotary module as the model does, in fp32, at [1|3, n] positions."""
        x = torch.empty(0, device=self.device)
        if self.mrope:
            positions = positions.expand(3, -1)[:, None]
        return lambda extra: self.rotary(x, positions, *extra[0], **extra[1])

    @torch.no_grad()
    def _probe(self, place: tuple[int, int, int]) -> tuple[dict, list]:
        record, calls = _Recorder(), []

        def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            extra = {k: v for k, v in kwargs.items() if k not in ('x', 'position_ids')}
            calls.append(((tuple(args[2:]), extra), [t.float() for t in output]))

        token = torch.full((1, 1), 5, device=self.device)
        positions = torch.tensor(place, device=self.device)[:3 if self.mrope else 1]
        handle = self.rotary.register_forward_hook(note, with_kwargs=True)
        try:
            with streaming():
                self.decoder(
                    input_ids=token, use_cache=False, stream=record,
                    position_ids=positions.view(-1, 1, 1) if self.mrope else positions[None])
        finally:
            handle.remove()
        return record.seen, calls

    def _explain(self, index: int, still: tuple, moved: tuple, tables: list) -> LayerRope:
        best, found = float('inf'), None
        for number, (cos, sin) in enumerate(tables):
            for kind in (HALF, INTERLEAVED, NONE):
                if cos.shape[-1] > still[0].shape[-1]:
                    continue
                error = max(
                    (rotate(a, cos[:, None], sin[:, None], kind) - b).abs().max().item()
                    / max(b.abs().max().item(), 1e-20)
                    for a, b in zip(still, moved, strict=True))
                if error < best:
                    best, found = error, LayerRope(kind, number)
        exact = next(self.decoder.parameters()).dtype in (torch.float32, torch.float64)
        limit = 1e-5 if exact else 3e-2
        if found is None or best > limit:
            raise ModelError(
                f'layer {index} rotates in an unknown way (nearest scheme is off by {best:.1e}, '
                f'limit {limit:.0e}): this position scheme cannot be streamed')
        return found


class _Recorder:
    """Stands in for a forward pass over the cache: notes queries and keys, attends plainly."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def attend(self, module: nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, scaling: float | None) -> torch.Tensor:
        self.seen[module.layer_idx] = (query.float(), key.float())
        groups = query.shape[1] // key.shape[1]
        return value.repeat_interleave(groups, 1).transpose(1, 2)     # one key: softmax is 1
