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

"""LLaVA-OneVision: one square view a frame, pooled 2 x 2 as in its videos, 1-D RoPE."""

from __future__ import annotations

import math
from typing import Any

import torch

from .base import Adapter
from .prompt import Media
from .. import preprocess
from ..features import Features


class LlavaOnevision(Adapter):
    """Frames as in the family's own video path: 196 tokens at 384 pixels, no stamp."""

    model_types = ('llava_onevision',)
    axis = 1

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read the sizes; count the pooled tokens."""
        vision = self.config.vision_config
        size = settings.get('size') or {}
        side = size.get('shortest_edge', vision.image_size)
        self.size = size.get('height', side), size.get('width', side)
        self.cells = math.ceil(vision.image_size // vision.patch_size / 2)
        self.placeholder = self.config.video_token_id
        return self.fixed(self.cells**2, tokens_per_frame)

    def media(self) -> Media:
        """Show the frames where the template shows a video."""
        return Media('video', self._tokenizer.decode([self.placeholder]))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Give the square view's, whatever the frame's size."""
        return self.cells, self.cells

    def pixels(self, image: Any) -> dict[str, torch.Tensor]:
        """Resize to the square view: pixel_values_videos float32 [1, 1, 3, H, W]."""
        frame = preprocess.resize(preprocess.to_frame(image), *self.size, self._resample)
        pixels = preprocess.normalise(frame, self._mean, self._std, self._scale)
        return {'pixel_values_videos': pixels[None]}

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower and the pooling."""
        output = model.get_video_features(**pixels, return_dict=True)
        # The last row is the newline that closes a video; this one goes on.
        output.pooler_output = output.pooler_output[:, :-1]
        return {'video': output}
