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

"""InfiniPot-V: what is new in time, and what has large values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch.nn import functional

from .base import keep_best, option, Policy, scope_option, View
from ..chunk import Content, Kind

POOLS = ((3, 7), (2, 5), (1, 3), (0, 1))    # dimensions and kernel, one for each quarter of layers


@dataclass
class InfiniPotV(Policy):
    """
    Keep recent tokens, old ones unlike them, and ones with large values.

    Source: InfiniPot-V (arXiv 2506.15745). When the cache hits its limit |M| (the budget), it is
    compressed to |C| = `target` |M| without looking at any query:

        recent   the last `recent` |M| tokens
        TaR      s(t, i, j) = - mean over recent t' of cos(K(t, i, j), K(t', i, j))
        VaN      s = |V|, its mean over a neighbourhood that shrinks with depth

    `tar` |C| tokens are the recent ones and those with the highest TaR; the rest of |C| are the
    highest in VaN. (i, j) is a patch, t a frame; TaR of a patch that no recent frame has is 0.
    VaN is averaged over held vision tokens: by quarter of the layers over 7 x 7 x 7 (frames, rows,
    columns), 5 x 5, 3 in a row, and not at all; a kernel larger than a side shrinks to it. Open:

    * `target`, `recent`: 0.75 and 0.25, as the released example (32 frames to 24, 8 recent).
    * `scope`: per KV head, as released. Joined lists take the mean of TaR and of VaN / its mean.
    * `keys`: `rotated`, at their places in the cache, as the released code compares what its cache
      holds (at places in the stream there). `plain`: before RoPE, whatever the distance.
    * `pooling`: `layers`, as the paper; `none`, as the released scripts run.
    * `text`: words between frames do not occur in the paper. `stay`: only vision is compressed;
      words leave, the oldest first, when they fill VaN's share. `norm`: they compete in VaN.
      The tokens around a frame always compete. TaR is for vision alone.

    Unlike the released code, which cuts what is left of old frames into frames anew, each token is
    compared at the patch where it was seen; means are over what is held, without zero padding.
    """

    name: ClassVar[str] = 'infinipot_v'
    reads: ClassVar[bool] = True

    target: float = option(0.75, 'share of the budget that a compression leaves', low=0.5, high=1)
    recent: float = option(0.25, 'share of the budget that is recent', low=0, high=0.5)
    tar: float = option(0.5, 'share of what stays for recent and temporally new tokens',
                        low=0, high=1)
    keys: str = option('rotated', 'which keys are compared', choices=('rotated', 'plain'))
    pooling: str = option('layers', 'over what value norms are averaged',
                          choices=('layers', 'none'))
    text: str = option('stay', 'what becomes of words', choices=('stay', 'norm'))
    scope: str = scope_option('head')

    def select(self, view: View) -> torch.Tensor:
        """Keep protected, recent, temporally new and large tokens."""
        room = view.budget - view.protected
        size = int(self.target * room)
        recent = min(int(self.recent * room), size)
        by_time = max(0, size - recent - round((1 - self.tar) * size))
        seen = view.kind == Kind.VISION
        old = slice(view.protected, view.count - recent)
        new, large = self._join(view, [
            (self._novelty(view, content, seen, recent), self._norms(view, content, seen))
            for content in view.contents])
        slots = torch.arange(view.count, device=large.device)
        if self.text == 'stay':
            large = large + (view.frame < 0) * (1e3 + slots)
        # of equals the newest: a stable sort, backwards
        new = new.masked_fill(~seen, float('-inf'))[:, old].flip(1)
        first = new.sort(dim=1, descending=True, stable=True).indices[:, :by_time]
        large[:, old].scatter_(1, new.shape[1] - 1 - first, float('inf'))
        return keep_best(replace(view, budget=view.protected + size), large, recent)

    def _join(self, view: View, scores: list[tuple[torch.Tensor, torch.Tensor]],
              ) -> list[torch.Tensor]:
        """Join the scores [Hkv, n] of heads and layers that share a list: [G, n]."""
        rows = len(view.index)
        return [torch.stack(kind).mean(0) if rows > 1 else torch.cat(kind).mean(0, keepdim=True)
                for kind in zip(*scores, strict=True)]

    def _novelty(self, view: View, content: Content, seen: torch.Tensor, recent: int,
                 ) -> torch.Tensor:
        """TaR: fp32 [Hkv, n]."""
        keys = content.keys if self.keys == 'rotated' else content.plain
        keys = functional.normalize(keys.float(), dim=-1)
        width, height = int(view.col.max()) + 1, int(view.row.max()) + 1
        patch = (view.row * width + view.col).expand(len(keys), -1)
        # the last tokens are the same ones in every row: the recent never were up for choice
        last = slice(view.count - recent, view.count)
        mask, place = seen[0, last].float(), patch[0, last]
        total = keys.new_zeros(len(keys), height * width, keys.shape[-1]).index_add_(
            1, place, keys[:, last] * mask[:, None])
        count = mask.new_zeros(height * width).index_add_(0, place, mask).clamp_min(1)
        alike = total / count[:, None]
        return -(keys * alike.gather(1, patch[..., None].expand_as(keys))).sum(-1)

    def _norms(self, view: View, content: Content, seen: torch.Tensor) -> torch.Tensor:
        """VaN, in units of its mean: fp32 [Hkv, n]."""
        norm = content.values.float().norm(dim=-1)
        norm = norm / norm.mean(-1, keepdim=True)
        dims, kernel = POOLS[min(3, content.layer // max(1, view.depth // 4))]
        if self.pooling == 'none' or not dims:
            return norm
        frame = view.frame.masked_fill(~seen, view.frame.max())
        seen = seen.expand_as(norm)
        both = torch.stack((norm * seen, seen.float()))                # [2, Hkv, n]
        if dims == 1:
            total, count = functional.avg_pool1d(both, kernel, 1, kernel // 2)
        else:
            frames, place = frame.unique(return_inverse=True)
            shape = len(frames), int(view.row.max()) + 1, int(view.col.max()) + 1
            kernel = (min(kernel, *shape[3 - dims:]) + 1) // 2 * 2 - 1
            place = ((place * shape[1] + view.row) * shape[2] + view.col).expand_as(norm)
            grid = both.new_zeros(*both.shape[:2], shape[0] * shape[1] * shape[2])
            grid.scatter_add_(2, place.expand_as(both), both)
            grid = grid.view(*both.shape[:2], *shape)
            for axis in range(3 - dims, 3):     # a mean over a box, one side at a time
                size = [kernel if side == axis else 1 for side in range(3)]
                grid = functional.avg_pool3d(grid, size, 1, [side // 2 for side in size])
            total, count = grid.flatten(2).gather(2, place.expand_as(both))
        return torch.where(seen, total / count.clamp_min(1e-9), norm)
