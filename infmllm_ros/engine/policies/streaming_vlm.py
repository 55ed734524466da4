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

"""StreamingVLM: text that lives long, vision that lives for seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import option, Policy, View
from ..chunk import Kind


@dataclass
class StreamingVLM(Policy):
    """
    Keep the first and the latest text, and the frames of the last seconds.

    Source: StreamingVLM (arXiv 2510.09608), section 3: three regions of the cache, with positions
    re-packed after each eviction. At time `now`, the stamp of the newest frame,

        text sink       the first `text_sink` text tokens of the stream
        text window     the last `text_window` text tokens
        vision window   the frames with now - stamp < `vision_window`

    Vision leaves first, text lives longer: what was said about a frame stays when the frame has
    gone, with the keys and values that it had, not computed anew. All of this holds after every
    chunk, also below the budget. If the budget cannot hold the whole vision window, its oldest
    frames leave early, whole; the newest frame always fits (the session sees to it). Left open:

    * system prompt: it stays, as everywhere here, and does not count as text sink; in the
      released code, too, it stands before the counted text.
    * `wrapper`: the turn and time-stamp tokens around a frame. `vision`: they leave with their
      frame, as in the released code with its default windows, equal in length. `text`: they count
      as text, and soon fill the text window.
    * stamps that jump back by more than the window (a bag that starts anew) end it as well.

    The released code counts text towards the window only once its round is 16 rounds old; here,
    as the paper says it, the window is the latest text.
    """

    name: ClassVar[str] = 'streaming_vlm'
    eager: ClassVar[bool] = True

    text_sink: int = option(512, 'first text tokens of the stream that stay', low=0)
    text_window: int = option(512, 'latest text tokens that stay', low=0)
    vision_window: float = option(16.0, 'seconds that a frame stays', low=0)
    wrapper: str = option('vision', 'what the tokens around a frame count as',
                          choices=('vision', 'text'))

    @property
    def reserve(self) -> int:
        """Text tokens that the budget must hold beside a frame."""
        return self.text_sink + self.text_window

    def select(self, view: View) -> torch.Tensor:
        """Keep protected tokens, both ends of the text, and the frames of the window that fit."""
        frame, stamp = view.frame[0], view.stamp[0]
        slots = torch.arange(view.count, device=frame.device)
        protected = slots < view.protected
        sight = frame >= 0 if self.wrapper == 'vision' else view.kind[0] == Kind.VISION
        text = ~sight & ~protected
        order = text.cumsum(0)
        text &= (order <= self.text_sink) | (order > order[-1] - self.text_window)
        sight &= ~protected & ((stamp[-1] - stamp).abs() < int(self.vision_window * 1e9))
        room = view.budget - view.protected - text.sum()
        newer = sight.flip(0).cumsum(0).flip(0)         # vision tokens from each slot on
        torn = torch.where(sight & (newer > room), frame, -1).amax()
        keep = slots[protected | text | sight & (frame > torn)]
        return keep.expand(view.index.shape[0], -1)
