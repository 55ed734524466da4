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

"""LFM3-VL: the frames of Qwen3-VL, over convolutions, windows and few full layers."""

from __future__ import annotations

from typing import Any

import torch

from .qwen_vl import Qwen3VL
from ..features import Features


class Lfm3VL(Qwen3VL):
    """As Qwen3-VL, but its language model counts the tokens of a frame one by one."""

    model_types = ('lfm3_vl',)

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read what Qwen3-VL reads; no grid spans positions."""
        most = super().configure(settings, tokens_per_frame)
        self.max_extent = 1
        return most

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower, which unlike others does not cast its pixels."""
        return super().look(
            model, {**pixels, 'pixel_values': pixels['pixel_values'].to(model.dtype)})
