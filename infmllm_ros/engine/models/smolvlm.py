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

"""SmolVLM and Idefics3: one square view a frame, a fixed number of tokens, 1-D RoPE."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch

from .base import Adapter
from .prompt import Media
from .. import preprocess
from ..features import Features, join_features


class SmolVLM(Adapter):
    """
    Frames as in the family's own video path: no splitting, squared without padding.

    The video processor resizes the longer side to ``video_sampling.video_size``, then both to
    ``max_image_size``; the prompt has ``Frame from MM:SS:`` before each frame and an empty line
    after the last.
    """

    model_types = ('smolvlm',)
    axes = MappingProxyType({'pixel_values': 1})
    resample = 1

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read sizes and wrapper tokens; count the tokens of the square view."""
        vision = self.config.vision_config
        sizes = settings.get('max_image_size') or {'longest_edge': vision.image_size}
        self.side = sizes['longest_edge']
        self.longest = self.between(settings, sizes)['longest_edge']
        # The connector folds scale_factor x scale_factor patches into one token (pixel shuffle).
        self.cells = self.side // vision.patch_size // self.config.scale_factor
        self.placeholder = self.config.image_token_id
        fake = self.token_id('<fake_token_around_image>')
        # a token of its own, but in Idefics3-8B, whose vocabulary spells it
        whole = self._tokenizer('<global-img>', add_special_tokens=False)['input_ids']
        self.opening, self.closing = (fake, *whole), (fake,)
        return self.fixed(self.cells**2, tokens_per_frame)

    def between(self, settings: dict[str, Any], sizes: dict[str, int]) -> dict[str, int]:
        """Read the size that the longer side gets first, before frames are squared."""
        return (settings.get('video_sampling') or {}).get('video_size', sizes)

    def media(self) -> Media:
        """Show the frames where the template shows an image."""
        return Media('image', self._tokenizer.decode([self.placeholder]), '\n\n')

    def stamp(self, seconds: float) -> str:
        """Write minutes and seconds, as the family's processor does."""
        return f'\nFrame from {int(seconds // 60):02d}:{int(seconds % 60):02d}:'

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Give the square view's, whatever the frame's size."""
        return self.cells, self.cells

    def pixels(self, image: Any) -> dict[str, torch.Tensor]:
        """Resize to the square view: pixel_values float32 [1, 1, 3, side, side]."""
        frame = preprocess.to_frame(image)
        size = preprocess.fit_longest(*frame.shape[-2:], self.longest)
        frame = preprocess.resize(frame, *size, self._resample)
        return {'pixel_values': self.resized(frame, self.side, self.side)[None]}

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower; on each frame alone if one of them is blank."""
        # The family drops images that are zero everywhere as padding, unless it is the only one.
        frames = pixels['pixel_values'].split(1, 1)
        if len(frames) > 1 and not all(frame.any() for frame in frames):
            return join_features([self.look(model, {'pixel_values': frame}) for frame in frames])
        return {'image': model.get_image_features(**pixels, return_dict=True)}


class Idefics3(SmolVLM):
    """
    Idefics3, and the first SmolVLM: each frame is an image of its own, not split, no stamp.

    The image processor resizes the longer side to ``size``, then both to ``max_image_size``.
    """

    model_types = ('idefics3',)

    def between(self, settings: dict[str, Any], sizes: dict[str, int]) -> dict[str, int]:
        """Read the size of stills."""
        return settings.get('size') or {'longest_edge': 4 * sizes['longest_edge']}

    def media(self) -> Media:
        """Show the frames where the template shows an image."""
        return Media('image', self._tokenizer.decode([self.placeholder]))

    def stamp(self, seconds: float) -> str:
        """Write nothing: the family has no videos."""
        return ''

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower, which drops blank frames as padding, so they get a faint spot."""
        frames = pixels['pixel_values'].clone()
        frames[~frames.flatten(2).any(-1), 0, 0, 0] = torch.finfo(torch.float16).tiny
        return super().look(model, {'pixel_values': frames})
