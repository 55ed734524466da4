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

"""A whole stream as one input of the plain Hugging Face model, to hold a memory against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .models import StreamingModel


@dataclass(frozen=True)
class Shown:
    """A frame of a stream: uint8 [H, W, 3] RGB, seconds since the first one, camera."""

    image: np.ndarray
    seconds: float = 0.0
    camera: str = ''


def plain_inputs(streaming: StreamingModel, parts: Sequence[torch.Tensor | Shown],
                 ) -> tuple[dict[str, torch.Tensor], int]:
    """
    Write a stream as keyword arguments of the plain model, pixels and all.

    Parameters
    ----------
    streaming : StreamingModel
        Whose adapter lays out frames and preprocesses pixels.
    parts : sequence of torch.Tensor or Shown
        Token ids and frames, in order.

    Returns
    -------
    inputs : dict of torch.Tensor
        On the model's device.
    count : int
        Tokens of the stream. LLaVA-OneVision closes a video with a newline feature, for which a
        placeholder follows them.
    """
    adapter, ids, pixels = streaming.adapter, [], {}
    for part in parts:
        if isinstance(part, Shown):
            ids.append(adapter.lay_out(part.image, part.seconds).ids)
            for name, value in adapter.pixels(part.image).items():
                pixels.setdefault(name, []).append(value.to(
                    streaming.dtype if value.is_floating_point() else value.dtype))
        else:
            ids.append(part)
    whole = torch.cat(ids)
    count = len(whole)
    inputs = {name: torch.cat(values, adapter.axes.get(name, 0))
              for name, values in pixels.items()}
    if closes(inputs):
        whole = torch.cat([whole, torch.tensor([adapter.placeholder])])
    inputs['input_ids'] = whole[None]
    if streaming.rope.mrope and 'image_grid_thw' in inputs:
        inputs['mm_token_type_ids'] = (whole[None] == streaming.config.image_token_id).int()
    elif adapter.both_ways:     # a frame's tokens see each other
        name = 'mm_token_type_ids' if adapter.both_ways == 'sliding' else 'token_type_ids'
        inputs[name] = (whole[None] == adapter.placeholder).long()
    return {name: value.to(streaming.device) for name, value in inputs.items()}, count


def closes(inputs: dict[str, torch.Tensor]) -> bool:
    """Tell whether these are frames of LLaVA-OneVision, which closes a video with a token."""
    return 'pixel_values_videos' in inputs and inputs['pixel_values_videos'].ndim == 5
