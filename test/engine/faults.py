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
"""Faults that a pass can meet: memory that runs out, and numbers that are none."""

from contextlib import contextmanager
from unittest.mock import patch

import torch

FAULTS = ('vision memory', 'vision nan', 'vision inf', 'memory', 'nan', 'inf')


class Fault:
    """What will happen in some pass; `fired` once it has."""

    def __init__(self, kind: str, number: int):
        self.kind, self.left, self.fired = kind, number, False

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        """Let a value pass, or spoil it."""
        self.left -= 1
        if self.left:
            return value
        self.fired = True
        if self.kind.endswith('memory'):
            raise torch.OutOfMemoryError('CUDA out of memory (injected)')
        value = value.clone()
        value.view(-1)[value.numel() // 2] = float(self.kind.split()[-1])
        return value


@contextmanager
def fault(model, kind: str, number: int = 1, layer: int = 0):
    """
    Let the `number`-th pass go wrong.

    Parameters
    ----------
    model : StreamingModel
    kind : str
        One of `FAULTS`: in the vision tower's outcome, else in that of a decoder layer.
    number : int
    layer : int
    """
    trouble = Fault(kind, number)

    def spoil(_module, _args, output):
        if isinstance(output, torch.Tensor):
            return trouble(output)
        return (trouble(output[0]), *output[1:])

    if not kind.startswith('vision'):
        layers = model.model.get_decoder().layers
        hook = layers[layer % len(layers)].register_forward_hook(spoil)
        try:
            yield trouble
        finally:
            hook.remove()
        return
    kind = type(model.adapter)
    look = kind.look

    def blind(self, *args):
        features = look(self, *args)
        output = next(iter(features.values()))
        pooled = output.pooler_output
        output.pooler_output = (trouble(pooled) if isinstance(pooled, torch.Tensor)
                                else [trouble(pooled[0]), *pooled[1:]])
        return features

    with patch.object(kind, 'look', blind):
        yield trouble
