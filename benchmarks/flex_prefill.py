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
Show what FlexPrefill saves and loses: on one layer, against dense, and on the memory exam.

The inputs of the layer's attention are made so that each head has the kind of structure that the
paper finds in trained models: sinks and neighbours, a far diagonal, scattered columns, or blocks
that look for blocks. Each length prints one row: medians, by turns, of this process's own time.
The rest of the layer, projections and MLP of Qwen2.5-0.5B, takes its turn too.

Then the bundled model sits the memory exam in backlogs of frames, prefilled densely and by flex of
several gamma, whose blocks are as small as its chunks are short.

    python -m benchmarks.flex_prefill [--lengths 8192 16384 32768 4096+8192] [--dtype bfloat16]
    [--set gamma=0.9 min_budget=512 ...] [--rounds 3] [--frames 0]
    python -m benchmarks.flex_prefill --lengths --frames 3600       # the exam alone
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from infmllm_ros.bundled import MODEL, MODEL_POLICY
from infmllm_ros.engine import FlexPrefill, load_model, StreamingModel
from infmllm_ros.engine.attention import attend_by_rows
from infmllm_ros.engine.blocks import attend_in_blocks, fast_products
from infmllm_ros.engine.prefill import sparse
from infmllm_ros.engine.prefill.sparse import shares
import torch
from torch.nn.functional import normalize, scaled_dot_product_attention

from .exam import (
    enter,
    fingerprint,
    FIRST_SEED,
    hold,
    Ledger,
    Plan,
    Setting,
    sit,
    write_paper,
)
from .frame_cost import keep_memory
from .shapes import random_model
from .timing import add_flex, by_turns, parser, read_flex, write_shape

BLOCK = 128
SHAPE = 'LLaVA-OneVision-0.5B'
HEADS = (14, 2, 64)     # query heads, KV heads, channels: of that shape
BACKLOG = 150           # frames that sit the exam together: 750 tokens of the bundled model
SMALL = {'block': 16, 'min_chunk': 64, 'min_held': 256, 'min_budget': 32}     # for such chunks
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
    if fast_products(query):
        return attend_in_blocks(*whole, scaling)[0].transpose(0, 1)
    if mask is None:
        return scaled_dot_product_attention(
            *whole, is_causal=True, scale=scaling, enable_gqa=True)[0]
    return attend_by_rows(*whole, lambda rows, seen: mask[rows, :seen], scale=scaling,
                          enable_gqa=True)[0]


def rest(model: StreamingModel, length: int) -> Callable[[], object]:
    """Give what a layer computes beside attention and its cache, for so many tokens."""
    layer, dtype = model.model.get_decoder().layers[0], model.dtype
    own = layer.self_attn
    hidden = torch.randn(1, length, own.q_proj.in_features, dtype=dtype)
    mixed = torch.randn(1, length, own.o_proj.in_features, dtype=dtype)

    def run() -> None:
        with torch.no_grad():
            inner = layer.input_layernorm(hidden)
            for part in (own.q_proj, own.k_proj, own.v_proj):
                part(inner)
            layer.mlp(layer.post_attention_layernorm(hidden + own.o_proj(mixed)))
    return run


def measure(model: StreamingModel, flex: FlexPrefill, length: int, past: int, rounds: int,
            ) -> dict[str, Any]:
    """Let dense and flex attend by turns to so many tokens after `past` others."""
    inputs = structured(*HEADS, length + past, length, model.dtype)
    mask = torch.ones(length, length + past, dtype=torch.bool).tril(past) if past else None
    choice = flex.choose(*inputs[:2], inputs[3])
    if flex.backend == 'flex_attention':
        flex.attend(*inputs)                        # compiles
    times = by_turns({
        'dense': partial(dense, *inputs, mask), 'flex': partial(flex.attend, *inputs),
        'choosing': partial(flex.choose, *inputs[:2], inputs[3]), 'rest': rest(model, length)},
        rounds, 0 if length > 2 ** 14 else 1)
    expected, found = dense(*inputs, mask).float(), flex.attend(*inputs).float()
    seconds = {name: round(median(one.processor for one in spent), 4)
               for name, spent in times.items()}
    return {'chunk': length, 'held': length + past,
            'computed': round(shares(choice.active).mean().item(), 4),
            'error': round(((found - expected).norm() / expected.norm()).item(), 4),
            'seconds': seconds}


