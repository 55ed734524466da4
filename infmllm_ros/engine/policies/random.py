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

"""The control of every selection: chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import (
    keep_best,
    option,
    Policy,
    recent_option,
    scope_option,
    share_of,
    sinks_option,
    View,
)

_WORD = 2 ** 32 - 1


def _mix(word: torch.Tensor) -> torch.Tensor:
    """Scatter numbers below 2**32, int64, one to one over the same range."""
    # int64 products wrap, their low 32 bits are right; CPU and GPU agree to the bit
    word = (word ^ word >> 16) * 0x21f0aaad & _WORD
    word = (word ^ word >> 15) * 0xd35a2d97 & _WORD
    return word ^ word >> 15


@dataclass
class Random(Policy):
    """
    Keep the recent tokens and a random choice of the older ones.

    The control of every policy that claims to choose. Each token draws its rank once, from a hash
    of the seed and its index in the stream; of the tokens that are not recent, those with the
    highest ranks stay. That is reservoir sampling: at any moment the older tokens held are a
    uniform sample of the *whole* past, and what was told an hour ago is as likely to be held as
    what was told a minute ago. It is not a fresh draw at each eviction, under which a token's
    chance would fall geometrically with its age.

    Since ranks are computed, not drawn in turn, what is kept depends neither on how the stream
    was cut into chunks nor on the device, and survives save and load.

    `scope`: one list for all layers, or a sample of its own for each layer or KV head. `all`, as
    in `saddle`: a frame or a fact is then held by all layers or by none.
    """

    name: ClassVar[str] = 'random'

    recent: float = recent_option(0.25)
    sinks: int = sinks_option()
    scope: str = scope_option('all')
    seed: int = option(0, 'another seed, another sample', low=0, high=2 ** 31 - 1)

    def select(self, view: View) -> torch.Tensor:
        """Keep protected, sampled and recent tokens."""
        return keep_best(view, self._rank(view), share_of(self.recent, view.budget))

    def _rank(self, view: View) -> torch.Tensor:
        """Rank each held token: int64 [G, n], below 2**32."""
        rows = len(view.index)
        lists = torch.arange(rows, device=view.index.device)[:, None] + view.group * rows
        own = _mix(_mix(lists + 1) ^ self.seed)
        return _mix(_mix(view.index & _WORD ^ own) ^ (view.index >> 32) ^ self.seed)
