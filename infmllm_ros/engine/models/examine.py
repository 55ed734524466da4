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
Whether a language model can be streamed, found out before its weights are read.

A stand-in of the model's own class and widths, with made-up weights, is probed as the loaded model
will be. It has no more layers than there are kinds of them, and its weights take no memory: all
are views of one short row of random numbers.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
import transformers

from .source import first_line
from ..errors import ModelError
from ..layers import layer_specs
from ..rope import find_rotary, RopeMap


def examine(config: Any, spatial: bool = True) -> RopeMap:
    """
    Refuse a language model whose attention a bounded memory would change.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        The text config.
    spatial : bool
        See :class:`~infmllm_ros.engine.rope.RopeMap`.

    Returns
    -------
    RopeMap
        The rotations of the first layers, as many as show every kind.

    Raises
    ------
    ModelError
        Naming the layer and what it does: layers of another kind, positions without RoPE or with
        an unknown rotation, sinks or caps in the logits, other keys than the config's, or
        attention by code of the model's own.
    """
    try:
        layer_specs(config)
        # the probe sets which attention is called, in the config too
        return RopeMap(_stand_in(deepcopy(config)), spatial)
    except ModelError:
        raise
    except Exception as error:      # whatever a model that is built in another way may raise
        raise ModelError(
            f'{config.model_type} is built in an unknown way ({first_line(error)[:150]}): its '
            'rotations cannot be found') from error


def _stand_in(config: Any) -> nn.Module:
    """Build the decoder with as many layers as show every kind, of made-up weights."""
    with torch.device('meta'):
        # experts one by one: other ways to multiply them want weights that lie in a row
        model = transformers.AutoModel.from_config(
            config, dtype=torch.float32, experts_implementation='eager').eval()
    decoder = model.get_decoder()
    name, rotary = find_rotary(decoder)
    if rotary is None:
        return model        # which is refused as it is
    decoder.layers = decoder.layers[:_enough(config)]
    setattr(decoder, name, type(rotary)(rotary.config))     # its angles must be the real ones
    longest = max(sum(p.shape) for p in model.parameters())
    row = torch.randn(longest, generator=torch.Generator().manual_seed(0)) / 10
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            view = row.as_strided(weight.shape, (1,) * weight.ndim)
            setattr(module, name, nn.Parameter(view, requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, name, torch.ones_like(buffer, device='cpu'))
    return model


def _enough(config: Any) -> int:
    """Count the first layers that show every kind, as the lists of the config tell them apart."""
    depth = config.num_hidden_layers
    lists = [value for value in vars(config).values()
             if isinstance(value, (list, tuple)) and len(value) == depth
             and all(isinstance(kind, str) or kind in (0, 1) for kind in value)]
    kinds = [repr(kind) for kind in zip(*lists)] or [''] * depth
    return 1 + max(kinds.index(kind) for kind in kinds)
