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

"""First lesson: the vision tower learns to see, and to say it in the words of the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infmllm_ros.bundled.scenes.words import (
    AHEAD,
    COLOURS,
    NONE,
    NUMBERS,
    PLACES,
    SHAPES,
    THINGS,
)
import numpy as np
import torch
from torch import nn

from .runs import Run

HANDS = ('open', 'closed', 'holding')

SORTS: dict[str, tuple[str, ...]] = {
    'colour': COLOURS, 'shape': SHAPES, 'number': NUMBERS, 'thing': THINGS, 'ahead': AHEAD,
    'place': PLACES, 'hand': HANDS}
"""Sorts of words that a token may stand for; what is the same sort is read the same way."""

SEEN_BY: dict[str, tuple[dict[str, tuple[str, ...]], ...]] = {
    'drive': ({'light': ('colour',), 'left': ('thing',)}, {'sign': ('number',)},
              {'ahead': ('ahead',), 'vehicle': ('colour',)},
              {'cones': ('number',), 'right': ('thing',)}),
    'bench': ({'left': ('colour', 'shape'), 'on_left': ('place',)},
              {'middle': ('colour', 'shape'), 'in_middle': ('place',), 'gripper': ('hand',)},
              {'right': ('colour', 'shape'), 'on_right': ('place',), 'count': ('number',)},
              {'hold': ('colour', 'shape'), 'gripper_at': ('place',)})}
"""World -> for each vision token the facts it is to show, word by word: one of a sort."""

FACTS: dict[tuple[str, str, str], tuple[int, int]] = {
    (kind, name, sort): (token, place) for kind, tokens in SEEN_BY.items()
    for token, facts in enumerate(tokens) for name, sorts in facts.items()
    for place, sort in enumerate(sorts)}
"""World, fact, sort -> its vision token, and which word of the answer it is."""

ALWAYS = {'on_left': 'left', 'in_middle': 'middle', 'on_right': 'right'}
"""What tokens say whatever is seen: `where` something stands is read where it stands."""

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
    What a frame's tokens are to say: vision token -> logits of a sort of words.

    A fact has a token of its own to be read from, and is read by the decoder's own word
    embeddings: a token that shows a red light looks like the word `red`, so that the decoder can
    copy what it sees as it copies what it was told.

    Parameters
    ----------
    vocabulary : dict
        Word -> id.
    embeddings : torch.Tensor
        Of all words, [vocabulary, hidden]; they stay as they are.
    """

    def __init__(self, vocabulary: Mapping[str, int], embeddings: torch.Tensor) -> None:
        super().__init__()
        for sort, words in SORTS.items():
            ids = [vocabulary[word] for word in words]
            self.register_buffer(sort, embeddings.detach()[ids].clone(), persistent=False)
        # what shows nothing of a sort resembles none of its words
        self.nothing = nn.ParameterDict({sort: nn.Parameter(torch.tensor(4.)) for sort in SORTS})

    def read(self, sort: str, tokens: torch.Tensor) -> torch.Tensor:
        """Read normalised tokens [N, hidden]: logits [N, 1 + words], of nothing first."""
        return torch.cat((self.nothing[sort].expand(len(tokens), 1),
                          tokens @ self.get_buffer(sort).T), 1)

    @staticmethod
    def sights() -> dict[tuple[str, str], list[int]]:
        """List which vision token shows each fact."""
        return {(kind, name): [token] for (kind, name, _), (token, _) in FACTS.items()}

    def loss(self, features: torch.Tensor, truth: torch.Tensor,
             ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Compare with the truth.

        Parameters
        ----------
        features : torch.Tensor
            [N, vision tokens, hidden].
        truth : torch.Tensor
            int64 [N, facts]: place of the answer among the words of its sort, 0 for none; -100
            where it is not asked.

        Returns
        -------
        tuple of torch.Tensor
            The loss, and whether each answer is right: [N, facts].
        """
        tokens = nn.functional.rms_norm(features.float(), features.shape[-1:])
        loss = features.new_zeros(())
        right = torch.zeros_like(truth, dtype=torch.bool)
        for column, ((_, _, sort), (token, _)) in enumerate(FACTS.items()):
            logits, target = self.read(sort, tokens[:, token]), truth[:, column]
            # most frames show no sign: what is there counts more than what is not
            weight = torch.ones(logits.shape[1], device=logits.device)
            weight[0] = NONE_WEIGHT
            loss = loss + nn.functional.cross_entropy(
                logits, target, weight, ignore_index=-100, reduction='sum')
            right[:, column] = logits.argmax(1) == target
        return loss / (truth >= 0).sum().clamp_min(1), right


def truths(run: Run) -> np.ndarray:
    """Write what the frames of a run show: int64 [T, facts], -100 for facts of other worlds."""
    out = np.full((len(run.now), len(FACTS)), -100, np.int64)
    for column, ((kind, name, sort), (_, place)) in enumerate(FACTS.items()):
        if kind == run.kind:
            for ordinal, truth in enumerate(run.now):
                if name in truth or name in ALWAYS:
                    words = (truth.get(name) or ALWAYS[name]).split()
                    out[ordinal, column] = (
                        0 if words == [NONE] else 1 + SORTS[sort].index(words[place]))
    return out


@torch.no_grad()
def encode_all(model: Any, runs: Sequence[Run], batch: int = 256) -> torch.Tensor:
    """Encode every frame of the runs once: fp32 [runs, T, vision tokens, hidden]."""
    return torch.stack([
        torch.cat([look(model, part) for part in torch.from_numpy(run.images).split(batch)])
        for run in runs])
