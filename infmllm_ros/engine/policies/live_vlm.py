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

"""LiveVLM: sinks of vision in buckets of time, and pages retrieved for each question."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch.nn import functional

from .base import keep_best, last, option, Policy, recent_option, Role, share_of, View
from ..chunk import Chunk, Content, Kind


@dataclass
class LiveVLM(Policy):
    """
    Keep recent tokens and vision of all times; retrieve pages for questions.

    Source: LiveVLM (arXiv 2505.15269v2). Short-term memory: the most recent tokens, whole.
    Long-term memory, when over budget, by Vision Sink Bucketing: with Q the last `rows` vision
    queries of a frame, K the vision keys held, L tokens long, M of which may stay,

        W = softmax(Q K^T / sqrt(D)),  S = mean of W over its rows (and heads)
        phase 1: the top `sinks_share` M by S stay
        phase 2: of the rest, the highest S first, those whose bucket ceil(p / (L / N)) holds
                 fewer than `bucket`, until M stay; N = M / `bucket`

    For a question, Position-agnostic Retrieval: the long-term memory is cut into pages of `page`
    tokens; a page's key is the mean of its keys, a page's score the attention of the question's
    queries to it, both before RoPE; the best, `retrieved` of the long-term room, stay in sight
    with the short-term memory, at positions without gaps. The memory itself does not change. Open
    in the paper:

    * `recent`: the size of the short-term memory is not published. A quarter, as elsewhere here.
    * `rows`: not published. 32: a sixth of a frame of 196 tokens, so that scoring costs a sixth of
      the frame's own attention, and yet more than one row of patches asks.
    * `sinks_share`: not published. A tenth: sinks are few, and with buckets of one token each
      beyond the first of its bucket costs another bucket its only one.
    * `position`: what p counts. `stream`: tokens since the start; every stretch of the whole past
      has the same share, however long it is. `slot`: vision tokens held; each eviction then
      thins the old as much as the new, and the far past fades by a constant rate. A bucket that
      has nothing to keep leaves its room to the highest S.
    * `text`: words do not occur in the paper. The newest stay, as a share of what is not recent,
      and are in sight of every question: what was told must not lose a vote among pictures.
      The tokens around a frame leave when it stops being recent.
    * `scope`: a score per token and layer, as in the paper; `all` averages over layers.
    * `retrieved`: 40 %, as in the paper, of what may be held: what is short is seen whole.
    * `duplicate`: neither measure nor threshold is published; what is compared is said in
      :class:`~infmllm_ros.engine.duplicates.FrameFilter`. To the bundled model, noise of 8 grey
      levels leaves every token above 0.995; a strange spot on a hundredth of the picture does
      not, three times in four. No other model was measured.

    A question's tokens choose nothing that stays: compression here looks at vision alone.
    """

    name: ClassVar[str] = 'live_vlm'
    channels: ClassVar[int] = 1          # S
    among: ClassVar[Kind] = Kind.VISION

    recent: float = recent_option(0.25)
    rows: int = option(32, 'last vision queries of a frame that score the vision held', low=1)
    bucket: int = option(1, 'tokens that a stretch of time may keep', low=1)
    sinks_share: float = option(
        0.1, 'share of the long-term vision tokens that stay whatever their bucket', low=0, high=1)
    position: str = option('stream', 'what time is measured in', choices=('stream', 'slot'))
    text: float = option(0.25, 'share of what is not recent for words', low=0, high=1)
    scope: str = option('layer', 'who shares one list of kept tokens', choices=('layer', 'all'))
    page: int = option(16, 'tokens retrieved together', low=1)
    retrieved: float = option(
        0.4, 'share of the long-term memory that a question sees; 1 = all', low=0, high=1)
    duplicate: float = option(
        0.995, "cosine from which all tokens of a frame repeat those of its camera's last one, "
        'and it is skipped; 0 = none is', low=0, high=1)

    @property
    def retrieves(self) -> bool:
        """Whether questions see a part of the memory."""
        return self.retrieved < 1

    def asks(self, role: Role, chunk: Chunk) -> torch.Tensor | None:
        """Name the last vision queries of a frame."""
        if role is not Role.FRAME:
            return None
        seen = torch.cat([torch.arange(span.start, span.start + span.rows * span.cols)
                          for span in chunk.spans])
        return seen[last(self.rows, len(seen))]

    def observe(self, state: torch.Tensor, window: torch.Tensor, asked: torch.Tensor) -> None:
        """Take the mean over the window's rows: the newest frame scores all vision anew."""
        state[0] = window / asked.max()

    def select(self, view: View) -> torch.Tensor:
        """Keep protected and recent tokens, the newest words, and vision by buckets of time."""
        old, room = self._long_term(view)
        frame, kind, index, score = (
            part[0, old] for part in (view.frame, view.kind, view.index, view.state[0]))
        words, seen = frame < 0, kind == Kind.VISION
        # what stays first: certain words, vision by buckets, more words, what is around frames
        certain = min(int(self.text * room), int(words.sum()))
        rank = words.long()
        rank[words.nonzero()[:, 0].flip(0)[:certain]] = 3
        if self.position == 'stream':
            place, length = index[seen] - view.protected + 1, int(index[-1]) - view.protected + 1
        else:
            length = int(seen.sum())
            place = torch.arange(1, length + 1, device=index.device)
        rank[seen] = torch.where(
            self.bucketed(score[seen], place, length, room - certain), 2, -1)
        slots = torch.arange(view.count, device=rank.device)
        slots[old] += rank * view.count         # of equals the newest
        return keep_best(view, slots[None], view.count - old.stop)

    def bucketed(self, score: torch.Tensor, place: torch.Tensor, length: int, size: int,
                 ) -> torch.Tensor:
        """
        Choose by Vision Sink Bucketing.

        Parameters
        ----------
        score : torch.Tensor
            S of the vision tokens, fp32 [n].
        place : torch.Tensor
            p of each, from 1 to `length`, ascending: int64 [n].
        length : int
            L.
        size : int
            M.

        Returns
        -------
        torch.Tensor
            bool [n]: which stay, min(n, M) of them.
        """
        buckets = -(-size // self.bucket)
        best = score.argsort(descending=True, stable=True)
        own = (place * buckets + length - 1)[best] // length
        own, by_bucket = own.sort(stable=True)          # in each bucket the best comes first
        earlier = torch.arange(len(own), device=own.device) - torch.searchsorted(own, own)
        fits = torch.empty_like(own, dtype=torch.bool)
        fits[by_bucket] = earlier < self.bucket
        fits[:round(self.sinks_share * size)] = True
        keep = torch.zeros_like(fits)
        keep[torch.cat((best[fits], best[~fits]))[:size]] = True
        return keep

    def retrieve(self, view: View, content: Content, query: torch.Tensor) -> torch.Tensor:
        """Choose the slots that a question sees: the best pages, words, and what is recent."""
        old, room = self._long_term(view)
        paged = torch.zeros(view.count, dtype=torch.bool, device=query.device)
        paged[old] = view.frame[0, old] >= 0
        slots = paged.nonzero()[:, 0]
        pages, most = -(-len(slots) // self.page), ceil(self.retrieved * room / self.page)
        visible = ~paged
        if pages <= most:
            visible[:] = True
        else:
            short = pages * self.page - len(slots)          # of the last page
            keys = functional.pad(content.plain[:, slots].float(), (0, 0, 0, short))
            keys = keys.unflatten(1, (pages, self.page)).mean(2)
            keys[:, -1] *= self.page / (self.page - short)
            queries = query.reshape(len(keys), -1, query.shape[-1])
            attention = torch.matmul(queries, keys.transpose(1, 2)).softmax(-1).mean((0, 1))
            chosen = torch.zeros_like(visible[:pages])
            chosen[attention.topk(most).indices] = True
            visible[slots] = chosen.repeat_interleave(self.page)[:len(slots)]
        return visible.nonzero()[:, 0]

    def _long_term(self, view: View) -> tuple[slice, int]:
        """Find the slots that are neither protected nor recent, and how many of them may stay."""
        recent = min(share_of(self.recent, view.budget), view.budget - view.protected)
        end = max(view.protected, view.count - recent)
        return slice(view.protected, end), view.budget - view.protected - recent
