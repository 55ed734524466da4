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

"""First lesson: the vision tower learns to see, with a plain classifier for each visible fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infmllm_ros.bundled.scenes.words import NONE, TOPICS
import numpy as np
import torch
from torch import nn

from .runs import names, Run

FACTS: dict[tuple[str, str], tuple[str, ...]] = {
    (kind, name): topic.choices for kind, topics in TOPICS.items() for topic in topics
    if topic.kind == 'now' and topic.members == ('',) for name in names(topic)}

NONE_WEIGHT = .3


def look(model: Any, images: torch.Tensor) -> torch.Tensor:
    """
    Encode frames as the engine does.

    Parameters
    ----------
    model : transformers.LlavaOnevisionForConditionalGeneration
    images : torch.Tensor
        uint8 [N, side, side, 3].

    Returns
    -------
    torch.Tensor
        [N, vision tokens, hidden].
    """
    pixels = images.to(model.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return model.get_video_features(
        pixel_values_videos=pixels[:, None], return_dict=True).pooler_output[:, :-1]


class Eyes(nn.Module):
    """
    The classifiers, which are thrown away afterwards: fact -> logits of its answers.

    Each looks at the vision tokens as an attention head will: a weighted mean of the normalised
    tokens, then a linear map.

    Parameters
    ----------
    tokens, hidden : int
        Vision tokens of a frame, and their width.
    """

    def __init__(self, tokens: int, hidden: int) -> None:
        super().__init__()
        self.sizes = [len(choices) for choices in FACTS.values()]
        self.heads = nn.Linear(hidden, sum(self.sizes))
        self.where = nn.Parameter(torch.zeros(len(FACTS), tokens))
        # most frames show no sign: what is there counts more than what is not
        self.weights = [torch.tensor([NONE_WEIGHT if choice == NONE else 1. for choice in choices])
                        for choices in FACTS.values()]

    def sights(self) -> dict[tuple[str, str], list[int]]:
        """List which vision tokens show each fact: those with a fifth of its weight, or more."""
        return {fact: (weights >= .2).nonzero()[:, 0].tolist()
                for fact, weights in zip(FACTS, self.where.softmax(1), strict=True)}

    def loss(self, features: torch.Tensor, truth: torch.Tensor,
             ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Compare with the truth.

        Parameters
        ----------
        features : torch.Tensor
            [N, vision tokens, hidden].
        truth : torch.Tensor
            int64 [N, facts]: place of the answer among the choices; -100 where it is not asked.

        Returns
        -------
        tuple of torch.Tensor
            The loss, and whether each answer is right: [N, facts].
        """
        tokens = nn.functional.rms_norm(features.float(), features.shape[-1:])
        parts = [nn.functional.linear(weight @ tokens, *head) for weight, *head in zip(
            self.where.softmax(1), self.heads.weight.split(self.sizes),
            self.heads.bias.split(self.sizes), strict=True)]
        loss = features.new_zeros(())
        right = torch.zeros_like(truth, dtype=torch.bool)
        for place, logits in enumerate(parts):
            target = truth[:, place]
            loss = loss + nn.functional.cross_entropy(
                logits, target, self.weights[place].to(logits.device), ignore_index=-100,
                reduction='sum')
            right[:, place] = logits.argmax(1) == target
        return loss / (truth >= 0).sum().clamp_min(1), right


def truths(run: Run) -> np.ndarray:
    """Write what the frames of a run show: int64 [T, facts], -100 for facts of other worlds."""
    out = np.full((len(run.now), len(FACTS)), -100, np.int64)
    for place, ((kind, name), choices) in enumerate(FACTS.items()):
        if kind == run.kind:
            for ordinal, truth in enumerate(run.now):
                if name in truth:
                    out[ordinal, place] = choices.index(truth[name])
    return out


@torch.no_grad()
def encode_all(model: Any, runs: Sequence[Run], batch: int = 256) -> torch.Tensor:
    """Encode every frame of the runs once: fp32 [runs, T, vision tokens, hidden]."""
    return torch.stack([
        torch.cat([look(model, part) for part in torch.from_numpy(run.images).split(batch)])
        for run in runs])
