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
FlexPrefill's decisions: which pattern a head has, and which blocks of its attention to compute.

Source: FlexPrefill (arXiv 2502.20766); the functions follow its algorithms 2 to 4 and say where
they go beyond. The paper prefills a whole prompt; here the q queries of a chunk are the last q of
n tokens, the others being held in a cache. Blocks are counted from the first token held, so a
chunk's blocks are the last rows of the square that the paper draws, and its first row of blocks
may begin in the midst of one.

H: query heads; n: keys; q: queries; b: tokens of a block; N = ceil(n / b): blocks of keys;
R: rows of blocks that hold queries.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad


def rows_of(queries: int, keys: int, block: int, device: torch.device) -> torch.Tensor:
    """Name the rows of blocks in which the last `queries` of `keys` tokens lie: int64 [R]."""
    return torch.arange((keys - queries) // block, -(-keys // block), device=device)


def causal_blocks(rows: torch.Tensor, blocks: int) -> torch.Tensor:
    """Say which blocks hold a key that some query of a row may see: bool [R, N]."""
    return torch.arange(blocks, device=rows.device) <= rows[:, None]


def block_sums(mass: torch.Tensor, block: int) -> torch.Tensor:
    """Add up each block of the last dimension, the last of them ragged: [..., n] -> [..., N]."""
    return pad(mass, (0, -mass.shape[-1] % block)).unflatten(-1, (-1, block)).sum(-1)


def block_means(tokens: torch.Tensor, block: int, skip: int = 0) -> torch.Tensor:
    """
    Average each block over the tokens that are there.

    Parameters
    ----------
    tokens : torch.Tensor
        [H, n, D].
    block : int
    skip : int
        Tokens of the first block that are not there.

    Returns
    -------
    torch.Tensor
        fp32 [H, ceil((skip + n) / b), D].
    """
    count = tokens.shape[1]
    there = block_sums(pad(torch.ones(count, device=tokens.device), (skip, 0)), block)
    filled = pad(tokens, (0, 0, skip, -(skip + count) % block))
    return filled.unflatten(1, (-1, block)).sum(2, dtype=torch.float32) / there[:, None]


def lines(query: torch.Tensor, key: torch.Tensor, scaling: float,
          ) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Measure the columns and diagonals of the representative attention (algorithm 3, a_v and a_s).

    Parameters
    ----------
    query : torch.Tensor
        [H, r, D]: the representative queries, the last ones of the chunk.
    key : torch.Tensor
        [Hkv, n, D].
    scaling : float
        Of the logits.

    Returns
    -------
    vertical, slash : torch.Tensor
        fp32 [H, n], each summing to 1 in a head: the mean attention to every key, and at every
        distance from the query, 0 first.
    """
    (heads, count, _), (_, held, _) = query.shape, key.shape
    vertical, slash = query.new_empty((2, heads, held), dtype=torch.float32)
    hidden = torch.ones(count, count, dtype=torch.bool, device=query.device).triu(1)
    # row i shifted right by count - 1 - i: a diagonal becomes a column
    skewed = query.new_zeros((count, held + count - 1), dtype=torch.float32)
    straight = skewed[:, count - 1:]
    columns = skewed.as_strided((count, held), (held + count, 1))
    for head in range(heads):       # one at a time: r x n logits are megabytes
        logits = (query[head] @ key[head * len(key) // heads].T).float() * scaling
        logits[:, held - count:].masked_fill_(hidden, float('-inf'))
        torch.softmax(logits, -1, out=straight)
        vertical[head], slash[head] = straight.mean(0), columns.mean(0).flip(0)
    return vertical, slash


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Root of the Jensen-Shannon divergence, in nats, of distributions [..., N] (algorithm 2)."""
    middle = (p + q) / 2

    def excess(x: torch.Tensor) -> torch.Tensor:
        return (torch.xlogy(x, x) - torch.xlogy(x, middle)).sum(-1)

    return ((excess(p) + excess(q)) / 2).clamp_min(0).sqrt()


def estimate(query: torch.Tensor, key_means: torch.Tensor, scaling: float) -> torch.Tensor:
    """
    Guess the representative queries' attention to blocks from means alone (algorithm 2, a-bar).

    Parameters
    ----------
    query : torch.Tensor
        [H, r, D].
    key_means : torch.Tensor
        fp32 [Hkv, N, D].
    scaling : float

    Returns
    -------
    torch.Tensor
        fp32 [H, N], each head summing to 1.
    """
    means = query.mean(1, dtype=torch.float32).unflatten(0, (len(key_means), -1))
    return (means @ key_means.mT * scaling).softmax(-1).flatten(0, 1)


def fewest(mass: torch.Tensor, gamma: float) -> torch.Tensor:
    """Count the first entries [..., m] that together reach gamma; all of them for gamma = 1."""
    if gamma >= 1:      # rounding of a sum must not drop what has little mass
        return torch.full(mass.shape[:-1], mass.shape[-1], device=mass.device)
    return ((mass.cumsum(-1) < gamma).sum(-1) + 1).clamp_max(mass.shape[-1])


def heaviest(mass: torch.Tensor, gamma: float, count: str, block: int,
             limits: tuple[int, int]) -> torch.Tensor:
    """
    Choose the blocks of columns, or of diagonals, that reach gamma (algorithm 3).

    The first block is always among them: the sinks, or the queries' own neighbourhood.

    Parameters
    ----------
    mass : torch.Tensor
        fp32 [H, n]: attention to each column, or along each diagonal.
    gamma : float
    count : str
        'blocks': the fewest blocks that hold gamma of the mass. 'tokens': as many blocks as the
        heaviest lines that hold gamma would fill if they lay side by side.
    block : int
    limits : tuple of int
        The fewest and the most blocks to choose.

    Returns
    -------
    torch.Tensor
        bool [H, N].
    """
    blocks = block_sums(mass, block)
    ranked = blocks.clone()
    ranked[:, 0] = float('inf')
    order = ranked.sort(dim=-1, descending=True, stable=True).indices
    if count == 'blocks':
        wanted = fewest(blocks.gather(-1, order), gamma)
    else:
        wanted = fewest(mass.sort(dim=-1, descending=True).values, gamma) // block + 1
    wanted = wanted.clamp(*limits)
    chosen = torch.arange(blocks.shape[-1], device=mass.device) < wanted[:, None]
    return torch.zeros_like(chosen).scatter_(-1, order, chosen)


def vertical_slash(columns: torch.Tensor, diagonals: torch.Tensor, rows: torch.Tensor,
                   slash: str) -> torch.Tensor:
    """
    Join chosen columns and diagonals (algorithm 3, the union of S_v and S_s).

    Parameters
    ----------
    columns, diagonals : torch.Tensor
        bool [H, N]: blocks of columns; blocks of distances, nearest first.
    rows : torch.Tensor
        int64 [R], from :func:`rows_of`.
    slash : str
        Seen from a row of blocks, keys at distances d * b to (d + 1) * b - 1 lie in the blocks d
        and d + 1 to the left. 'both' takes both, 'one' only d.

    Returns
    -------
    torch.Tensor
        bool [H, R, N].
    """
    if slash == 'both':
        diagonals = diagonals | pad(diagonals[:, :-1], (1, 0))
    left = rows[:, None] - torch.arange(columns.shape[-1], device=rows.device)
    return (columns[:, None] | diagonals[:, left.clamp_min(0)]) & (left >= 0)


def query_aware(query_means: torch.Tensor, key_means: torch.Tensor, rows: torch.Tensor,
                scaling: float, gamma: float) -> torch.Tensor:
    """
    Choose the blocks that the means of blocks say matter, over all rows at once (algorithm 4).

    Parameters
    ----------
    query_means : torch.Tensor
        fp32 [H, R, D].
    key_means : torch.Tensor
        fp32 [H, N, D]: of each query head's own KV head.
    rows : torch.Tensor
        int64 [R].
    scaling, gamma : float

    Returns
    -------
    torch.Tensor
        bool [H, R, N].
    """
    causal = causal_blocks(rows, key_means.shape[1])
    logits = query_means @ key_means.mT * scaling
    mass = logits.masked_fill(~causal, float('-inf')).softmax(-1).flatten(1) / len(rows)
    order = mass.sort(dim=-1, descending=True, stable=True).indices
    wanted = fewest(mass.gather(-1, order), gamma)
    chosen = torch.arange(mass.shape[-1], device=mass.device) < wanted[:, None]
    return torch.zeros_like(chosen).scatter_(-1, order, chosen).view_as(logits) & causal
