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

"""Families that see one square view a frame, not padded, always as many tokens."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import torch

from .base import Adapter
from .prompt import Media
from .. import preprocess
from ..features import Features


class Square(Adapter):
    """Frames of `cells` x `cells` tokens, whatever their size; `size` is that of the view."""

    cells: int
    size: tuple[int, int]

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read the view's size, by default that of the vision tower; count the tokens."""
        side = self.config.vision_config.image_size
        high, wide = side if isinstance(side, (list, tuple)) else (side, side)
        size = settings.get('size') or {}
        edge = size.get('shortest_edge')
        self.size = size.get('height', edge or high), size.get('width', edge or wide)
        return self.fixed(self.cells**2, tokens_per_frame)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Give the square view's, whatever the frame's size."""
        return self.cells, self.cells

    def view(self, image: Any) -> torch.Tensor:
        """Resize to the square view and normalise: float32 [1, 3, H, W]."""
        return self.resized(preprocess.to_frame(image), *self.size)

    def pixels(self, image: Any) -> dict[str, torch.Tensor]:
        """Resize to the square view: pixel_values float32 [1, 3, H, W]."""
        return {'pixel_values': self.view(image)}

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower; the tokens of all frames follow each other: [1, n, D]."""
        output = model.get_image_features(**pixels, return_dict=True)
        output.pooler_output = output.pooler_output.flatten(0, 1)[None]
        return {'image': output}


class LlavaOnevision(Square):
    """
    LLaVA-OneVision: frames as in the family's own video path, pooled 2 x 2; 1-D RoPE.

    196 tokens at 384 pixels, no stamp and no wrapper.
    """

    model_types = ('llava_onevision',)
    axes = MappingProxyType({'pixel_values_videos': 1})

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Count the pooled tokens."""
        vision = self.config.vision_config
        self.cells = math.ceil(vision.image_size // vision.patch_size / 2)
        self.placeholder = self.config.video_token_id
        return super().configure(settings, tokens_per_frame)

    def media(self) -> Media:
        """Show the frames where the template shows a video."""
        return Media('video', self._tokenizer.decode([self.placeholder]))

    def pixels(self, image: Any) -> dict[str, torch.Tensor]:
        """Resize to the square view: pixel_values_videos float32 [1, 1, 3, H, W]."""
        return {'pixel_values_videos': self.view(image)[None]}

    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower and the pooling."""
        output = model.get_video_features(**pixels, return_dict=True)
        # The last row is the newline that closes a video; this one goes on.
        output.pooler_output = output.pooler_output[:, :-1]
        return {'video': output}


class InternVL(Square):
    """
    InternVL: frames as in the family's videos, ``Frame1: <img> placeholders </img>``, 1-D RoPE.

    256 tokens at 448 pixels. A video counts its frames; a stream has no end and drops frames, so
    a frame is numbered by the second that it was taken in, the first being 1: at one frame a
    second these are the numbers that the family's processor writes.
    """

    model_types = ('internvl',)
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read wrapper tokens; count the tokens that pixel shuffle leaves."""
        vision = self.config.vision_config
        patches = vision.image_size[0] // vision.patch_size[0]
        self.cells = int(patches * self.config.downsample_ratio)
        self.placeholder = self.config.image_token_id
        # each frame ends its line; the template ends the line of the last one by itself
        newline = self._tokenizer('\n', add_special_tokens=False)['input_ids']
        self.opening = (self.token_id('<img>'),)
        self.closing = (self.token_id('</img>'), *newline)
        return super().configure(settings, tokens_per_frame)

    def media(self) -> Media:
        """Show the frames where the template shows a video, whose line they end themselves."""
        return Media('video', (getattr(self._tokenizer, 'video_token', None) or '<video>') + '\n')

    def stamp(self, seconds: float) -> str:
        """Write the second as the number of the frame."""
        return f'Frame{int(seconds) + 1}: '


class Gemma3(Square):
    """
    Gemma 3: ``<start_of_image> placeholders <end_of_image>`` between empty lines, no stamp.

    256 tokens of 896 x 896 pixels, without pan and scan. Tokens of a frame attend to each other
    both ways (`both_ways`), as the family's processor asks for by ``token_type_ids``. Two frames
    are four newlines apart, as in its text; its tokenizer writes them as one token where they
    come in one text, and as two here, where each frame brings its own.
    """

    model_types = ('gemma3',)
    resample = 2
    both_ways = 'all'

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Read wrapper tokens; count the tokens that the projector's pooling leaves."""
        self.cells = math.isqrt(self.config.mm_tokens_per_image)
        self.placeholder = self.config.image_token_id
        line = self._tokenizer('\n\n', add_special_tokens=False)['input_ids']
        self.opening = (*line, self.config.boi_token_id)
        self.closing = (self.config.eoi_token_id, *line)
        return super().configure(settings, tokens_per_frame)

    def media(self) -> Media:
        """Show the frames where the template shows an image."""
        return Media('image', self._tokenizer.decode([self.config.boi_token_id]))
