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

"""Frames that show what the last one showed."""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity

from .chunk import Chunk


def vision_features(chunk: Chunk) -> torch.Tensor:
    """Read the vision features of a frame's tokens: [tokens, hidden]."""
    features = next(iter(chunk.features.values())).pooler_output
    features = features if isinstance(features, torch.Tensor) else torch.cat(list(features))
    return features.reshape(-1, features.shape[-1])


class FrameFilter:
    """
    Tells near-duplicate frames, which LiveVLM (arXiv 2505.15269v2) leaves out before prefill.

    A frame repeats the last one that was taken in from the same camera if every one of its vision
    tokens is alike in cosine to the one at its place. The paper publishes neither measure nor
    threshold. Features, not pixels: they are what the memory would hold, and tell noise and
    exposure from change; the price is that the vision tower has run. The least alike token, not
    their mean: a traffic light that turns red is one token of hundreds. The last one taken in,
    not the last one seen: slow change adds up.

    Parameters
    ----------
    threshold : float
        Least cosine of a repeated token; 0 turns the filter off.

    Attributes
    ----------
    last : dict of str to torch.Tensor
        By camera, the features [tokens, hidden] of the last frame taken in.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.last: dict[str, torch.Tensor] = {}

    def repeats(self, chunk: Chunk, camera: str) -> bool:
        """Tell whether a frame shows what the camera's last one showed."""
        last = self.last.get(camera)
        if last is None:
            return False
        now = vision_features(chunk).to(last.device)
        return now.shape == last.shape and bool(
            cosine_similarity(now.float(), last.float(), dim=-1).min() >= self.threshold)

    def take(self, chunk: Chunk, camera: str) -> None:
        """Remember a frame that was taken in."""
        if self.threshold:
            self.last[camera] = vision_features(chunk)
