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
Attention by plain matrix products, in blocks that a cache of the processor holds.

Its probabilities can be read, as a policy that asks every query needs them. And on a CPU in
bfloat16 it is two to three times as fast as torch's fused attention, whose products there run at
no more than float32's speed (docs/performance.md).
"""

from __future__ import annotations

from itertools import repeat

import torch

BLOCK = 2 ** 20         # logits of a block: 2 MiB in bfloat16, what a core's cache holds
LEAST = 32              # rows of a block: fewer would read the keys too often
BLOCK_ON_GPU = 2 ** 25  # there it bounds the peak memory
WORTH = 2 ** 17         # logits of a KV head from which it is faster

CAN = torch.cpu.get_capabilities() if hasattr(torch.cpu, 'get_capabilities') else {}
FAST_BFLOAT16 = any(CAN.get(name) for name in ('avx512_bf16', 'amx_bf16'))


def fast_products(query: torch.Tensor) -> bool:
    """Tell whether plain products of such numbers, where they lie, are faster than SDPA's."""
    return query.dtype == torch.bfloat16 and query.device.type == 'cpu' and FAST_BFLOAT16


def faster_in_blocks(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Tell whether queries [1, H, q, D] attend to keys [1, Hkv, K, D] faster than by SDPA."""
    logits = query.shape[1] * query.shape[2] * key.shape[2] // key.shape[1]
    return logits >= WORTH and fast_products(query)


def centred(key: torch.Tensor) -> torch.Tensor:
    """Take the mean of each head's keys, [Hkv, K, D], from them: logits become small."""
    return key - key.mean(1, keepdim=True, dtype=torch.float32).to(key.dtype)


def attend_in_blocks(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float,
                     ahead: torch.Tensor | None = None, hidden: torch.Tensor | None = None,
                     rows: torch.Tensor | None = None, window: torch.Tensor | None = None,
                     final: torch.Tensor | None = None, causal: bool = True) -> torch.Tensor:
    """
    Attend, a block of rows of a KV head at a time, with the softmax of each row whole.

    Logits are of the keys' type. In bfloat16 the mean of the keys is taken from them first
    (SageAttention, arXiv 2410.02367, section 4.2): it moves all logits of a row alike, which the
    softmax does not see, and what is left is small enough to be rounded.

    Parameters
    ----------
    query : torch.Tensor
        [1, H, q, D]: the last q tokens.
    key, value : torch.Tensor
        [1, Hkv, K, D].
    scaling : float
        Of the logits.
    ahead : torch.Tensor, optional
        int64 [q]: the last place among the q tokens that each sees; None: itself.
    hidden : torch.Tensor, optional
        Keys that are not seen, by anyone or by each: bool [K], [q, K] or [Hkv | 1, 1, 1 | q, K].
    rows : torch.Tensor, optional
        int64 [r]: the queries that count for `window`; None: all.
    window : torch.Tensor, optional
        fp32 [Hkv, H / Hkv, K]: the probabilities of `rows` are added to it.
    final : torch.Tensor, optional
        fp32 [Hkv, H / Hkv, K], zeros: the probabilities of the last query are added to it.
    causal : bool
        False: every query sees every key.

    Returns
    -------
    torch.Tensor
        [1, q, H, D].
    """
    (_, heads, held, size), queries = key.shape, query.shape[2]
    groups, past = query.shape[1] // heads, held - queries
    key = key[0]
    if key.dtype != torch.float32 and queries > 1:      # for one, it would cost as much again
        key = centred(key)
    query = (query[0] * scaling).view(heads, groups, queries, size)
    if hidden is not None:
        hidden = hidden.expand(heads, 1, hidden.shape[-2] if hidden.ndim > 1 else 1, held)
    out = torch.empty(1, queries, heads, groups, value.shape[-1], dtype=query.dtype,
                      device=query.device)
    whole = (query, key.transpose(1, 2), value[0], out[0].movedim(0, 2), hidden, window, final)
    parts, step = [whole], BLOCK_ON_GPU // (heads * groups * held)
    if query.device.type == 'cpu' and queries > 1:      # head by head
        parts = zip(*(repeat(None) if part is None else part.unbind() for part in whole))
        step = max(LEAST, BLOCK // (groups * held))
    step, causal = max(1, step), causal and queries > 1
    if causal:
        last = ahead
        if ahead is None:       # then the same of each block, against itself
            last = torch.arange(min(step, queries), device=query.device)
        later = torch.arange(len(last), device=query.device) > last.to(query.device)[:, None]
    for query, key, value, mixed, hidden, window, final in parts:
        for first in range(0, queries, step):
            count = min(step, queries - first)
            seen = past + first + count if causal and ahead is None else held
            asking = _cut(query, -2, first, count)
            weights = _products(asking.flatten(-3, -2), _cut(key, -1, 0, seen))
            weights = weights.view(*asking.shape[:-1], seen)
            if causal and ahead is None:        # what lies before the block is seen by all of it
                _cut(weights, -1, seen - count, count).masked_fill_(
                    later[:count, :count], float('-inf'))
            elif causal:
                _cut(weights, -1, past, queries).masked_fill_(
                    _cut(later, 0, first, count), float('-inf'))
            if hidden is not None:
                gone = hidden if hidden.shape[-2] == 1 else _cut(hidden, -2, first, count)
                weights.masked_fill_(_cut(gone, -1, 0, seen), float('-inf'))
            weights = weights.softmax(-1)
            if window is not None:
                asked = weights
                if rows is not None:
                    inside = rows if count == queries else rows[
                        (rows >= first) & (rows < first + count)] - first
                    asked = weights.index_select(-2, inside)    # indexing takes 8 times as long
                if asked.shape[-2]:
                    _cut(window, -1, 0, seen).add_(asked.sum(-2, dtype=torch.float32))
            if final is not None and first + count == queries:
                final += weights[..., -1, :]
            found = torch.matmul(weights.flatten(-3, -2), _cut(value, -2, 0, seen))
            _cut(mixed, -2, first, count).copy_(found.view(*asking.shape[:-1], -1))
    return out.flatten(2, 3)


def _cut(part: torch.Tensor, dim: int, first: int, count: int) -> torch.Tensor:
    """View some places of a dimension; all of them without a call, of which frames have many."""
    return part if count == part.shape[dim] else part.narrow(dim, first, count)


def _products(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Multiply [(Hkv,) r, D] by [(Hkv,) D, K]."""
    if key.ndim == 3 and key.device.type == 'cpu':
        # head by head: a product of several copies the keys, a view of the cache, beforehand
        return torch.stack([torch.mm(*head) for head in zip(query, key, strict=True)])
    return torch.matmul(query, key)
