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

"""LFM2-VL: frames of their own aspect, 64 to 256 tokens, before a hybrid of convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from .base import Adapter
from .prompt import Media
from .. import preprocess
from ..features import Features


class Lfm2VL(Adapter):
    """
    Each frame is an image of one view: ``<|image_start|> placeholders <|image_end|>``.

    The family cuts large stills into tiles beside a thumbnail; a frame is what that thumbnail is.
    There is no stamp. The language model is LFM2's: of convolutions, and few attention layers.
    """

    model_types = ('lfm2_vl',)
    resample = 2

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read the patch, the limits on tokens, and the wrapper."""
        self.patch = self.config.vision_config.patch_size
        self.merge = self.config.downsample_factor
        most = settings.get('max_image_tokens', 256)
        self.max_cells = min(tokens_per_frame or most, most)
        self.min_cells = min(settings.get('min_image_tokens', 64), self.max_cells)
        self.placeholder = self.config.image_token_id
        self.opening = (self.token_id('<|image_start|>'),)
        self.closing = (self.token_id('<|image_end|>'),)
        return self.max_cells

    def media(self) -> Media:
        """Show the frames where the template shows an image."""
        return Media('image', self._tokenizer.decode([self.placeholder]))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Fit a grid to the frame as the processor does, unless it is under half a token thin."""
        return preprocess.fit_grid(
            height, width, self.patch * self.merge, self.min_cells, self.max_cells)

    def pixels(self, image: Any) -> dict[str, torch.Tensor]:
        """
        Resize to whole tokens, and pad to the most patches that a frame may have.

        Returns
        -------
        dict of torch.Tensor
            pixel_values float32 [1, most, patch ** 2 * 3], pixel_attention_mask int64 [1, most],
            spatial_shapes int64 [1, 2]: rows and columns of patches.
        """
        frame = preprocess.to_frame(image)
        rows, cols = (side * self.merge for side in self.grid(*frame.shape[-2:]))
        pixels = self.resized(frame, rows * self.patch, cols * self.patch)
        most = self.max_cells * self.merge**2
        patches = preprocess.patch_rows(pixels, self.patch)
        return {
            'pixel_values': functional.pad(patches, (0, 0, 0, most - rows * cols)),
            'pixel_attention_mask': (torch.arange(most) < rows * cols).long()[None],
            'spatial_shapes': torch.tensor([[rows, cols]]),
        }

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower; a list of features, one for each frame."""
        return {'image': model.get_image_features(**pixels, return_dict=True)}
