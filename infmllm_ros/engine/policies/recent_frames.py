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

"""SimpleStream: the last N frames, whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import option, Policy, View


@dataclass
class RecentFrames(Policy):
    """
    Keep the last N frames and the text since the oldest of them.

    Source: SimpleStream (arXiv 2604.02317), the baseline that shows a few recent frames to the
    model for each question. Here they stay in the cache instead of being encoded again. When N
    frames do not fit the budget, as many as fit stay.
    """

    name: ClassVar[str] = 'recent_frames'
    eager: ClassVar[bool] = True

    frames: int = option(4, 'frames kept, if the budget holds them', low=1)

    def select(self, view: View) -> torch.Tensor:
        """Keep from the start of the oldest frame that still fits."""
        frame = view.frame[0]
        slots = torch.arange(view.count, device=frame.device)
        opens = torch.ones_like(frame, dtype=torch.bool)
        opens[1:] = frame[1:] != frame[:-1]
        starts = slots[opens & (frame >= 0)]
        oldest = max(view.protected, view.count - (view.budget - view.protected))
        first = view.protected
        if len(starts) > self.frames or view.count > view.budget:
            fitting = starts[-self.frames:]
            fitting = fitting[fitting >= oldest]
            first = int(fitting[0]) if len(fitting) else oldest
        keep = torch.cat((slots[:view.protected], slots[first:]))
        return keep.expand(view.index.shape[0], -1)
