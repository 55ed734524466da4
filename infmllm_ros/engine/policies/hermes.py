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

"""HERMES: layers as a hierarchy of memories, by recency, by attention, and by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from .base import keep_best, last, option, Policy, PROBE_TEXT, Role, sinks_option, View
from ..chunk import Chunk
from ..errors import PolicyError


@dataclass
class Hermes(Policy):
    """
    Keep recent tokens in shallow layers, and attended ones in deep layers.

    Source: HERMES (arXiv 2601.14724). Before a choice a guidance text is run over the cache and
    rolled back; A is its attention. Token j of layer l, with age a_j from 0 (newest) to 1:

        R_j = exp(-k_l a_j)                               (recency)
        S_j = w_l R_j + (1 - w_l) * (mean over the guidance's queries of A_ij)
        T_j = (1 - m_l) S_j + m_l T_j of layer l + 1      (smoothing; none in the last layer)
        keep = in each layer, the budget's worth of tokens with the highest T_j.

    With w_l = 1 in shallow layers (sensory memory), 0 in deep ones (long-term memory), and in the
    middle ones (working memory) falling from `weight` by `weight_fall`; k_l falls there from
    `decay` to `decay_end`. Open in the paper, or other in its released preview:

    * `shallow`, `deep`: shares of the layers, rounded. The paper's 10 and 30 %.
    * `weight`, `weight_fall`: the paper's 0.75 and 0.6; the preview falls from 1 by 0.9.
    * `decay`, `decay_end`: 20 and 0.5, the preview's. Shallow layers with 20 hardly tell the older
      half of their tokens apart by age: there, smoothing decides.
    * `age`: `slot`, the place among the tokens up for choice, for with `stream` the first
      token that outlives the others by an hour makes them all look new.
    * `normalise`: R and A are each stretched to 0..1 over the tokens up for choice, as in the
      preview; off, A (of the order of 1 / budget) has no say beside R.
    * `smooth_shallow`, `smooth_middle`, `smooth_deep`: m_l, the paper's.
    * `smoothing`: `chain` takes the smoothed score of the deeper layer, `pair` its S.
    * `gone`: what the deeper layer says of a token that it has forgotten. `zero`, since what it
      evicts had its lowest scores; `own` leaves S as it is.
    * `reduce`: how heads are joined. `mean`.
    * `summary`: in each deep layer, the mean of the keys (before RoPE) and values that leave takes
      one slot, that of the newest of them, and competes from then on like any token. The paper's;
      off by default, for then all that is held was there, and evidence is what it says.
    * `target`: what a choice leaves, so that not every frame must pay for the guidance. 1: a
      choice and a run of the guidance after each frame; the paper's chunks are of 16 frames.
    * `sinks`: not in the paper, whose system prompt is never empty. Four, as in StreamingLLM:
      layers that go by recency would evict them.
    * `probe`: one text for all layers. The preview has one for the deep, one for the shallow
      layers and both for the middle ones, and puts the last question and answer in them; here
      shallow layers do not read it, and what was remembered is in the cache.

    The guidance is run through the whole model (the preview, in its fast path, hands each layer
    the bare embeddings). Positions are re-packed after every choice (the paper's "eager"; its
    "lazy" way waits until the context is nearly full).
    """

    name: ClassVar[str] = 'hermes'
    scope: ClassVar[str] = 'layer'
    channels: ClassVar[int] = 1          # mean attention of the guidance
    probe_every: ClassVar[int] = 0       # before each choice

    shallow: float = option(0.1, 'share of the layers that go by recency', low=0, high=1)
    deep: float = option(0.3, 'share of the layers that go by attention', low=0, high=1)
    weight: float = option(
        0.75, 'weight of recency in the first middle layer', low=0, high=1)
    weight_fall: float = option(
        0.6, 'how much less it is in the last middle layer', low=0, high=1)
    decay: float = option(
        20.0, 'decay of recency, end to end, up to the first middle layer', low=0)
    decay_end: float = option(0.5, 'decay of recency, end to end, in the last middle layer', low=0)
    age: str = option('slot', 'what age is measured in', choices=('slot', 'stream'))
    normalise: bool = option(True, 'stretch recency and attention to 0..1 before they are joined')
    smooth_shallow: float = option(
        0.1, 'weight of the next deeper layer in shallow layers', low=0, high=1)
    smooth_middle: float = option(
        0.3, 'weight of the next deeper layer in middle layers', low=0, high=1)
    smooth_deep: float = option(
        0.4, 'weight of the next deeper layer in deep layers', low=0, high=1)
    smoothing: str = option('chain', 'which score of the deeper layer', choices=('chain', 'pair'))
    gone: str = option('zero', 'score of what the deeper layer has forgotten',
                       choices=('zero', 'own'))
    reduce: str = option('mean', 'how heads are joined', choices=('mean', 'max'))
    summary: bool = option(False, 'merge what leaves a deep layer into one token')
    target: float = option(1.0, 'share of the budget that a choice leaves', low=0.5, high=1)
    sinks: int = sinks_option()
    probe: str = option(PROBE_TEXT, 'guidance text')

    def __post_init__(self) -> None:
        """Check every hyper-parameter, and those that depend on each other."""
        super().__post_init__()
        if not self.probe.strip():
            raise PolicyError('hermes.probe is empty, must be a text')
        if self.shallow + self.deep > 1:
            raise PolicyError(
                f'hermes.shallow {self.shallow} and hermes.deep {self.deep} are shares of the '
                'layers, must be at most 1 together')
        if self.weight_fall > self.weight:
            raise PolicyError(
                f'hermes.weight_fall is {self.weight_fall}, must be at most hermes.weight '
                f'{self.weight}')
        self.reads = self.summary

    def asks(self, role: Role, chunk: Chunk) -> torch.Tensor | None:
        """Name the guidance's queries."""
        return last(len(chunk), len(chunk)) if role is Role.PROBE else None

    def observe(self, state: torch.Tensor, window: torch.Tensor, asked: torch.Tensor) -> None:
        """Take the guidance's attention in place of the former one."""
        state[0] = window / asked.clamp_min(1)

    def select_all(self, views: Sequence[View]) -> list[torch.Tensor]:
        """Choose in all layers, the deepest first: its scores smooth those of the next."""
        keep, deeper = [], None
        for view in reversed(views):
            weight, decay, smooth, merges = self.role(view.group, view.depth)
            own = smoothed = self._score(view, weight, decay)
            if deeper is not None:
                smoothed = own.lerp(self._there(*deeper, view.index, own), smooth)
            deeper = view.index, smoothed if self.smoothing == 'chain' else own
            size = view.protected + int(self.target * (view.budget - view.protected))
            kept = keep_best(replace(view, budget=size - merges), smoothed, 0)
            keep.append(self._merge(view, kept) if merges else kept)
        return keep[::-1]

    def role(self, layer: int, depth: int) -> tuple[float, float, float, bool]:
        """Tell a layer's w_l, k_l and m_l, and whether what leaves it is merged."""
        first, deep = round(self.shallow * depth), round((1 - self.deep) * depth)
        if layer < first:
            return 1.0, self.decay, self.smooth_shallow, False
        if layer >= deep:
            return 0.0, self.decay_end, self.smooth_deep, self.summary
        way = (layer - first) / max(1, deep - 1 - first)
        return (self.weight - self.weight_fall * way,
                self.decay + (self.decay_end - self.decay) * way, self.smooth_middle, False)

    def _score(self, view: View, weight: float, decay: float) -> torch.Tensor:
        """S: fp32 [1, n]."""
        place = view.index
        if self.age == 'slot':
            place = torch.arange(view.count, device=place.device)[None]
        past = (place[:, -1:] - place).float()
        age = past / past[:, view.protected, None].clamp_min(1)
        parts = [torch.exp(-decay * age), view.state[0]]
        if self.normalise:
            for number, part in enumerate(parts):
                low, high = part[:, view.protected:].aminmax(dim=1, keepdim=True)
                parts[number] = (part - low) / (high - low).clamp_min(1e-20)
        return parts[1].lerp(parts[0], weight)

    def _there(self, index: torch.Tensor, score: torch.Tensor, wanted: torch.Tensor,
               own: torch.Tensor) -> torch.Tensor:
        """Look up the deeper layer's score of the tokens `wanted`, by stream index: [1, n]."""
        slot = torch.searchsorted(index, wanted).clamp_max(index.shape[1] - 1)
        fallback = own if self.gone == 'own' else torch.zeros_like(own)
        return torch.where(index.gather(1, slot) == wanted, score.gather(1, slot), fallback)

    def _merge(self, view: View, kept: torch.Tensor) -> torch.Tensor:
        """Write the mean of what leaves into the slot of the newest of it, and keep that too."""
        leaves = torch.ones(view.count, device=kept.device).index_fill_(0, kept[0], 0)
        slots = torch.arange(view.count, device=kept.device)
        newest = (slots * leaves).argmax()[None]
        for content in view.contents:
            content.put(newest, *(
                torch.einsum('n,hnd->hd', leaves / leaves.sum(), held.float())[:, None]
                for held in (content.plain, content.values)))
        return torch.cat((kept, newest[None]), dim=1).sort(dim=1).values
