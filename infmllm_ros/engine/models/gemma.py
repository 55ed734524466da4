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

"""Gemma 4: frames of the aspect of the camera, in as many tokens as a video's."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from .base import Adapter
from .prompt import Media
from .. import preprocess
from ..features import Features

# What the family's video processor takes for a frame; a still may have four times as many.
TOKENS_PER_FRAME = 70


class Gemma4(Adapter):
    """
    Gemma 4: frames as in the family's videos, ``00:12 <|image> placeholders <image|>``.

    A frame is as large as its tokens allow, its aspect kept. In the larger models, whose config
    says ``use_bidirectional_attention: vision``, the tokens of a frame attend to each other both
    ways in sliding layers; in the smaller ones only to those before them.

    The processor joins frames by a space. Here each brings its own, so one more stands before the
    first.
    """

    model_types = ('gemma4',)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read patch, pooling, the limit on tokens and the wrapper."""
        vision = self.config.vision_config
        self.patch, self.pool = vision.patch_size, vision.pooling_kernel_size
        most = settings.get('max_soft_tokens') or 4 * TOKENS_PER_FRAME
        self.max_cells = min(tokens_per_frame or TOKENS_PER_FRAME, most)
        self.placeholder = self.config.video_token_id
        self.opening = (self.config.boi_token_id,)
        self.closing = (self.config.eoi_token_id,)
        if self.config.get_text_config().use_bidirectional_attention == 'vision':
            self.both_ways = 'sliding'
        return self.max_cells

    def media(self) -> Media:
        """Show the frames where the template shows a video."""
        return Media('video', self._tokenizer.decode([self.placeholder]))

    def stamp(self, seconds: float) -> str:
        """Write minutes and seconds, as the family's processor does."""
        return f' {int(seconds // 60):02d}:{int(seconds % 60):02d} '

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Fit the largest grid of the frame's aspect, as ``get_aspect_ratio_preserving_size``."""
        cell = self.patch * self.pool
        scale = math.sqrt(self.max_cells * self.pool**2 * self.patch**2 / (height * width))
        rows, cols = int(scale * height / cell), int(scale * width / cell)
        if not rows:    # as thin as that, the frame is squeezed
            cols = min(max(1, width // height), self.max_cells)
        elif not cols:
            rows = min(max(1, height // width), self.max_cells)
        return max(1, rows), max(1, cols)

    def pixels(self, image: Any) -> dict[str, torch.Tensor]:
        """
        Resize to whole tokens, and pad to the most patches that a frame may have.

        Returns
        -------
        dict of torch.Tensor
            pixel_values_videos float32 [1, most, patch ** 2 * 3], video_position_ids int64
            [1, most, 2]: column and row of each patch, -1 for padding; num_frames_per_video
            int64 [1].
        """
        frame = preprocess.to_frame(image)
        rows, cols = (side * self.pool for side in self.grid(*frame.shape[-2:]))
        pixels = self.resized(frame, rows * self.patch, cols * self.patch)
        pad = (0, 0, 0, self.max_cells * self.pool**2 - rows * cols)
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).flip(1)
        return {
            'pixel_values_videos': functional.pad(
                preprocess.patch_rows(pixels, self.patch), pad),
            'video_position_ids': functional.pad(places[None], pad, value=-1),
            'num_frames_per_video': torch.ones(1, dtype=torch.long),
        }

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower; a tuple of features, one for each frame."""
        return {'video': model.model.get_video_features(**pixels, return_dict=True)}
