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
Keys and values as bytes: the `int8` layout.

Un-rotated keys have channels that lie far from zero in every token, so KIVI (arXiv 2402.02750,
section 3.1) quantises keys per channel, over groups of tokens, and values per token. Groups would
have to be formed anew as tokens go. Here what is common to a channel is measured once, on a text
before the stream begins: its mean m and its spread s. What is left of a token's key k is even
enough for one scale a token and head:

    a = max over channels of |(k - m) / s| / 127,    q = round((k - m) / (s a)),    k ~ m + s a q

and of a value v, a = max |v| / 127, q = round(v / a). So a token's numbers depend on no other
token's: they move with it as they are, and nothing is ever quantised twice.
"""

from __future__ import annotations

import torch

from .layers import LayerSpec
from .rope import rotate
from .store import LeanLayer, Scratch

MOST = 127
SHRINK = 0.5    # of the mean variance, added to each channel's: few tokens do not tell it well
# What channels are measured on: words, numbers and marks.
SAMPLE = ('A robot sees two red doors, 14 chairs and a small blue box on the floor; its battery '
          'is at 83.5 %. Who left the keys there? "Turn left at the lift," she said, "then wait."')


class Int8Layer(LeanLayer):
    """
    Un-rotated keys and values as bytes, with scales: about half the bytes of `lean`.

    Each pass reads them into buffers that all layers share and rotates the keys there. A chunk
    attends to itself, too, as it will be remembered: quantised.

    Attributes
    ----------
    fresh : bool
        Whether the channels are still to be measured, by whatever is written next.
    """

    quantised = True
    fresh = True

    @staticmethod
    def slot_bytes(spec: LayerSpec, itemsize: int) -> int:
        """Count the bytes of one slot of one layer: bytes, and a scale for each key and value."""
        return 2 * spec.heads * (spec.size + itemsize)

    @staticmethod
    def scratch_bytes(spec: LayerSpec, itemsize: int) -> int:
        """Count the bytes of one slot of the scratch that all layers like this one share."""
        return 2 * spec.heads * spec.size * itemsize

    @staticmethod
    def fixed_bytes(spec: LayerSpec, itemsize: int) -> int:
        """Count the bytes of what is known of the channels."""
        return 2 * spec.heads * spec.size * itemsize

    def _allocate(self, spec: LayerSpec, shape: tuple[int, ...], scratch: Scratch) -> None:
        def empty(size: int, slots: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty((1, spec.heads, slots, size), dtype=dtype, device=self.device)

        slots = shape[2]
        self.master, self.coded = (empty(spec.size, slots, torch.int8) for _ in range(2))
        self.key_scales, self.value_scales = (empty(1, slots, self.dtype) for _ in range(2))
        self.offset, self.spread = (empty(spec.size, 1, self.dtype) for _ in range(2))
        self.keys, self.values = (
            scratch.take(name, spec, shape, self.dtype) for name in ('keys', 'values'))

    def _own(self) -> dict[str, torch.Tensor]:
        return {'keys': self.master, 'key_scales': self.key_scales,
                'values': self.coded, 'value_scales': self.value_scales}

    def _channels(self) -> dict[str, torch.Tensor]:
        return {'offset': self.offset, 'spread': self.spread}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Name what is held, as it is written to a file, and what is known of the channels."""
        return {**super().tensors(), **self._channels()}

    def nbytes(self) -> int:
        """Count the bytes of its own buffers."""
        return super().nbytes() + sum(part.nbytes for part in self._channels().values())

    def _write(self, new: slice, key: torch.Tensor, value: torch.Tensor) -> None:
        if self.fresh:
            self._measure(key.float())
        self.put(new, key, value)

    def put(self, part: slice | torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Quantise un-rotated keys and values, [1, Hkv, n, D], into some slots."""
        # by what was rounded to the type of the buffers, as it will be read
        even = (key.float() - self.offset.float()) / self.spread.float()
        for scales, coded, plain in ((self.key_scales, self.master, even),
                                     (self.value_scales, self.coded, value.float())):
            scale = (plain.abs().amax(-1, keepdim=True) / MOST).to(self.dtype)
            scales[:, :, part] = scale
            # a scale of NaN or infinity stays: what is read with it is refused as not finite
            parts = plain / scale.float().clamp_min(torch.finfo(torch.float32).tiny)
            coded[:, :, part] = parts.round().clamp(-MOST, MOST).to(torch.int8)

    def _measure(self, key: torch.Tensor) -> None:
        variance, mean = torch.var_mean(key, 2, correction=0, keepdim=True)
        spread = (variance + SHRINK * variance.mean(-1, keepdim=True)).sqrt()
        self.offset.copy_(mean)
        self.spread.copy_(torch.where(spread > 0, spread, 1))       # of one token, all alike

    def _decode(self, part: slice | torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        torch.mul(self.master[:, :, part], self.key_scales[:, :, part], out=out)
        return torch.addcmul(self.offset, out, self.spread, out=out)

    def _ready(self, part: slice) -> None:
        keys, values = self.keys[:, :, part], self.values[:, :, part]
        # the values' place serves for the keys before they are rotated
        rotate(self._decode(part, values), *self._turn(part), self.kind, out=keys)
        torch.mul(self.coded[:, :, part], self.value_scales[:, :, part], out=values)

    def plain(self, part: slice | torch.Tensor) -> torch.Tensor:
        """Give un-rotated keys of some slots, read anew: [1, Hkv, n, D]."""
        coded = self.master[:, :, part]
        return self._decode(part, torch.empty(coded.shape, dtype=self.dtype, device=self.device))

    def valued(self, part: slice) -> torch.Tensor:
        """Give the values of some slots, read anew: [1, Hkv, n, D]."""
        return self.coded[:, :, part] * self.value_scales[:, :, part]
