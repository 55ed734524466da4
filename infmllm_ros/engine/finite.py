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

"""
Numbers that are none: what a model makes of a chunk must be finite, or the chunk stays out.

An overflow (of float16, say), a damaged weight or a broken kernel gives NaN or infinity, and what
attends to it becomes NaN too: one such token in the memory would spoil every later answer. A layer
adds to the hidden states that its keys and values are made of, so the last hidden states of a
chunk are finite only if the keys and values are that it brings, and those that it attends to.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import TYPE_CHECKING

import torch

from .errors import NotFiniteError
from .policies import Role

if TYPE_CHECKING:
    from .answer import Frame
    from .cache import StreamCache


def check(cache: StreamCache, outcome: torch.Tensor, role: Role, frames: Sequence[Frame] = (),
          ) -> None:
    """
    Refuse a pass that came to NaN or infinity, before it counts.

    Parameters
    ----------
    cache : StreamCache
        Which the pass wrote to.
    outcome : torch.Tensor
        Last hidden states [1, q, hidden], or logits [n, vocab].
    role : Role
        Of the chunk.
    frames : sequence of Frame
        The frame of each of its tokens, if it is of frames.

    Raises
    ------
    NotFiniteError
        Naming the frames, or what else the chunk was.
    """
    # one reduction: a sum is finite only if its terms are, and in float32 if they are sane
    if not math.isfinite(outcome.sum(dtype=torch.float32)):
        named = ', '.join(dict.fromkeys(
            f'{frame.camera or "camera"} {frame.stamp_ns} ns' for frame in frames))
        raise failure(f'the frame ({named})' if frames else f'the {_NAMES[role]}', cache)


def failure(what: str, cache: StreamCache) -> NotFiniteError:
    """Say that `what` came to NaN or infinity, which lies in a cache now, and what to do."""
    cache.soiled = True
    return NotFiniteError(
        f'{what} made the model compute NaN or infinity and was left out: if it happens again '
        'load the model as bfloat16 or float32, and check its weights')


_NAMES = {Role.PREFIX: 'system prompt', Role.FRAME: 'frame', Role.TEXT: 'text',
          Role.QUESTION: 'question', Role.ANSWER: 'answer', Role.PROBE: "policy's guidance text"}
