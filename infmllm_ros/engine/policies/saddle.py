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

"""Inf-MLLM: attention saddles with an attention bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import (
    keep_best,
    last,
    option,
    Policy,
    PROBE_TEXT,
    recent_option,
    reduce_option,
    Role,
    scope_option,
    share_of,
    sinks_option,
    View,
)
from ..chunk import Chunk
from ..errors import PolicyError


@dataclass
class Saddle(Policy):
    """
    Keep the recent tokens and the older ones that recent queries attend to most.

    Source: Inf-MLLM (arXiv 2409.09086). Let W be the window's queries and A their causal attention
    over the held tokens 0..t. Then

        S_j = (1 / |{i in W : i >= j}|) * sum over {i in W : i >= j} of A_ij     (column mean)
        D_j = -bias * (t - j) / t                                                (age bias)
        keep = the recent tokens, and of the older ones those with the highest S_j + D_j.

    The paper leaves these choices open; each is a field, its default given with the reason:

    * `recent`: the split between recent and relevant tokens is not published. A quarter: 10 to 50
      % served a trained model alike, 75 % left too little room for memory.
    * `sinks`: not in the paper (sinks score high by themselves). Four, as in StreamingLLM: a bad
      window can then never take them.
    * `bias`, `age`: the amplitude over the whole cache (`slot`), because a slope per token
      (`token`) would swamp the mean score after a hundred tokens; `stream` measures age in stream
      time instead.
    * `window`: who asks. `question`, the paper's: all tokens of a question when one comes, the
      last `rows` tokens of each other chunk in between. `chunk`: always the last `rows` tokens.
      `marker`: a model's own status token, the newest of a chunk. `probe`: a guidance text, run
      after every `probe_every` chunks.
    * `scope`: per KV head, per layer (the digests' reading), or one list for all layers. `all`:
      with lists of its own, layer 0 evicts the key of a fact that deeper layers keep, and costs a
      selection per layer.
    * `reduce`: how heads and layers of one list are joined. `mean`.
    * `discount`: how much older windows count, normalised by the windows that a token has seen. 0:
      the newest window alone, as in the paper.
    * `normalise`: whether scores are rescaled to mean 1 before the bias. Off: the bias is then in
      units of attention.
    """

    name: ClassVar[str] = 'saddle'
    channels: ClassVar[int] = 2          # discounted sum of scores; discounted number of windows

    recent: float = recent_option(0.25)
    sinks: int = sinks_option()
    bias: float = option(0.01, 'attention bias against age, end to end, on the mean score', low=0)
    age: str = option('slot', 'what age is measured in', choices=('slot', 'stream', 'token'))
    window: str = option(
        'question', 'whose attention scores the tokens',
        choices=('question', 'chunk', 'marker', 'probe'))
    rows: int = option(8, 'last queries of a chunk that form its window', low=0)
    scope: str = scope_option('all')
    reduce: str = reduce_option()
    discount: float = option(0.0, 'weight of older windows against the newest', low=0, high=1)
    normalise: bool = option(False, 'rescale scores to mean 1 before the bias')
    probe: str = option(PROBE_TEXT, 'guidance text of window=probe')
    probe_every: int = option(1, 'chunks between two probes', low=1)

    def __post_init__(self) -> None:
        """Check every hyper-parameter, and those that depend on each other."""
        super().__post_init__()
        if self.window != 'probe':
            self.probe = ''
        elif not self.probe.strip():
            raise PolicyError('saddle.probe is empty, must be a text when saddle.window is probe')

    def asks(self, role: Role, chunk: Chunk) -> torch.Tensor | None:
        """Name the window's queries."""
        if role in (Role.PREFIX, Role.ANSWER) or (role is Role.PROBE) != (self.window == 'probe'):
            return None
        if self.window == 'marker':
            # of a backlog's frames the newest asks, as it would have the last word one by one
            return torch.tensor(chunk.markers[-1:]) if chunk.markers else None
        if role is Role.PROBE or role is Role.QUESTION and self.window == 'question':
            return last(len(chunk), len(chunk))
        return last(self.rows, len(chunk))

    def observe(self, state: torch.Tensor, window: torch.Tensor, asked: torch.Tensor) -> None:
        """Fold the window's column means into the running score."""
        seen = (asked > 0).float()
        state *= self.discount
        state[0] += window / asked.clamp_min(1)
        state[1] += seen

    def select(self, view: View) -> torch.Tensor:
        """Keep protected, best and recent tokens."""
        score = view.state[0] / view.state[1].clamp_min(1e-9)
        if self.normalise:
            score = score / score.mean(-1, keepdim=True).clamp_min(1e-20)
        score = score - self.bias * self._age(view)
        return keep_best(view, score, share_of(self.recent, view.budget))

    def _age(self, view: View) -> torch.Tensor:
        """Tell how old each held token is: fp32 [G, n]; 0 is the newest."""
        if self.age == 'stream':
            past = (view.index[:, -1:] - view.index).float()
            return past / past[:, :1].clamp_min(1)
        past = torch.arange(view.count - 1, -1, -1, device=view.index.device).float()
        if self.age == 'slot':
            past = past / max(1, view.count - 1)
        return past.expand(view.index.shape[0], -1)
