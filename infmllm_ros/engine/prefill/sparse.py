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
Attention to chosen blocks of keys only: what is not chosen is never computed.

Three ways: whole heads; gathered blocks; FlexAttention, which compiles a kernel for each shape.
The first two attend by SDPA, or by plain products where these are faster (`blocks`). H: query
heads; n: keys; q: queries; b: tokens of a block; N: blocks of keys; R: rows of blocks that hold
queries, counted from the first token held.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional
from torch.nn.functional import pad

from ..attention import attend_by_rows
from ..blocks import attend_in_blocks, BLOCK, centred, fast_products

# bytes of keys and values gathered at a time: few enough to stay in a CPU's cache and to bound the
# peak memory, many enough that the calls do not count
GATHERED = 2 ** 23


def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float,
          ) -> torch.Tensor:
    """Attend causally to all keys: query [H, q, D], key and value [H, n, D] -> [H, q, D]."""
    queries, held = query.shape[1], key.shape[1]
    if fast_products(query):
        whole = attend_in_blocks(query[None], key[None], value[None], scaling)
        return whole[0].transpose(0, 1)
    if queries == held:
        return functional.scaled_dot_product_attention(
            query[None], key[None], value[None], is_causal=True, scale=scaling)[0]

    def mask(rows: slice, seen: int) -> torch.Tensor:
        count = rows.stop - rows.start
        return torch.ones(count, seen, dtype=torch.bool, device=key.device).tril(seen - count)

    return attend_by_rows(query[None], key[None], value[None], mask, scale=scaling)[0]


