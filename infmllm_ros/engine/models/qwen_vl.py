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

"""Qwen2.5-VL and Qwen3-VL: as many tokens as the frame's size asks for, M-RoPE."""

from __future__ import annotations

from typing import Any

import torch

from .base import Adapter
from .prompt import Media
from .. import preprocess
from ..features import Features

# A 448 x 448 view at Qwen2.5-VL's 28 pixels a token; the checkpoints' own limit is for stills
# (up to 16,384 tokens) and would fill a memory with one frame.
TOKENS_PER_FRAME = 256


class QwenVL(Adapter):
    """
    Each frame is an image of its own: ``<|vision_start|> placeholders <|vision_end|>``.

    The family's videos fold two frames into one step of time; a stream cannot wait for the
    second, and an image is exactly a video of one such step.
    """

    model_types = ('qwen2_vl', 'qwen2_5_vl')
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read patch sizes and the limits on pixels; the longest grid is one row."""
        vision = self.config.vision_config
        self.patch, self.merge = vision.patch_size, vision.spatial_merge_size
        self.temporal = vision.temporal_patch_size
        self.cell = self.patch * self.merge
        size = settings.get('size') or {}
        least = settings.get('min_pixels') or size.get('shortest_edge') or 4 * self.cell**2
        most = settings.get('max_pixels') or size.get('longest_edge') or 16384 * self.cell**2
        self.max_cells = max(1, min(tokens_per_frame or TOKENS_PER_FRAME, most // self.cell**2))
        self.min_cells = min(self.max_cells, -(-least // self.cell**2))
        self.max_extent = self.max_cells
        self.placeholder = self.config.image_token_id
        self.opening = (self.config.vision_start_token_id,)
        self.closing = (self.config.vision_end_token_id,)
        return self.max_cells

    def media(self) -> Media:
        """Show the frames where the template shows an image."""
        ids = [*self.opening, self.placeholder, *self.closing]
        return Media('image', self._tokenizer.decode(ids))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Fit a grid to the frame, within the limits on pixels."""
        return preprocess.fit_grid(height, width, self.cell, self.min_cells, self.max_cells)

    def pixels(self, image: Any) -> dict[str, torch.Tensor]:
        """Resize to whole tokens: pixel_values [patches, 3 * 2 * patch ** 2], image_grid_thw."""
        frame = preprocess.to_frame(image)
        rows, cols = self.grid(*frame.shape[-2:])
        pixels = self.resized(frame, rows * self.cell, cols * self.cell)
        return {
            'pixel_values': preprocess.patchify(pixels, self.patch, self.merge, self.temporal),
            'image_grid_thw': torch.tensor([[1, rows * self.merge, cols * self.merge]]),
        }

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower; Qwen3-VL's output carries its deepstack features too."""
        return {'image': model.get_image_features(**pixels, return_dict=True)}


class Qwen3VL(QwenVL):
    """As Qwen2-VL and Qwen2.5-VL, with the time of each frame as text before it."""

    model_types = ('qwen3_vl', 'qwen3_5')
    mean = std = (0.5, 0.5, 0.5)

    def stamp(self, seconds: float) -> str:
        """Write seconds, as the family's processor does."""
        return f'<{seconds:.1f} seconds>'
