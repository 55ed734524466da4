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

"""H2O: heavy hitters by attention summed over all queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import (
    keep_best,
    last,
    Policy,
    recent_option,
    reduce_option,
    Role,
    scope_option,
    share_of,
    View,
)
from ..chunk import Chunk


@dataclass
class H2O(Policy):
    """
    Keep the recent tokens and those that all queries so far attended to most.

    Source: H2O (arXiv 2306.14048), algorithm 1; released code: ``H2OKVCache_LayerWise``. With A
    the causal attention of every query i since the start of the stream,

        F_j = sum over all i >= j of A_ij                 (plain sum: no mean, no decay)
        keep = the recent tokens, and of the older ones those with the highest F_j.

    That needs each chunk's whole attention matrix, which flash attention never forms: the price
    of the method. And since sums only grow, a token that leads is hardly overtaken: a newcomer has
    collected, by the time it stops being recent, the attention of a few hundred queries, against
    that of all since the start. **The memory freezes** on what came early. That is the paper's
    method; `saddle` is its remedy (mean over a window, bias against age).

    The paper evicts after every forward pass of a prompt or a token; here a frame is a forward
    pass, and the tokens of an answer compete when it is over. Left open, for the paper's models
    give each query head its own keys, or differing within its experiments:

    * `recent`: half of the budget, the released configurations' split (0.1 heavy, 0.1 recent).
    * `scope`: per KV head, as in the paper. `layer` and `all`: one list for a layer, or for all.
    * `reduce`: how query heads that share a list are joined. `mean`: in rank the same as the sum
      of the attention that a key received. `max`: the head, chunk by chunk, that attends most.
    """

    name: ClassVar[str] = 'h2o'
    channels: ClassVar[int] = 1          # sum of attention since the start

    recent: float = recent_option(0.5)
    scope: str = scope_option('head')
    reduce: str = reduce_option()

    def asks(self, role: Role, chunk: Chunk) -> torch.Tensor | None:
        """Name every query that enters the stream."""
        return None if role is Role.PROBE else last(len(chunk), len(chunk))

    def observe(self, state: torch.Tensor, window: torch.Tensor, asked: torch.Tensor) -> None:
        """Add the chunk's column sums to those since the start."""
        state[0] += window

    def select(self, view: View) -> torch.Tensor:
        """Keep protected tokens, heavy hitters and recent tokens."""
        return keep_best(view, view.state[0], share_of(self.recent, view.budget))
