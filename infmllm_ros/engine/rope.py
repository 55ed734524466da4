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
from .layers import layer_specs, LayerSpec
from .parallel import entrance, Ranks

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


def find_rotary(decoder: nn.Module) -> tuple[str, nn.Module | None]:
    """Find the module that makes cos and sin, and its name: 'rotary_emb', rarely 'pos_emb'."""
    for name, module in decoder.named_children():
        if type(module).__name__.endswith('RotaryEmbedding'):
            return name, module
    return '', None


def as_given(table: torch.Tensor) -> torch.Tensor:
    """Leave cos or sin [..., R] as the rotary module gave them."""
    return table


def paired(table: torch.Tensor) -> torch.Tensor:
    """Give channels 2i and 2i + 1 the angle of i: GLM and ERNIE read half-split tables so."""
    return table[..., :table.shape[-1] // 2].repeat_interleave(2, -1)


# Pairing of channels, and how the table is read.
SCHEMES = ((HALF, as_given), (INTERLEAVED, as_given), (INTERLEAVED, paired), (NONE, as_given))


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

    Parameters
    ----------
    model : nn.Module
    spatial : bool
        Whether frames have M-RoPE's three axes, where the model knows them; False: tokens are
        counted one by one.

    Attributes
    ----------
    layers : dict of int to LayerRope
        By layer index.
    places : dict of int to torch.device
        Where each layer of the decoder computes.
    ranks : Ranks
        The processes that share out its heads.
    mrope : bool
        Whether positions have three axes (Qwen-VL's M-RoPE).

    Raises
    ------
    ModelError
        When a layer rotates in a way that no known scheme explains, or keeps other heads than
        the config says, or attends by code of its own.
    """

    def __init__(self, model: nn.Module, spatial: bool = True) -> None:
        self.decoder = model.get_decoder()
        self.rotary = find_rotary(self.decoder)[1]
        if self.rotary is None:
            raise ModelError(
                f'{type(model).__name__} has no rotary embedding, so its positions are learned '
                'or biases such as ALiBi: only RoPE decoders can be streamed')
        install(model)
        self.device = entrance(model)
        self.places: dict[int, torch.device] = {}
        self.mrope = spatial and hasattr(self.rotary, 'mrope_section')
        still, calls = self._probe((0, 0, 0))
        moved, turned = self._probe(PROBE)
        self.places |= {i: key.device for i, (_, key) in still.items()}
        first, heads = next((number, spec.heads) for number, spec in enumerate(
            layer_specs(self.decoder.config)) if spec.heads)
        self.ranks = Ranks.of(heads, still[first][1].shape[1] if first in still else heads)
        specs = layer_specs(self.decoder.config, self.ranks.size)
        for index, spec in enumerate(specs[:len(getattr(self.decoder, 'layers', specs))]):
            _check_shapes(index, spec, still.get(index))
        scales = [cos.flatten()[0].item() for _, (cos, _) in calls]
        tables = [(cos / scale, sin / scale)
                  for (_, (cos, sin)), scale in zip(turned, scales, strict=True)]
        found = {i: self._explain(i, still[i], moved[i], tables) for i in sorted(still)}
        read = list(dict.fromkeys(how[1:] for how in found.values()))   # the tables in use
        self.layers = {i: LayerRope(how[0], read.index(how[1:])) for i, how in found.items()}
        self._calls = [(calls[number][0], layout) for number, layout in read]
        self._scale = [scales[number] for number, _ in read]
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
                RopeTable(*((t[0] / scale).to(self.device, dtype) for t in (cos, sin)), axis)
                for (cos, sin), scale, axis in zip(
                    map(call, self._calls), self._scale, self._axes(), strict=True)]
        return tables

    def _axes(self) -> list[torch.Tensor | None]:
        if not self.mrope:
            return [None] * len(self._calls)
        eye = torch.eye(3, dtype=torch.long, device=self.device)
        touched = [
            [call(how)[1][0, 0] != 0 for how in self._calls]
            for call in (self._caller(unit[:, None]) for unit in eye)]
        axes = []
        for masks in zip(*touched, strict=True):
            count = torch.stack(masks).sum(0)
            if (count > 1).any():
                raise ModelError('M-RoPE channels that follow several axes are not supported')
            axes.append(torch.stack(masks).long().argmax(0).to(self.device))
        return axes

    def _caller(self, positions: torch.Tensor) -> Callable[[tuple], tuple]:
        """Call the rotary module as the model does, in fp32, at [1|3, n] positions."""
        x = torch.empty(0, device=self.device)
        if self.mrope:
            positions = positions.expand(3, -1)[:, None]

        def call(how: tuple) -> tuple[torch.Tensor, ...]:
            (args, kwargs), layout = how
            return tuple(layout(t) for t in self.rotary(x, positions, *args, **kwargs))
        return call

    @torch.no_grad()
    def _probe(self, place: tuple[int, int, int]) -> tuple[dict, list]:
        record, calls = _Recorder(), []

        def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            extra = {k: v for k, v in kwargs.items() if k not in ('x', 'position_ids')}
            calls.append(((tuple(args[2:]), extra), [t.float() for t in output]))

        token = torch.full((1, 1), 5, device=self.device)
        positions = torch.tensor(place, device=self.device)[:3 if self.mrope else 1]

        def place_of(number: int) -> Callable:
            def note_place(module: nn.Module, args: tuple, output: Any) -> None:
                hidden = output[0] if isinstance(output, tuple) else output
                self.places[number] = hidden.device
            return note_place

        handles = [self.rotary.register_forward_hook(note, with_kwargs=True)]
        handles += [layer.register_forward_hook(place_of(number))
                    for number, layer in enumerate(getattr(self.decoder, 'layers', ()))]
        try:
            with streaming():
                self.decoder(
                    input_ids=token, use_cache=False, stream=record,
                    position_ids=positions.view(-1, 1, 1) if self.mrope else positions[None])
        finally:
            for handle in handles:
                handle.remove()
        return record.seen, calls

    def _explain(self, index: int, still: tuple, moved: tuple, tables: list,
                 ) -> tuple[str, int, Callable]:
        """Find the pairing of one layer, the number of its table, and how it reads that."""
        best, found = float('inf'), None
        place = still[0].device
        for number, table in enumerate(tables):
            for kind, layout in SCHEMES:
                cos, sin = (layout(t)[:, None].to(place) for t in table)
                if cos.shape[-1] > still[0].shape[-1]:
                    continue
                error = max(
                    (rotate(a, cos, sin, kind) - b).abs().max().item()
                    / max(b.abs().max().item(), 1e-20)
                    for a, b in zip(still, moved, strict=True))
                if error < best:
                    best, found = error, (kind, number, layout)
        exact = next(self.decoder.parameters()).dtype in (torch.float32, torch.float64)
        limit = 1e-5 if exact else 3e-2
        if found is None or best > limit:
            raise ModelError(
                f'layer {index} rotates in an unknown way (nearest scheme is off by {best:.1e}, '
                f'limit {limit:.0e}): this position scheme cannot be streamed')
        return found


def _check_shapes(index: int, spec: LayerSpec, found: tuple | None) -> None:
    """Refuse a layer whose keys are not those that its buffers will be made for."""
    if not spec.heads:
        return
    if found is None:
        raise ModelError(
            f'layer {index} attends by code of its own, not by the attention function that '
            'transformers lets one choose: its memory cannot be bounded')
    heads, size = found[1].shape[1], found[1].shape[3]
    if (heads, size) != (spec.heads, spec.size):
        raise ModelError(
            f'layer {index} has {heads} KV heads of {size} channels, but its config says '
            f'{spec.heads} of {spec.size}: such attention (MLA, for one) cannot be streamed')


class _Recorder:
    """Stands in for a forward pass over the cache: notes queries and keys, attends plainly."""

    strict = True

    def __init__(self) -> None:
        self.seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def attend(self, module: nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, scaling: float | None) -> torch.Tensor:
        if value.shape != key.shape:
            raise ModelError(
                f'layer {module.layer_idx} has keys of {key.shape[-1]} channels and values of '
                f'{value.shape[-1]}: such attention (MLA, for one) cannot be streamed')
        self.seen[module.layer_idx] = (query.float(), key.float())
        groups = query.shape[1] // key.shape[1]
        return value.repeat_interleave(groups, 1).transpose(1, 2)     # one key: softmax is 1
