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

"""The control: no eviction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import option, Policy, View


@dataclass
class Full(Policy):
    """Keep everything until the budget is reached, then refuse; budget 0 is the context limit."""

    name: ClassVar[str] = 'full'
    refuses: ClassVar[bool] = True

    budget: int | str = option(0, 'tokens kept per layer, or a size; 0: as the context allows')

    def select(self, view: View) -> torch.Tensor:
        """Keep all; the session refuses a chunk that would not fit."""
        return torch.arange(view.count, device=view.index.device).expand(view.index.shape[0], -1)
