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
One kernel that rotates keys and attends to them (Triton; imported only where that is installed).

Softmax is computed online, a tile of keys at a time, in float32 (FlashAttention-2, arXiv
2307.08691, section 3.1.1). The keys are split into spans that are attended to side by side and
joined by a second kernel (flash-decoding): a single query of a single sequence would else leave
most of a GPU idle.

A logit is a sum over channels, so a tile of keys is read as the first channels of its pairs, the
second ones and those that do not turn, each of which is multiplied by its own part of the queries:
rotated keys need not even be put together.
"""

from __future__ import annotations

import torch
import triton
from triton import language as tl

from .rope import INTERLEAVED, NONE

TILE_BYTES = 2 ** 14    # of a tile of keys; its values and angles take as much again each
WAVES = 2               # programs a multiprocessor gets at least, where spans can be cut so
SHORTEST = 256          # [tokens] that a span is at least, so that joining costs little


@triton.jit(do_not_specialize=['held', 'queries', 'span', 'lines'])
def _attend(query, master, value, cos, sin, place, mixed, top, total, logits,
            held, queries, span, lines, scaling, query_head, query_row, key_head, key_row,
            value_head, value_row, turn_head, turn_row,
            ASKED: tl.constexpr, GROUPS: tl.constexpr, SIZE: tl.constexpr, TURNED: tl.constexpr,
            ADJACENT: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PAIRS: tl.constexpr,
            REST: tl.constexpr, WIDTH: tl.constexpr):
    """
    Attend with some rows of one KV head to one span of its keys.

    A row is a query of one of the GROUPS heads that read this KV head. Left for :func:`_join`:
    sums of values, weights' largest logit and their sum. PAIRS, REST and WIDTH are the channels
    that are first in a pair, that do not turn, and all, as powers of two.
    """
    head = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    number = row // GROUPS
    real = number < queries
    heads = head * GROUPS + row % GROUPS
    asking = query + heads * query_head + number * query_row
    pair = tl.arange(0, PAIRS)
    first = pair * 2 if ADJACENT else pair
    second = first + 1 if ADJACENT else pair + TURNED // 2
    turns = pair < TURNED // 2
    wide = tl.arange(0, WIDTH)
    if TURNED:
        here = real[:, None] & turns[None]
        query_first = tl.load(asking[:, None] + first[None], here, 0.)
        query_second = tl.load(asking[:, None] + second[None], here, 0.)
    if REST:
        rest = TURNED + tl.arange(0, REST)
        query_rest = tl.load(asking[:, None] + rest[None], real[:, None] & (rest < SIZE)[None], 0.)
    highest = tl.full([ROWS], float('-inf'), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, WIDTH], tl.float32)
    last = held - queries + number
    begin = tl.program_id(2) * span
    end = tl.minimum(tl.minimum(begin + span, held), held - queries + 1
                     + (tl.program_id(1) * ROWS + ROWS - 1) // GROUPS)
    for start in range(begin, end, KEYS):
        token = start + tl.arange(0, KEYS)
        there = token < end
        keys = master + head * key_head + token[None] * key_row         # [1, KEYS]
        score = tl.zeros([ROWS, KEYS], tl.float32)
        if TURNED:
            given = turns[:, None] & there[None]
            turn = head * turn_head + token[None] * turn_row + first[:, None]
            cosine = tl.load(cos + turn, given, 0.).to(tl.float32)
            sine = tl.load(sin + turn, given, 0.).to(tl.float32)
            key_first = tl.load(keys + first[:, None], given, 0.).to(tl.float32)
            key_second = tl.load(keys + second[:, None], given, 0.).to(tl.float32)
            turned = (key_first * cosine - key_second * sine).to(query_first.dtype)
            score = tl.dot(query_first, turned, score, input_precision='ieee')
            turned = (key_second * cosine + key_first * sine).to(query_first.dtype)
            score = tl.dot(query_second, turned, score, input_precision='ieee')
        if REST:
            key_rest = tl.load(keys + rest[:, None], (rest < SIZE)[:, None] & there[None], 0.)
            score = tl.dot(query_rest, key_rest, score, input_precision='ieee')
        sees = there[None] & (token[None] <= last[:, None]) & real[:, None]
        score = tl.where(sees, score * scaling, float('-inf'))
        if ASKED:
            line = tl.load(place + number, real, -1)
            tl.store(logits + (heads * lines + line)[:, None] * held + token[None], score,
                     (line >= 0)[:, None] & there[None])
        higher = tl.maximum(highest, tl.max(score, 1))
        shift = tl.where(higher == float('-inf'), 0., higher)   # a row that sees nothing yet
        score = tl.exp(score - shift[:, None])
        fade = tl.exp(highest - shift)
        values = tl.load(value + head * value_head + token[:, None] * value_row + wide[None],
                         there[:, None] & (wide < SIZE)[None], 0.)
        weight = weight * fade + tl.sum(score, 1)
        sums = tl.dot(score.to(values.dtype), values, sums * fade[:, None],
                      input_precision='ieee')
        highest = higher
    line = (tl.program_id(2) * queries + number) * tl.num_programs(0) * GROUPS + heads
    tl.store(mixed + line[:, None] * SIZE + wide[None], sums,
             real[:, None] & (wide < SIZE)[None])
    tl.store(top + line, highest, real)
    tl.store(total + line, weight, real)


@triton.jit(do_not_specialize=['lines', 'spans'])
def _join(mixed, top, total, out, share, lines, spans,
          SPANS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """Join the spans of one line, a query of a head; `share` is the logarithm of all weights."""
    line = tl.program_id(0).to(tl.int64)
    span = tl.arange(0, SPANS)
    wide = tl.arange(0, WIDTH)
    part = span * lines + line
    heights = tl.load(top + part, span < spans, float('-inf'))
    highest = tl.max(heights, 0)        # finite: each query sees itself
    fade = tl.exp(heights - highest)
    weight = tl.sum(tl.load(total + part, span < spans, 0.) * fade, 0)
    sums = tl.load(mixed + part[:, None] * SIZE + wide[None],
                   (span < spans)[:, None] & (wide < SIZE)[None], 0.)
    sums = tl.sum(sums * fade[:, None], 0) / weight
    tl.store(out + line * SIZE + wide, sums.to(out.dtype.element_ty), wide < SIZE)
    tl.store(share + line, highest + tl.log(weight))


def attend_fused(query: torch.Tensor, master: torch.Tensor, value: torch.Tensor,
                 cos: torch.Tensor, sin: torch.Tensor, scaling: float, kind: str,
                 rows: torch.Tensor | None = None, window: torch.Tensor | None = None,
                 final: torch.Tensor | None = None, spans: int | None = None) -> torch.Tensor:
    """
    Do as :func:`~infmllm_ros.engine.fused.attend_rotating`, with the kernel.

    Keys are turned in float32 and rounded once, to the queries' type; all sums are float32.

    Parameters
    ----------
    query, master, value, cos, sin, scaling, kind, rows, window, final
        See there; `rows` is not None where `window` is not.
    spans : int, optional
        Into how many the keys are split; None: as many as fill the GPU.

    Returns
    -------
    torch.Tensor
        [1, q, H, D].
    """
    query, master, value, cos, sin = (
        part if part.stride(-1) == 1 else part.contiguous()
        for part in (query, master, value, cos, sin))
    (_, heads, queries, size), (_, kept, held, _) = query.shape, master.shape
    turned = 0 if kind == NONE else cos.shape[-1]
    cos, sin = cos.expand(kept, -1, -1), sin.expand(kept, -1, -1)
    if sin.stride() != cos.stride():
        cos, sin = cos.contiguous(), sin.contiguous()
    groups, device = heads // kept, query.device
    tile = min(128 // query.element_size(), max(16, _power(groups * queries)))
    keys = min(64, max(16, TILE_BYTES // (_power(size) * query.element_size())))
    tiles = triton.cdiv(groups * queries, tile)
    if spans is None:
        spans = _spans(kept * tiles, held, device)
    span = triton.cdiv(held, spans)
    out = torch.empty(1, queries, heads, size, dtype=query.dtype, device=device)
    share = torch.empty(queries, heads, device=device)
    mixed = torch.empty(spans, queries, heads, size, device=device)
    top, total = torch.empty(2, spans, queries, heads, device=device).unbind(0)
    place, logits = _lines(rows, window, final, heads, queries, held, device)
    asked, width = logits is not None, max(16, _power(size))
    _attend[kept, tiles, spans](
        query, master, value, cos, sin, place if asked else top, mixed, top, total,
        logits if asked else top, held, queries, span, logits.shape[1] if asked else 0, scaling,
        *query.stride()[1:3], *master.stride()[1:3], *value.stride()[1:3], *cos.stride()[:2],
        ASKED=asked, GROUPS=groups, SIZE=size, TURNED=turned,
        ADJACENT=kind == INTERLEAVED, ROWS=tile, KEYS=keys, PAIRS=max(16, _power(turned // 2)),
        REST=max(16, _power(size - turned)) if size > turned else 0, WIDTH=width,
        num_warps=8 if tile > 16 else 4, num_stages=2)
    _join[queries * heads,](
        mixed, top, total, out, share, queries * heads, spans, SPANS=_power(spans), SIZE=size,
        WIDTH=width)
    if window is not None:
        found = logits[:, place[rows]] - share.T[:, rows, None]
        window += found.exp_().sum(1).view_as(window)
    if final is not None:
        final += (logits[:, place[-1]] - share[-1][:, None]).exp_().view_as(final)
    return out


def _power(number: int) -> int:
    """Round up to a power of two; 1 for 0."""
    return triton.next_power_of_2(max(1, number))


def _spans(programs: int, held: int, device: torch.device) -> int:
    """Say into how many spans to cut the keys, so that programs fill the GPU."""
    there = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(triton.cdiv(WAVES * there, programs), held // SHORTEST))


def _lines(rows: torch.Tensor | None, window: torch.Tensor | None, final: torch.Tensor | None,
           heads: int, queries: int, held: int, device: torch.device,
           ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """
    Make room for the logits of the queries that are asked.

    Returns
    -------
    place : torch.Tensor or None
        int64 [q]: the line of each query; -1: not asked.
    logits : torch.Tensor or None
        fp32 [H, lines, K].
    """
    if window is None and final is None:
        return None, None
    asked = torch.zeros(queries, dtype=torch.bool, device=device)
    count = 0
    if window is not None:
        asked[rows] = True
        count = len(rows)
    if final is not None:
        asked[-1] = True
        count += 1
    place = torch.where(asked, asked.cumsum(0) - 1, -1)
    return place, torch.full((heads, count, held), float('-inf'), device=device)