def computed(model: StreamingModel, setting: Setting, plan: Plan) -> float:
    """Tell which share of the attention to chunks that flex suits it computes, in one stream."""
    found: list[torch.Tensor] = []

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, active: torch.Tensor,
               *rest: Any) -> torch.Tensor:
        part = shares(active)
        found.append(torch.where(part > rest[3], 1, part))      # a head above that is dense
        return sparse_attend(query, key, value, active, *rest)

    sparse_attend = sparse.attend
    with patch.object(sparse, 'attend', attend):
        sit(enter(model, setting, plan, (64, 64)), write_paper(plan, 'drive', FIRST_SEED),
            setting.backlog)
    return torch.cat(found).mean().item() if found else 1.


def examine(model: StreamingModel, budget: int, gammas: Sequence[float], frames: int,
            count: int, ledger: Ledger) -> list[dict[str, Any]]:
    """Let the bundled model sit the exam frame by frame, and in backlogs: dense and by flex."""
    plan = Plan(frames, every=BACKLOG, gap=BACKLOG)
    own = tuple(sorted(MODEL_POLICY.items()))
    settings = [
        Setting('one by one', 'saddle', budget, own),
        Setting('backlogs, dense', 'saddle', budget, own, backlog=BACKLOG),
        *(Setting(f'backlogs, gamma {gamma}', 'saddle', budget, own, backlog=BACKLOG,
                  flex=tuple({**SMALL, 'gamma': gamma}.items())) for gamma in gammas)]
    found, _ = hold(model, settings, plan, count, ledger)
    rows = []
    for setting, streams in found.items():
        records = [record for stream in streams for record in stream]
        share = computed(model, setting, replace(plan, frames=min(frames, 900))
                         ) if setting.flex else 1.
        rows.append({'label': setting.label, 'computed': round(share, 4), 'asked': len(records),
                     'right': sum(record['right'] for record in records)})
    return rows


def main() -> None:
    """Measure, examine, print and write."""
    options = parser(__doc__)
    options.add_argument('--lengths', nargs='*', default=['8192', '16384', '32768', '4096+8192'],
                         help='of the chunk, + tokens held before it')
    options.add_argument('--rounds', type=int, default=3)
    options.add_argument('--frames', type=int, default=3600, help='of a stream; 0: no exam')
    options.add_argument('--streams', type=int, default=4, help='of each world')
    options.add_argument('--exam-budget', type=int, default=768)
    options.add_argument('--gammas', type=float, nargs='*', default=[.99, .95, .9, .8, .5])
    options.add_argument('--work', type=Path, default=Path('build/flex_exam.jsonl'),
                         help='file of the papers sat so far (default: %(default)s)')
    add_flex(options)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()
    if args.lengths:
        flex, model = read_flex(args.set), random_model(SHAPE, dtype=getattr(torch, args.dtype))
        rows = []
        for sizes in args.lengths:
            length, past = (*map(int, sizes.split('+')), 0)[:2]
            rows.append(measure(model, flex, length, past, args.rounds))
            print(rows[-1], flush=True)
        write_shape('speed_flex', args.dtype, {
            'shape': SHAPE, 'rounds': args.rounds, 'rows': rows}, args.out)
    if args.frames:
        exam = examine(load_model(MODEL), args.exam_budget, args.gammas, args.frames,
                       args.streams, Ledger(args.work, fingerprint(MODEL)))
        for row in exam:
            print(row)
        write_shape('speed_flex', 'exam', {
            'budget': args.exam_budget, 'backlog': BACKLOG, 'frames': args.frames,
            'streams': 2 * args.streams, 'exam': exam}, args.out)


if __name__ == '__main__':
    main()
