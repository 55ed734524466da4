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

"""What goes through the model in one pass of a batch of streams, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

NOTHING = -1   # no reference, no marker, no branch
IGNORE = -100  # no label


@dataclass
class Part:
    """
    A part of B streams that enters the memory before the next eviction, and questions about it.

    Parameters
    ----------
    ids : torch.Tensor
        Stream tokens, int64 [B, S], padded on the right.
    lengths : torch.Tensor
        int64 [B].
    pictures : torch.Tensor
        int64 [B, S]: which row of `features` stands in for a placeholder, or NOTHING.
    refs : torch.Tensor
        int64 [B, S]: which fact's evidence a token is, a number in [0, R), or NOTHING.
    markers : torch.Tensor
        Places of status tokens, int64 [B, M], padded with NOTHING.
    live : torch.Tensor
        How much each marker is to look at each evidence, so that it is kept: float32 [B, M, R].
    ask_ids : torch.Tensor
        Question and answer tokens of all branches, int64 [B, Q].
    anchors, branches, offsets : torch.Tensor
        int64 [B, Q]: the stream token that a branch follows, its number, the place within it;
        padding has branch NOTHING.
    labels : torch.Tensor
        The token that should follow each of ``ids, ask_ids``, or IGNORE: int64 [B, S + Q].
    wanted : torch.Tensor
        Which evidence answers each branch: bool [B, K, R].
    both_heads : torch.Tensor
        Whether frames that answer a branch are to be found by the first head, which does not
        prefer what is near, as by the second, which does: bool [B, K].
    keys : torch.Tensor
        Where in ``ids, ask_ids`` the one or two words stand that a token is said of, as `code` in
        `the code is seven` or `what is the code`, and `red cup` in `where is the red cup`; else
        NOTHING: int64 [B, S + Q, 2].
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    pictures: torch.Tensor
    refs: torch.Tensor
    markers: torch.Tensor
    live: torch.Tensor
    ask_ids: torch.Tensor
    anchors: torch.Tensor
    branches: torch.Tensor
    offsets: torch.Tensor
    labels: torch.Tensor
    wanted: torch.Tensor
    both_heads: torch.Tensor
    keys: torch.Tensor

    def to(self, device: torch.device) -> Part:
        """Move every tensor."""
        return Part(**{name: part.to(device) for name, part in vars(self).items()})


@dataclass
class Outcome:
    """
    What a part said.

    Parameters
    ----------
    logits : torch.Tensor
        At every labelled place, [n, vocab].
    targets : torch.Tensor
        int64 [n].
    places : torch.Tensor
        int64 [n, 2]: row of the batch, and place in ``ids, ask_ids``.
    attention : torch.Tensor
        The attention loss of this part (0 without markers that have something to keep).
    pointing : torch.Tensor
        The pointing loss of this part.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    places: torch.Tensor
    attention: torch.Tensor
    pointing: torch.Tensor
