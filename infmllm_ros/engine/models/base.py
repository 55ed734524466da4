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

"""What a model family must say of itself: how a frame and a prompt become tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, TYPE_CHECKING

import torch

from .prompt import Media, Prompt
from ..chunk import Chunk, Span
from ..errors import ModelError
from ..features import Features, split_features
from ..parallel import entrance
from ..preprocess import FILTERS, frame_size, normalise, resize

if TYPE_CHECKING:
    from ..graphs import Graphs

# Longest stamp: 115 days. It bounds the tokens of a frame, for a stream without end.
MAX_SECONDS = 9_999_999
# Frames of a backlog that the vision tower sees together: bounds its peak memory.
FRAMES_AT_ONCE = 8
# Field of a checkpoint's config.json: the token that asks, after each frame, what must stay.
STATUS_TOKEN = 'infmllm_status_token'


class Adapter(ABC):
    """
    One model family, made for one checkpoint.

    A frame enters the memory as ``label, stamp, opening, placeholders, closing``: the label is
    text such as its camera's name, often none; the stamp is text as the family was trained to
    read it, the placeholders are replaced by vision features. A
    checkpoint that was trained with a status token after each frame names it in its config.json
    (`STATUS_TOKEN`); it then ends every frame, and its place is in the chunk's `markers`.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Of the whole model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Of the checkpoint.
    settings : dict
        The checkpoint's preprocessor_config.json, {} if it has none.
    stop_ids : iterable of int
        Ids that end an answer, from the generation config.
    tokens_per_frame : int, optional
        The most vision tokens a frame may take; None for the family's default.

    Attributes
    ----------
    frame_tokens : int
        The most tokens one frame can take, stamp and wrapper included, the label not.
    max_extent : int
        The most positions one frame's vision tokens can span beyond 1-D counting (M-RoPE).
    prompt : Prompt
        Turns as tokens.
    default_pixels : bool
        Whether it sees, and the checkpoint does not say how frames become pixels.
    """

    model_types: ClassVar[tuple[str, ...]]
    sees: ClassVar[bool] = True
    # Without a preprocessor_config.json: the family's own.
    mean: ClassVar[tuple[float, ...]] = (0.5, 0.5, 0.5)
    std: ClassVar[tuple[float, ...]] = (0.5, 0.5, 0.5)
    resample: ClassVar[int] = 3
    # In which layers ('all', 'sliding' or none) the tokens of a frame attend to each other both
    # ways, not only to those before them.
    both_ways: str = ''
    # Along which axis frames are put together, for those of `pixels` where it is not the first.
    axes: ClassVar[Mapping[str, int]] = MappingProxyType({})
    # Whether a frame's rows and columns have positions, if the language model knows M-RoPE.
    spatial: ClassVar[bool] = True

    frame_tokens: int
    max_extent: int = 1
    default_pixels: bool
    placeholder: int
    opening: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        settings: dict[str, Any],
        stop_ids: Iterable[int] = (),
        tokens_per_frame: int | None = None,
    ) -> None:
        if tokens_per_frame is not None and tokens_per_frame < 1:
            raise ModelError(f'tokens_per_frame is {tokens_per_frame}: it must be at least 1')
        self.config = config
        self._tokenizer = tokenizer
        self.default_pixels = self.sees and not settings
        self._mean = settings.get('image_mean') or self.mean
        self._std = settings.get('image_std') or self.std
        self._scale = settings.get('rescale_factor') or 1 / 255
        self._resample = settings.get('resample', self.resample)
        if self._resample not in FILTERS:
            raise ModelError(
                f'resample is {self._resample} in preprocessor_config.json: use one of '
                f'{", ".join(f"{number} ({name})" for number, name in FILTERS.items())}'
            )
        vision_tokens = self.configure(settings, tokens_per_frame)
        self.prompt = Prompt(tokenizer, self.media(), stop_ids)
        status = getattr(config, STATUS_TOKEN, None)
        self.status = (self.token_id(status),) if self.sees and status else ()
        wrapper = len(self.opening) + len(self.closing) + len(self.status)
        self.frame_tokens = vision_tokens and vision_tokens + wrapper + self._longest_stamp()

    @abstractmethod
    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Set what frames need (placeholder, wrapper, sizes); give the most vision tokens."""

    def media(self) -> Media | None:
        """Say how the chat template writes a frame; None if it cannot."""
        return None

    def stamp(self, seconds: float) -> str:
        """Write a frame's time as the family was trained to read it; '' if it was not."""
        return ''

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Count rows and columns of the vision tokens of a frame of that many pixels."""

    @abstractmethod
    def pixels(self, image: Any) -> dict[str, torch.Tensor]:
        """
        Preprocess one frame.

        Parameters
        ----------
        image : numpy.ndarray or torch.Tensor
            uint8 [H, W, 3], RGB.

        Returns
        -------
        dict of torch.Tensor
            Keyword arguments of the plain Hugging Face model, on the CPU.

        Raises
        ------
        FrameError
            If the image has another shape or type.
        """

    @abstractmethod
    def look(self, model: Any, pixels: dict[str, torch.Tensor]) -> Features:
        """Run the vision tower on frames put together; give their ``mm_encoder_outputs``."""

    def lay_out(self, image: Any, seconds: float, label: str = '') -> Chunk:
        """
        Lay out the tokens of one frame, not looked at yet; parameters and errors as of `encode`.

        Returns
        -------
        Chunk
            Without features.
        """
        rows, cols = self.grid(*frame_size(image))
        stamp = torch.cat((self.prompt.text(label), self.prompt.text(
            self.stamp(min(max(seconds, 0.0), MAX_SECONDS)))))
        ids = torch.tensor([*self.opening, *[self.placeholder] * (rows * cols), *self.closing,
                            *self.status])
        ids = torch.cat((stamp, ids))
        span = Span(len(stamp) + len(self.opening), rows, cols)
        return Chunk(ids, (span,), (len(ids) - 1,) if self.status else ())

    @torch.no_grad()
    def see(self, model: Any, chunks: Sequence[Chunk], images: Sequence[Any],
            graphs: Graphs | None = None) -> list[Chunk]:
        """
        Look at frames that are laid out: run the vision tower, `FRAMES_AT_ONCE` at a time.

        Parameters
        ----------
        model : transformers.PreTrainedModel
            The loaded model.
        chunks : sequence of Chunk
            From :meth:`lay_out`, one a frame.
        images : sequence of numpy.ndarray or torch.Tensor
            uint8 [H, W, 3] each, RGB; sizes may differ.
        graphs : Graphs, optional
            Recordings to use and to add to.

        Returns
        -------
        list of Chunk
            With features, on the model's device.
        """
        seen, place = [], entrance(model)
        for first in range(0, len(chunks), FRAMES_AT_ONCE):
            some = slice(first, first + FRAMES_AT_ONCE)
            each = [self.pixels(image) for image in images[some]]
            pixels = {name: torch.cat(
                [one[name] for one in each], self.axes.get(name, 0)).to(place) for name in each[0]}
            sizes = tuple(
                sum(span.rows * span.cols for span in chunk.spans) for chunk in chunks[some])
            parts = (graphs.look(partial(self._cut, model, sizes), pixels, sizes) if graphs
                     else self._cut(model, sizes, pixels))
            seen += [replace(chunk, features=part)
                     for chunk, part in zip(chunks[some], parts, strict=True)]
        return seen

    def _cut(self, model: Any, sizes: Sequence[int], pixels: dict[str, torch.Tensor],
             ) -> list[Features]:
        """Look at frames of so many tokens, and give what was seen of each."""
        return split_features(self.look(model, pixels), sizes)

    def encode(self, model: Any, image: Any, seconds: float, label: str = '',
               graphs: Graphs | None = None) -> Chunk:
        """
        See one frame: run the vision tower on it and lay out its tokens.

        Parameters
        ----------
        model : transformers.PreTrainedModel
            The loaded model.
        image : numpy.ndarray or torch.Tensor
            uint8 [H, W, 3], RGB.
        seconds : float
            Time of the frame since the first one of the stream; held between 0 and
            `MAX_SECONDS`.
        label : str
            Text before the frame; none of these families was trained with one.
        graphs : Graphs, optional
            Recordings to use and to add to.

        Returns
        -------
        Chunk
            At most `frame_tokens` tokens beside the label's, ids on the CPU, features on the
            model's device.

        Raises
        ------
        FrameError
            If the image has another shape or type.
        ModelError
            If the model does not see.
        """
        return self.see(model, [self.lay_out(image, seconds, label)], [image], graphs)[0]

    def resized(self, frame: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Resize a frame, uint8 [1, 3, H, W], and normalise it: float32 [1, 3, height, width]."""
        frame = resize(frame, height, width, self._resample)
        return normalise(frame, self._mean, self._std, self._scale)

    def token_id(self, token: str) -> int:
        """Find a special token of the family; ModelError if the tokenizer lacks it."""
        index = self._tokenizer.get_vocab().get(token)
        if index is None:
            raise ModelError(
                f'the tokenizer has no {token!r}, which {self.config.model_type} frames need: '
                'use the tokenizer files that came with the checkpoint'
            )
        return index

    def fixed(self, tokens: int, tokens_per_frame: int | None) -> int:
        """Refuse a cap below what the family always takes."""
        if tokens_per_frame is not None and tokens_per_frame < tokens:
            raise ModelError(
                f'tokens_per_frame is {tokens_per_frame}, but this {self.config.model_type} model '
                f'always takes {tokens} a frame: leave it unset, or use a Qwen-VL model'
            )
        return tokens

    def _longest_stamp(self) -> int:
        """Count the tokens of the longest stamp; every digit, as few tokenizers pair some."""
        stamps = (self.stamp(int(digit * 7)) for digit in '123456789')
        return max(len(self.prompt.text(stamp)) for stamp in stamps)
