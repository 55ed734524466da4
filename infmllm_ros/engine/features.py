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

"""What a vision tower made of frames, cut by frame and put together for a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

# ``mm_encoder_outputs`` of a Hugging Face model. Of a tower's output the language model reads
# pooled features and, in Qwen3-VL, deepstack features of several layers: one tensor [1, n, D], or
# a list with [n, D] for each frame. The rest, every patch's last state, is not kept.
Features = dict[str, Any]


def split_features(seen: Features, sizes: Sequence[int]) -> list[Features]:
    """Cut the features of frames, in order, that have so many tokens each."""
    def cut(pooled: Any) -> list[Any]:
        if isinstance(pooled, torch.Tensor):
            return list(pooled.split(sizes, 1))
        return [[part] for part in torch.cat(list(pooled)).split(sizes)]

    parts: list[Features] = [{} for _ in sizes]
    for name, output in seen.items():
        pooled = cut(output.pooler_output)
        layers = [cut(layer) for layer in getattr(output, 'deepstack_features', None) or ()]
        for number, part in enumerate(parts):
            part[name] = _like(output, pooled[number], [layer[number] for layer in layers])
    return parts


def join_features(parts: Sequence[Features]) -> Features:
    """Put the features of frames that follow each other into one."""
    def together(pooled: Sequence[Any]) -> Any:
        if isinstance(pooled[0], torch.Tensor):
            return torch.cat(list(pooled), 1)
        return [part for frame in pooled for part in frame]

    joined: Features = {}
    for name, first in parts[0].items():
        outputs = [part[name] for part in parts]
        layers = zip(*(getattr(output, 'deepstack_features', None) or () for output in outputs),
                     strict=True)
        joined[name] = _like(first, together([output.pooler_output for output in outputs]),
                             [together(layer) for layer in layers])
    return joined


def _like(output: Any, pooled: Any, layers: list[Any]) -> Any:
    """Make an output of the same kind, with only what is read."""
    return type(output)(pooler_output=pooled, **{'deepstack_features': layers} if layers else {})
