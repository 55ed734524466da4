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
Show what FlexPrefill saves and loses on one attention layer, against dense SDPA.

The inputs are made so that each head has the kind of structure that the paper finds in trained
models: sinks and neighbours, a far diagonal, scattered columns, or blocks that look for blocks.
Each length prints one row: medians, dense and flex by turns, of this process's own time.

    python -m benchmarks.flex_prefill [--lengths 8192 16384] [--past 0] [--dtype float32]
    [--set gamma=0.9 min_budget=512 ...] [--rounds 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import process_time

from infmllm_ros.engine.attention import attend_by_rows
from infmllm_ros.engine.prefill.sparse import shares
import torch
from torch.nn.functional import normalize, scaled_dot_product_attention

from .timing import add_flex, processor, read_flex

BLOCK = 128
PEAK = 20.0     # logit of what a head looks for, over a noise of a few units


def structured(heads: int, kv_heads: int, size: int, length: int, queries: int,
               dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """
    Make queries and keys with known structure: [H, q, D], [Hkv, n, D], values, and the scaling.

    A key carries its position (as rotary embeddings do: cosines and sines), whether it is one of
    a few columns that everyone needs, and a code of its block. A head's queries weigh these.
    """
    rng = torch.Generator().manual_seed(length)
    bands, marks = size * 7 // 32, size // 8
    code = size - 2 * bands - marks
    place = torch.arange(length).float()
    speed = torch.rand(bands, generator=rng) * 3 + 0.02

    def waves(at: torch.Tensor) -> torch.Tensor:
        return torch.cat((torch.cos(at[:, None] * speed), torch.sin(at[:, None] * speed)), -1)

    blocks = -(-length // BLOCK)
    codes = normalize(torch.randn(blocks, code, generator=rng), dim=-1)
    block = torch.arange(length) // BLOCK
    sought = (torch.rand(blocks, generator=rng) * torch.arange(1, blocks + 1)).long()
    sinks, columns = torch.zeros(length), torch.zeros(length)
    sinks[:4] = 1
    columns[torch.randint(length // 2, (6,), generator=rng)] = 1
    marked = torch.zeros(length, marks)
    marked[:, 0], marked[:, 1] = sinks, columns
    key = torch.cat((waves(place), marked, codes[block]), -1)
    query = torch.zeros(heads, length, size)
    spots = slice(2 * bands, 2 * bands + marks)
    for head in range(heads):
        kind = head % 4
        if kind < 2:        # neighbours, or a diagonal some thousand tokens back
            shift = 3.0 if kind == 0 else 1000.0 + 37 * head
            query[head, :, :2 * bands] = waves(place - shift) * (PEAK / bands)
            query[head, :, spots.start] = PEAK - 1
        elif kind == 2:     # scattered columns
            query[head, :, spots.start + 1] = PEAK
            query[head, :, spots.start] = PEAK / 2
        else:               # each block looks for another, and for the sinks a little
            query[head, :, spots.stop:] = codes[sought[block]] * PEAK
            query[head, :, spots.start] = PEAK / 2
    key = key.expand(kv_heads, -1, -1) + 0.05 * torch.randn(
        kv_heads, length, size, generator=rng)
    value = torch.randn(kv_heads, length, size, generator=rng)
    return (query[:, length - queries:].to(dtype).contiguous(), key.to(dtype).contiguous(),
            value.to(dtype), 1.0)


def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float,
          mask: torch.Tensor | None) -> torch.Tensor:
    """Attend as the engine does without FlexPrefill."""
    whole = query[None], key[None], value[None]
    if mask is None:
        return scaled_dot_product_attention(
            *whole, is_causal=True, scale=scaling, enable_gqa=True)[0]
    return attend_by_rows(*whole, lambda rows, seen: mask[rows, :seen], scale=scaling,
                          enable_gqa=True)[0]


def timed(function: Callable[..., torch.Tensor], *arguments: object,
          ) -> tuple[float, torch.Tensor]:
    """Run; return the seconds of this process, all threads together, and the result."""
    start = process_time()
    out = function(*arguments)
    return process_time() - start, out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--lengths', type=int, nargs='+', default=[8192, 16384])
    parser.add_argument('--past', type=int, default=0, help='tokens held before the chunk')
    parser.add_argument('--heads', type=int, nargs=3, default=(14, 2, 64),
                        metavar=('HEADS', 'KV_HEADS', 'SIZE'))
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    add_flex(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    flex = read_flex(args.set)

    print(f'{processor()}, {args.threads} threads, torch '
          f'{torch.__version__}, {args.dtype}, heads {args.heads}\n{flex}\n')
    print('chunk   held  computed  query-aware   dense s    flex s  choosing s  faster     error')
    for length in args.lengths:
        inputs = structured(*args.heads, length + args.past, length, getattr(torch, args.dtype))
        mask = None
        if args.past:
            mask = torch.ones(length, length + args.past, dtype=torch.bool).tril(args.past)
        choice = flex.choose(*inputs[:2], inputs[3])    # also warms up
        times: dict[str, list[float]] = {'dense': [], 'flex': [], 'choose': []}
        if flex.backend == 'flex_attention':
            flex.attend(*inputs)                        # compiles
        for _ in range(args.rounds):
            spent, expected = timed(dense, *inputs, mask)
            times['dense'].append(spent)
            spent, found = timed(flex.attend, *inputs)
            times['flex'].append(spent)
            times['choose'].append(timed(flex.choose, *inputs[:2], inputs[3])[0])
        full, sparse, choosing = (median(times[name]) for name in ('dense', 'flex', 'choose'))
        error = (found - expected).float().norm() / expected.float().norm()
        print(f'{length:5} {length + args.past:6} {shares(choice.active).mean():9.1%} '
              f'{int(choice.query_aware.sum()):5} of {len(choice.active):2} '
              f'{full:10.3f} {sparse:9.3f} {choosing:11.3f} {full / sparse:6.2f}x {error:9.1e}',
              flush=True)


if __name__ == '__main__':
    main()
