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

"""StreamingLLM: attention sinks and a rolling window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import Policy, sinks_option, View


@dataclass
class StreamingLLM(Policy):
    """
    Keep the first tokens and the most recent ones.

    Source: StreamingLLM (arXiv 2309.17453), section 3.2: four sinks and a rolling window,
    positions counted inside the cache.
    """

    name: ClassVar[str] = 'streaming_llm'

    sinks: int = sinks_option()

    def select(self, view: View) -> torch.Tensor:
        """Keep sinks and recent tokens."""
        recent = view.budget - view.protected
        slots = torch.arange(view.count, device=view.index.device)
        keep = torch.cat((slots[:view.protected], slots[view.count - recent:]))
        return keep.expand(view.index.shape[0], -1)
