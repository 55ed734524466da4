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
The attention function that every layer of the language model calls, and one pass over the cache.

Registered with transformers under the name 'infmllm'. Given ``stream=`` (a :class:`Pass`) it
attends to the bounded cache; without it, it does what transformers' own SDPA does, for the vision
tower, and for ``generate`` of the same model object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol, TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .blocks import attend_in_blocks, faster_in_blocks
from .errors import ModelError

if TYPE_CHECKING:
    from .cache import StreamCache
    from .glance import Glance
    from .positions import Slots

NAME = 'infmllm'
MASKED_ROWS = 512  # rows of a chunk that attend at a time, to no more keys than the last sees
ROWS_AT_ONCE = 64  # window rows whose probabilities are held at a time: bounds the peak memory
# What models hand to their attention function beside the tensors that changes nothing here: layers
# know their windows, weights and kernels are transformers' business, and nothing is trained.
HARMLESS = {'dropout', 'is_causal', 'sliding_window', 'position_ids', 'use_cache',
            'output_attentions', 'output_router_logits'}
MEANING = {'s_aux': ' (attention sinks in its logits)', 'softcap': ' (a cap on its logits)'}
_ACTIVE: ContextVar[bool] = ContextVar('infmllm_streaming', default=False)


class Stream(Protocol):
    """
    What the attention function asks of the object given as ``stream=``.

    A strict one is a probe, whose pass hands the layers nothing by itself: what they then give
    their attention function is their own, and must be known.
    """

    strict: bool

    def attend(self, module: nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, scaling: float | None) -> torch.Tensor:
        """Attend: query [B, H, q, D], key and value [B, Hkv, K, D] -> [B, q, H, D]."""


def _attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, scaling: float | None = None,
    stream: Stream | None = None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if stream is None:
        if attention_mask is None and not _is_causal(module, kwargs) and (
                faster_in_blocks(query, key)):      # a vision tower
            scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
            frames = zip(*(part.split(1) for part in (query, key, value)), strict=True)
            return torch.cat([
                attend_in_blocks(*frame, scaling, causal=False) for frame in frames]), None
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if stream.strict:
        _refuse_strange(module, attention_mask, kwargs)
    return stream.attend(module, query, key, value, scaling), None


def _is_causal(module: nn.Module, given: dict[str, Any]) -> bool:
    """Tell whether queries see no keys after them, as transformers' own SDPA finds out."""
    asked = given.get('is_causal')
    return getattr(module, 'is_causal', True) if asked is None else asked


def _refuse_strange(module: nn.Module, mask: Any, given: dict[str, Any]) -> None:
    """Refuse a layer that gives its attention function what `Pass` does not read."""
    strange = [name for name in given if given[name] is not None and name not in HARMLESS]
    if strange or mask is not None:
        what = strange[0] + MEANING.get(strange[0], '') if strange else 'a mask of its own'
        raise ModelError(
            f'layer {module.layer_idx} attends with {what}, which a bounded memory would leave '
            'out: this model cannot be streamed')


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    return None if _ACTIVE.get() else sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


def install(model: nn.Module, name: str = NAME) -> None:
    """Let the language model of `model` call our attention, and its vision tower."""
    parts = set(getattr(model.config, 'sub_configs', ())) & {'text_config', 'vision_config'}
    if 'text_config' in parts:
        model.set_attn_implementation(dict.fromkeys(parts, name))
    else:
        model.set_attn_implementation(name)


@contextmanager
def streaming() -> Iterator[None]:
    """Spare the model the building of masks that a pass over the cache does not read."""
    token = _ACTIVE.set(True)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def grouped(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float,
            ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Give SDPA's keys and values, [1, Hkv or H, K, D], and its options, for [1, H, q, D]."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and query.is_cuda:
        # with a mask, CUDA's grouped-query path is the slow math kernel
        key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    return key, value, {'scale': scaling, 'enable_gqa': groups > 1 and not query.is_cuda}


def attend_by_rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                   mask: Callable[[slice, int], torch.Tensor], causal: bool = True,
                   **options: Any) -> torch.Tensor:
    """
    Attend under a mask, some rows at a time: the first do not see the chunk's end.

    Parameters
    ----------
    query : torch.Tensor
        [1, H, q, D]: the last q tokens.
    key, value : torch.Tensor
        [1, Hkv, K, D].
    mask : Callable
        Rows of the chunk, and how many keys they see at most -> bool [rows, keys].
    causal : bool
        False: rows see keys after their own.
    **options
        Of SDPA.

    Returns
    -------
    torch.Tensor
        [1, H, q, D].
    """
    queries, held, parts = query.shape[2], key.shape[2], []
    for first in range(0, queries, MASKED_ROWS):
        rows = slice(first, min(first + MASKED_ROWS, queries))
        seen = held - queries + rows.stop if causal else held
        parts.append(functional.scaled_dot_product_attention(
            query[:, :, rows], key[:, :, :seen], value[:, :, :seen], attn_mask=mask(rows, seen),
            **options))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)     # one by one, no copy