def gathered(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, active: torch.Tensor,
             heads: torch.Tensor, scaling: float, block: int) -> torch.Tensor:
    """
    Attend to chosen blocks, gathered side by side.

    Rows of blocks with equally many chosen blocks, of whichever heads, are computed together. In
    each the last chosen block is the one on the diagonal, the only one that needs a mask.

    Parameters
    ----------
    query : torch.Tensor
        [H, q, D].
    key, value : torch.Tensor
        [Hkv, n, D].
    active : torch.Tensor
        bool [H, R, N]: the chosen blocks; causal, those on the diagonal among them.
    heads : torch.Tensor
        int64 [H]: the KV head of each query head.
    scaling : float
    block : int

    Returns
    -------
    torch.Tensor
        [H, q, D].
    """
    queries, held, size = query.shape[1], key.shape[1], value.shape[2]
    _, rows, blocks = active.shape
    first = held - queries - (blocks - rows) * block    # of the queries, in the first row
    plain = fast_products(query)
    if plain:
        query, key = query * scaling, centred(key)
    # what is padded sees or is seen by nothing real: it lies at both ends, outside every causal
    # triangle, and padded queries are cut off below
    filled = pad(query, (0, 0, first, -held % block)).unflatten(1, (rows, block)).flatten(0, 1)
    stores = [pad(t, (0, 0, 0, -held % block)).reshape(len(t) * blocks, -1)
              for t in (key, value)]
    out = filled.new_empty((len(filled), block, size))
    triangle = torch.ones(block, block, dtype=torch.bool, device=key.device).tril()
    # every chosen block, row by row: its place in the stores
    row, column = active.flatten(0, 1).nonzero(as_tuple=True)
    place = heads.repeat_interleave(rows)[row] * blocks + column
    counts = active.sum(-1).flatten()
    starts = counts.cumsum(0) - counts
    each = block * sum(t.shape[1] // block for t in stores) * key.element_size()
    buffers = [t.new_empty(max(GATHERED // each, blocks), t.shape[1]) for t in stores]
    most = min(GATHERED // each, BLOCK // block ** 2) if plain else GATHERED // each
    for count in counts.unique().tolist():
        alike = (counts == count).nonzero()[:, 0]
        mask = None if plain else pad(triangle, ((count - 1) * block, 0), value=True)
        for some in alike.split(max(1, most // count)):
            taken = place[starts[some, None] + torch.arange(count, device=some.device)].flatten()
            # into the same buffers each time: fresh pages would cost more than the copy
            keys, values = (
                torch.index_select(store, 0, taken, out=buffer[:len(taken)])
                .view(1, len(some), count * block, -1)
                for store, buffer in zip(stores, buffers, strict=True))
            if plain:       # many rows a call; `attend_in_blocks`, row by row, took a third longer
                logits = torch.bmm(filled[some], keys[0].transpose(1, 2))
                logits[..., -block:].masked_fill_(~triangle, float('-inf'))
                out[some] = torch.bmm(logits.softmax(-1), values[0])
            else:
                out[some] = functional.scaled_dot_product_attention(
                    filled[None, some], keys, values, attn_mask=mask, scale=scaling)[0]
    return out.view(len(query), rows * block, size)[:, first:first + queries]


def compiled(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, active: torch.Tensor,
             heads: torch.Tensor, scaling: float, block: int) -> torch.Tensor:
    """Attend to chosen blocks by FlexAttention; parameters as of :func:`gathered`."""
    from torch.nn.attention.flex_attention import BlockMask
    queries, held = query.shape[1], key.shape[1]
    _, rows, blocks = active.shape
    above = (blocks - rows) * block
    first = held - queries - above
    filled = pad(query, (0, 0, first, -held % block))
    keys, values = (pad(t, (0, 0, 0, -held % block))[heads] for t in (key, value))
    diagonal = torch.zeros_like(active)
    diagonal[:, :, blocks - rows:] = torch.eye(rows, dtype=torch.bool, device=active.device)

    def seen(batch: Any, head: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> Any:
        return (above + row >= column) & active[head, row // block, column // block]

    def listed(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        order = chosen.int().sort(dim=-1, descending=True, stable=True).indices
        return chosen.sum(-1)[None].int(), order[None].int()

    mask = BlockMask.from_kv_blocks(
        *listed(diagonal), *listed(active & ~diagonal), BLOCK_SIZE=block, mask_mod=seen)
    out = _flex_attention()(filled[None], keys[None], values[None], block_mask=mask,
                            scale=scaling)[0]
    return out[:, first:first + queries]


@lru_cache(maxsize=1)
def _flex_attention() -> Any:
    from torch.nn.attention.flex_attention import flex_attention
    return torch.compile(flex_attention)


BACKENDS = {'gather': gathered, 'flex_attention': compiled}


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, active: torch.Tensor,
           scaling: float, block: int, backend: str, dense_above: float) -> torch.Tensor:
    """
    Attend to chosen blocks; heads that chose almost all attend to all.

    Parameters
    ----------
    query : torch.Tensor
        [H, q, D].
    key, value : torch.Tensor
        [Hkv, n, D].
    active : torch.Tensor
        bool [H, R, N].
    scaling : float
    block : int
    backend : str
        One of `BACKENDS`.
    dense_above : float
        Share of the causal blocks above which a head is computed densely.

    Returns
    -------
    torch.Tensor
        [H, q, D].
    """
    heads = torch.arange(len(query), device=query.device) * len(key) // len(query)
    whole = shares(active) > dense_above
    if not whole.any():
        return BACKENDS[backend](query, key, value, active, heads, scaling, block)
    out = query.new_empty((*query.shape[:2], value.shape[2]))
    out[whole] = dense(query[whole], key[heads[whole]], value[heads[whole]], scaling)
    if not whole.all():
        sparse = ~whole
        out[sparse] = BACKENDS[backend](
            query[sparse], key, value, active[sparse], heads[sparse], scaling, block)
    return out


def shares(active: torch.Tensor) -> torch.Tensor:
    """Tell which share of the causal blocks each head computes: bool [H, R, N] -> fp32 [H]."""
    _, rows, blocks = active.shape
    causal = rows * (2 * blocks - rows + 1) / 2
    return active.sum((1, 2)) / causal
