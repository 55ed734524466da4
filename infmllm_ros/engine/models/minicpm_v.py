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

"""MiniCPM-V 4.6: frames of the aspect of the camera, over the language model of Qwen3.5."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import torch

from .base import Adapter
from .prompt import Media
from .. import preprocess
from ..features import Features


class MiniCPMV(Adapter):
    """
    Each frame is a view of its own: ``<image> placeholders </image>``, no slices and no number.

    The language model is that of Qwen3.5, but tokens of a frame are counted one by one: rows and
    columns have no positions.
    """

    model_types = ('minicpmv4_6',)
    axes = MappingProxyType({'pixel_values_videos': 3})
    spatial = False

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read the patch, how many become a token, the size of a view, and the wrapper."""
        self.patch = self.config.vision_config.patch_size
        self.merge = 2 if self.config.downsample_mode == '4x' else 4
        self.cell = self.patch * self.merge
        self.side = settings.get('scale_resolution') or 448
        # a square view; half as many again where the processor rounds both sides up
        most = math.ceil(1.5 * (self.side / self.cell) ** 2)
        self.max_cells = min(tokens_per_frame or most, most)
        self.side = min(self.side, self.cell * math.sqrt(self.max_cells))
        self.placeholder = self.config.video_token_id
        self.opening = (self.token_id('<image>'),)
        self.closing = (self.token_id('</image>'),)
        return self.max_cells

    def media(self) -> Media:
        """Show the frames where the template shows a video."""
        return Media('video', self._tokenizer.decode([self.placeholder]))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Fit a grid as ``find_best_resize``, but the longer side ends at the most tokens."""
        aspect = width / height
        high = int(self.side / math.sqrt(aspect))
        rows, cols = (max(1, round(side / self.cell)) for side in (high, int(high * aspect)))
        rows = min(rows, self.max_cells)
        return rows, min(cols, self.max_cells // rows)

    def pixels(self, image: Any) -> dict[str, torch.Tensor]:
        """
        Resize to whole tokens.

        Returns
        -------
        dict of torch.Tensor
            pixel_values_videos float32 [1, 3, patch, patches * patch]: patches side by side;
            target_sizes_videos int32 [1, 2]: rows and columns of patches.
        """
        frame = preprocess.to_frame(image)
        rows, cols = (side * self.merge for side in self.grid(*frame.shape[-2:]))
        pixels = self.resized(frame, rows * self.patch, cols * self.patch)
        strips = pixels.unflatten(2, (rows, self.patch)).transpose(2, 3)    # [1, 3, y, row, x]
        return {
            'pixel_values_videos': strips.flatten(3),
            'target_sizes_videos': torch.tensor([[rows, cols]], dtype=torch.int32),
        }

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower; a list of features, one for each frame."""
        return {'video': model.get_video_features(**pixels, return_dict=True)}