class Sparse(Protocol):
    """What a pass asks of a way to compute less than the whole attention of a chunk."""

    def suits(self, queries: int, held: int) -> bool:
        """Tell whether a chunk of `queries`, of all `held` tokens, is to be computed so."""

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float,
               ) -> torch.Tensor:
        """Attend: query [H, q, D], key and value [Hkv, K, D] -> [H, q, D]."""


class Pass:
    """
    One forward pass of a chunk over the cache.

    Parameters
    ----------
    cache : StreamCache
        Begun with the chunk.
    rows : torch.Tensor or None
        int64 [r]: the chunk's queries that form the window; their attention is handed to the
        slots.
    evidence : bool
        Whether the last query's attention counts as evidence of an answer.
    sparse : Sparse or None
        How long chunks are computed; None: like all others. Window and evidence are exact in
        either case.
    among : int or None
        The kind of tokens among which the window's queries share out their attention; None: all.
        The queries must be of that kind.
    glance : Glance or None
        What the chunk sees of the memory; None: all.
    ahead : torch.Tensor or None
        int64 [q]: the last place in the chunk that each token sees; None: itself.
    near : bool
        Whether `ahead` is for sliding layers alone.
    """

    strict = False

    def __init__(self, cache: StreamCache, rows: torch.Tensor | None, evidence: bool,
                 sparse: Sparse | None = None, among: int | None = None,
                 glance: Glance | None = None, ahead: torch.Tensor | None = None,
                 near: bool = False) -> None:
        self.cache, self.rows, self.evidence, self.sparse = cache, rows, evidence, sparse
        self.among, self.glance, self.ahead = among, glance, ahead
        self.far = None if near else ahead      # `ahead` in the layers that see all
        self._masks: dict[tuple, Any] = {}

    def attend(self, module: nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, scaling: float | None) -> torch.Tensor:
        """
        Attend to the cached tokens and, causally or as far as `ahead`, to the chunk itself.

        Parameters
        ----------
        module : nn.Module
            The layer's attention; its ``layer_idx`` names the cache layer.
        query : torch.Tensor
            [1, H, q, D], un-rotated.
        key, value : torch.Tensor
            [1, Hkv, K, D], as :meth:`KVLayer.update` returned them; the layer shows what they
            stand for, since other layers may have used the same buffers meanwhile.
        scaling : float or None
            Of the logits; None means 1 / sqrt(D).

        Returns
        -------
        torch.Tensor
            [1, q, H, D].
        """
        layer = self.cache.layers[module.layer_idx]
        ahead = self.ahead if layer.is_sliding else self.far
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        held = layer.slots.count + layer.slots.pending
        if layer.fuses(query) and self._fuses(query.shape[2], held):
            query = layer.rotate_query(query)
            return self._reading(layer.slots, query, layer.heads, held,
                                 partial(layer.attend_fused, query, scaling))
        hidden, shown = None, layer.show()
        if self.glance is None or layer.is_sliding:
            query = layer.rotate_query(query)
        else:
            query, hidden = self.glance.look(module.layer_idx, query, scaling)
        # what a reader elsewhere gets is a copy, so of the keys where the glance has put them
        key, value = (part.to(query.device) for part in shown)
        queries, held = query.shape[2], key.shape[2]
        # a layer that sees a window of its own has nothing to choose, to tell or to skip
        slots = None if layer.is_sliding else layer.slots
        asked = slots is not None and self.rows is not None
        within = not layer.is_sliding or held <= layer.window
        causal = hidden is None and ahead is None
        skips = slots is not None and self.sparse and causal and self.sparse.suits(queries, held)
        # where every query is asked, SDPA would compute all probabilities a second time
        whole = asked and self.among is None and len(self.rows) == queries
        # for one bf16 query SDPA is 37 times slower on a CPU; some more, and it still is slower
        if whole or queries == 1 or within and not skips and faster_in_blocks(query, key):
            if asked and self.among is not None:
                self._collect_window(slots, query, key, scaling, hidden)
            return self._attend_in_blocks(slots, query, key, value, scaling, ahead, hidden, whole)
        if asked:
            self._collect_window(slots, query, key, scaling, hidden)
        if slots is not None:
            if self.evidence:
                weights = self._probabilities(query[:, :, -1:], key, scaling, None, hidden)
                slots.add_evidence(weights.squeeze(2))
            if skips:
                out = self.sparse.attend(query[0], key[0], value[0], scaling)
                return out.transpose(0, 1)[None]
        key, value, options = grouped(query, key, value, scaling)
        if queries == held and causal and within:
            return functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, **options).transpose(1, 2)
        mask = self._mask(queries, held, layer.window, query.device)
        mask = mask if hidden is None else mask & ~hidden
        return attend_by_rows(query, key, value, lambda rows, seen: mask[rows, :seen],
                              ahead is None, **options).transpose(1, 2)

    def _mask(self, queries: int, held: int, window: int, device: torch.device) -> torch.Tensor:
        """Let queries see `window` - 1 tokens (0: all) before them, and `ahead`: bool [q, K]."""
        shape = queries, held, window, device
        if shape not in self._masks:
            column = torch.arange(held, device=device)
            place = torch.arange(held - queries, held, device=device)[:, None]
            last = self._last(place - held + queries, held - queries,
                              self.ahead if window else self.far)
            self._masks[shape] = (column <= last) & (place - column < (window or held))
        return self._masks[shape]

    @staticmethod
    def _last(rows: torch.Tensor, past: int, ahead: torch.Tensor | None) -> torch.Tensor:
        """Give the last slot that each of some rows of the chunk, behind `past` slots, sees."""
        return past + (rows if ahead is None else ahead.to(rows.device)[rows])

    def _probabilities(self, query: torch.Tensor, key: torch.Tensor, scaling: float,
                       last: torch.Tensor | None, hidden: torch.Tensor | None) -> torch.Tensor:
        """
        Softmax of some rows over the keys that are not hidden, fp32 [Hkv, H / Hkv, r, K].

        `last` are the last slots that they see, None for all; `hidden` is bool, [K] or
        [G, 1, 1, K].
        """
        heads, held = key.shape[1], key.shape[2]
        groups, count = query.shape[1] // heads, query.shape[2]
        logits = torch.matmul(
            query.reshape(1, heads, groups * count, -1), key.transpose(2, 3)).float()
        logits = logits.view(heads, groups, count, held).mul_(scaling)
        if last is not None:
            later = torch.arange(held, device=key.device)[None] > last[:, None]
            logits.masked_fill_(later, float('-inf'))
        if hidden is not None:
            logits.masked_fill_(hidden, float('-inf'))
        return logits.softmax(-1)

    def _attend_in_blocks(self, slots: Slots | None, query: torch.Tensor, key: torch.Tensor,
                          value: torch.Tensor, scaling: float, ahead: torch.Tensor | None,
                          hidden: torch.Tensor | None, whole: bool) -> torch.Tensor:
        """Attend with probabilities that can be read; window and evidence are read from them."""
        return self._reading(
            slots, query, *key.shape[1:3], lambda rows, *sums: attend_in_blocks(
                query, key, value, scaling, ahead, hidden, None if whole else rows, *sums))

    def _fuses(self, queries: int, held: int) -> bool:
        """Tell whether a kernel suits: everything is seen, and a part of the queries asked."""
        return (self.glance is None and self.far is None and self.among is None
                # where every query is asked, probabilities at hand are better than logits
                and (self.rows is None or len(self.rows) < queries)
                and not (self.sparse and self.sparse.suits(queries, held)))

    def _reading(self, slots: Slots | None, query: torch.Tensor, heads: int, held: int,
                 attend: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Attend by a function of rows and sums, and hand the slots window and evidence."""
        def sums(wanted: bool) -> torch.Tensor | None:
            return torch.zeros(heads, query.shape[1] // heads, held,
                               device=query.device) if wanted else None

        rows = None if self.rows is None else self.rows.to(query.device)
        window = sums(slots is not None and rows is not None and self.among is None)
        final = sums(slots is not None and self.evidence)
        out = attend(rows, window, final)
        if window is not None:
            slots.add_window(window)
        if final is not None:
            slots.add_evidence(final)
        return out

    def _collect_window(self, slots: Slots, query: torch.Tensor, key: torch.Tensor,
                        scaling: float, hidden: torch.Tensor | None) -> None:
        past = key.shape[2] - query.shape[2]
        if self.among is not None:
            unlike = slots.unlike(self.among)[:, None, None].to(key.device)
            hidden = unlike if hidden is None else unlike | hidden
        slots.add_window(sum(
            self._probabilities(
                query[:, :, rows], key, scaling, self._last(rows, past, self.far), hidden).sum(2)
            for rows in self.rows.to(key.device).split(ROWS_AT_ONCE)))
