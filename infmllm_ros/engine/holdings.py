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

"""What is left of each frame that the memory holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .answer import Frame
from .positions import FRAME, INDEX, NO_FRAME

if TYPE_CHECKING:
    from .session import StreamingSession


@dataclass(frozen=True)
class Holding:
    """
    What is left of a frame.

    Parameters
    ----------
    frame : Frame
    tokens : float
        Tokens of it that are held, averaged over the selection groups.
    old : float
        How many of them have a gap behind them: tokens after them were evicted, they were chosen
        to stay. Under policy `saddle` these are its attention saddles.
    """

    frame: Frame
    tokens: float
    old: float


def holdings(session: StreamingSession) -> list[Holding]:
    """List the frames of which the memory holds a token, oldest first, with what is left."""
    cache, shares = session.cache, []
    for slots in cache.memory:
        index = slots.held(INDEX)
        # without a gap behind it, a token is as far from the stream's end as from the last slot
        gap = index - cache.seen != torch.arange(-slots.count, 0, device=index.device)
        weight = torch.full_like(gap, 1 / (slots.groups * len(cache.memory)), dtype=torch.float64)
        shares.append(torch.stack((slots.held(FRAME), weight, weight * gap)).flatten(1).cpu())
    numbers, tokens, old = torch.cat(shares, 1)
    frames, place = numbers.long().unique(return_inverse=True)
    tokens, old = (torch.zeros(len(frames), dtype=torch.float64).index_add_(0, place, part)
                   for part in (tokens, old))
    return [Holding(session.frames[number], held, chosen) for number, held, chosen
            in zip(frames.tolist(), tokens.tolist(), old.tolist(), strict=True)
            if number != NO_FRAME]
