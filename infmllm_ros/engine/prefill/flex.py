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

"""FlexPrefill: long chunks attend to few blocks of what is held, chosen head by head."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

import torch

from . import search, sparse
from ..policies.base import check_option, option


class Choice(NamedTuple):
    """What each head computes."""

    active: torch.Tensor            # bool [H, R, N]: the blocks, causal
    query_aware: torch.Tensor       # bool [H]: the head's pattern; False: vertical-slash


@dataclass
class FlexPrefill:
    """
    Compute, of a long chunk's attention, only the blocks that matter.

    Source: FlexPrefill (arXiv 2502.20766). For each query head, with the last block of queries as
    representatives of all (:mod:`~infmllm_ros.engine.prefill.search` has the formulas):

    1. Estimate their attention to each block of keys from the block's mean, and compare it with
       what it truly is. Where the two agree to within `tau`, means can be trusted and the head is
       query-aware; otherwise it is vertical-slash.
    2. Vertical-slash: take the columns, and the diagonals, that hold `gamma` of the
       representatives' attention. Query-aware: take the blocks that hold `gamma` of the attention
       between means, and the least that a vertical-slash head takes.

    The paper prefills a prompt; here a chunk follows what a cache holds, and is given the rows
    that the pattern of the whole would have.

    What paper and released code leave open, or settle differently, are fields:

    * `count`: the paper's algorithm chooses single lines, its code whole blocks: so many as the
      lines would fill side by side (`tokens`). Lines that lie apart then share too few blocks and
      gamma is missed; `blocks`, the default, counts blocks until they hold gamma.
    * `slash`: a diagonal crosses two blocks of every row but when it runs through the corners.
      The released code computes `one`; `both`, the default, loses no query's share.
    * `min_budget`: the released code takes 1024 tokens, for prompts of 128 thousand. Of 8,192
      tokens that can be nearly half of all blocks; 256 keeps sinks and neighbourhood.
    * `min_chunk`, `min_held`: choosing costs as much as one block of queries does, so a chunk of 8
      blocks pays an eighth for it; and of 2,048 tokens the fewest blocks are already half of all,
      which dense computes sooner (of 4,096, a third, which it does not).
    * `dense_above`: a gathered block costs about 1.5 times what it costs in a dense head.

    ``FlexPrefill(count='tokens', slash='one', min_budget=1024, dense_above=1)`` chooses as the
    released code does, wherever blocks are whole.
    """

    name: ClassVar[str] = 'flex'

    gamma: float = option(0.95, 'share of the attention that the chosen blocks must hold; 1 = all',
                          low=0, high=1)
    tau: float = option(0.1, 'largest root of the Jensen-Shannon divergence, in nats, of a '
                        'query-aware head; 0 = no head is query-aware', low=0, high=1)
    min_budget: int = option(256, '[tokens] fewest columns, and fewest diagonals, that a head '
                             'takes', low=1)
    max_budget: int = option(0, '[tokens] most columns, and most diagonals, that a head takes; '
                             '0 = no limit', low=0)
    block: int = option(128, '[tokens] side of a block', low=16, high=1024)
    min_chunk: int = option(1024, '[tokens] shorter chunks are computed densely', low=2)
    min_held: int = option(4096, '[tokens] while fewer are held, the chunk included, it is '
                           'computed densely', low=2)
    count: str = option('blocks', 'what is counted until it holds gamma of the attention',
                        choices=('blocks', 'tokens'))
    slash: str = option('both', 'how many of the two blocks that a diagonal crosses are taken',
                        choices=('both', 'one'))
    dense_above: float = option(0.6, 'share of the blocks above which a head computes all',
                                low=0, high=1)
    backend: str = option('auto', 'how blocks are computed; auto is flex_attention on a GPU and '
                          'gather elsewhere', choices=('auto', *sparse.BACKENDS))

    def __post_init__(self) -> None:
        """Check every field."""
        for spec in fields(self):
            check_option(self, spec)

    def suits(self, queries: int, held: int) -> bool:
        """Tell whether a chunk of `queries` of all `held` tokens is worth choosing for."""
        return queries >= self.min_chunk and held >= self.min_held

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float,
               ) -> torch.Tensor:
        """
        Attend to the blocks that matter.

        Parameters
        ----------
        query : torch.Tensor
            [H, q, D], rotated.
        key, value : torch.Tensor
            [Hkv, n, D], rotated; the last q belong to the queries.
        scaling : float
            Of the logits.

        Returns
        -------
        torch.Tensor
            [H, q, D].
        """
        backend = self.backend
        if backend == 'auto':
            backend = 'flex_attention' if query.is_cuda else 'gather'
        active = self.choose(query, key, scaling).active
        return sparse.attend(
            query, key, value, active, scaling, self.block, backend, self.dense_above)

    def choose(self, query: torch.Tensor, key: torch.Tensor, scaling: float) -> Choice:
        """Choose pattern and blocks of each head (algorithm 1); parameters as of `attend`."""
        queries, held = query.shape[1], key.shape[1]
        rows = search.rows_of(queries, held, self.block, key.device)
        blocks = -(-held // self.block)
        last = query[:, -self.block:]
        columns, diagonals = search.lines(last, key, scaling)
        key_means = search.block_means(key, self.block)
        aware = search.divergence(
            search.estimate(last, key_means, scaling),
            search.block_sums(columns, self.block)) < self.tau
        low, high = (min(blocks, -(-tokens // self.block))
                     for tokens in (self.min_budget, self.max_budget or held))
        limits = (min(low, high), high)
        chosen = [search.heaviest(mass, self.gamma, self.count, self.block, limits)
                  for mass in (columns, diagonals)]
        if aware.any():
            for lot, mass in zip(chosen, (columns, diagonals), strict=True):
                lot[aware] = search.heaviest(
                    mass[aware], 0.0, self.count, self.block, limits[:1] * 2)
        active = search.vertical_slash(*chosen, rows, self.slash)
        if aware.any():
            own = torch.arange(len(query), device=key.device)[aware] * len(key) // len(query)
            skip = (held - queries) % self.block
            active[aware] |= search.query_aware(
                search.block_means(query[aware], self.block, skip), key_means[own], rows, scaling,
                self.gamma)
        return Choice(active, aware)
