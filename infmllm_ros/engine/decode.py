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

"""From logits to tokens, and from tokens to text."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers.decoders import DecodeStream
import torch
from transformers import (
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from .errors import QuestionError


@dataclass(frozen=True)
class Sampling:
    """
    How the next token is chosen.

    Parameters
    ----------
    temperature : float
        0 is greedy.
    top_p : float
        Nucleus: the smallest set of tokens with at least this probability.
    seed : int
        Of the sampling; the same seed gives the same answer.

    Raises
    ------
    QuestionError
        If one is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.temperature < float('inf'):
            raise QuestionError(f'temperature is {self.temperature}, must be a number from 0 up')
        if not 0 <= self.seed < 2 ** 63:
            raise QuestionError(f'seed is {self.seed}, must be from 0 to 2**63 - 1')
        if not 0 < self.top_p <= 1:
            raise QuestionError(f'top_p is {self.top_p}, must be above 0 and at most 1')


class Sampler:
    """Choose tokens one by one."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.greedy = sampling.temperature < 1e-5       # below, logits overflow
        if not self.greedy:
            self._warp = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
            if sampling.top_p < 1:
                self._warp.append(TopPLogitsWarper(sampling.top_p))
            self._generator = torch.Generator(device).manual_seed(sampling.seed)

    def __call__(self, logits: torch.Tensor) -> int:
        """Choose from logits [vocab]; -1 where NaN or infinity is the highest."""
        token = logits.argmax(0, keepdim=True)
        sound = logits.gather(0, token).isfinite()
        if not self.greedy:
            warped = self._warp(None, logits.float()[None])[0]
            # on a GPU, to draw by NaN would end the process
            shares = torch.where(sound, warped.softmax(-1), 1.0)
            token = torch.multinomial(shares, 1, generator=self._generator)
        return int(torch.where(sound, token, -1))       # read once: a GPU waits no second time


class Detokenizer:
    """Text as it grows: a piece appears once its bytes are a whole character."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self.text = ''

    def __call__(self, token: int) -> str:
        """Take in a token; return the new text, perhaps none yet."""
        self._ids.append(token)
        piece = self._stream.step(self._tokenizer.backend_tokenizer, token) or ''
        self.text += piece
        return piece

    def flush(self) -> str:
        """Return what is left when the last character was never completed."""
        whole = self._tokenizer.decode(
            self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        piece, self.text = whole[len(self.text):], whole
        return piece
