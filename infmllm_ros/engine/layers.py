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
What each layer of a language model keeps of the stream, and the layers whose share is constant.

Three kinds of layers, read from the text config:

* full attention: keys and values of the tokens that the policy keeps;
* sliding attention: keys and values of the last `window - 1` tokens, all that the next one sees;
* a state of constant size: a short convolution (LFM2) or a gated delta net (Qwen3-Next, Qwen3.5).

A layer of attention may also keep nothing and read what an earlier one keeps (Gemma 3n, Gemma 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.cache_utils import get_layer_types_and_kwargs, LinearAttentionLayer

from .errors import ModelError


@dataclass(frozen=True)
class LayerSpec:
    """
    What one layer keeps.

    Parameters
    ----------
    heads, size : int
        KV heads, and channels of a head; 0 for a layer that keeps no keys and values.
    window : int
        How many tokens a query sees, itself included; 0: all that are held.
    source : int or None
        The earlier layer whose keys and values it reads; None: its own, if any.
    conv : tuple of int
        Shape of a convolution's state, [1, channels, kernel]; () if it has none.
    recurrent : tuple of int
        Shape of a recurrent state, [1, heads, key channels, value channels], always float32.
    place : torch.device or None
        Where the layer computes, if that is known.
    """

    heads: int = 0
    size: int = 0
    window: int = 0
    source: int | None = None
    conv: tuple[int, ...] = ()
    recurrent: tuple[int, ...] = ()
    place: torch.device | None = None

    @property
    def full(self) -> bool:
        """Whether the policy chooses what this layer keeps."""
        return self.heads > 0 and not self.window

    def state_bytes(self, itemsize: int) -> int:
        """Count the bytes of the state, for weights of `itemsize` bytes."""
        conv, recurrent = (torch.Size(shape).numel() if shape else 0
                           for shape in (self.conv, self.recurrent))
        return conv * itemsize + recurrent * 4


def layer_specs(config: Any, ranks: int = 1,
                places: Mapping[int, torch.device] | None = None) -> list[LayerSpec]:
    """
    Read from a text config what each layer keeps.

    A window as long as the context is none: such a layer is bounded by the policy. Of KV heads,
    each of so many `ranks` keeps an equal part; states are whole in each. `places` says by number
    where layers compute.

    Raises
    ------
    ModelError
        If a layer is of another kind, if all of them keep states only, or if tokens attend to
        what comes after them.
    """
    # 'vision': only the tokens of a frame see each other, which always come together
    if getattr(config, 'use_bidirectional_attention', None) not in (None, False, 'vision'):
        raise ModelError(
            f'{config.model_type} with use_bidirectional_attention looks ahead: it cannot read a '
            'stream, load a causal model')
    types = get_layer_types_and_kwargs(config)[0]
    owners = list(getattr(config, 'layer_types', None) or types)
    # transformers before 5.22 has no fields that differ from layer to layer
    each = getattr(config, 'per_layer_config', None) or [config] * len(types)
    window = getattr(config, 'sliding_window', None) or 0
    window = window if window < config.max_position_embeddings else 0
    specs = []
    for number, (kind, own) in enumerate(zip(types, each, strict=True)):
        if kind in ('full_attention', 'sliding_attention'):
            heads = own.num_attention_heads
            size = getattr(own, 'head_dim', None) or own.hidden_size // heads
            heads = (getattr(own, 'num_key_value_heads', None) or heads) // ranks
            specs.append(LayerSpec(heads, size, window * (kind == 'sliding_attention')))
        elif kind == 'dummy' and owners[number] in types[:number]:
            # the last one of its kind that keeps its own
            specs.append(LayerSpec(
                source=number - 1 - types[:number][::-1].index(owners[number])))
        else:
            specs.append(_state(config, number, kind))
    if not any(spec.heads for spec in specs):
        raise ModelError(
            f'{config.model_type} has no attention layer here, so there is nothing to keep or to '
            'evict: load a model with full_attention layers')
    return [replace(spec, place=(places or {}).get(number)) for number, spec in enumerate(specs)]


def _state(config: Any, number: int, kind: str) -> LayerSpec:
    """Read the shape of a layer's state; ModelError if it is of no known kind."""
    try:
        if kind == 'conv':
            return LayerSpec(conv=(1, config.hidden_size, config.conv_L_cache))
        if kind == 'linear_attention':
            keys, values = config.linear_num_key_heads, config.linear_num_value_heads
            wide, deep = config.linear_key_head_dim, config.linear_value_head_dim
            return LayerSpec(
                conv=(1, 2 * keys * wide + values * deep, config.linear_conv_kernel_dim),
                recurrent=(1, values, wide, deep))
    except AttributeError:
        pass        # another convolution or linear attention, of which nothing is known here
    raise ModelError(
        f'layer {number} of {config.model_type} is {kind!r} of an unknown kind: layers must be '
        'full_attention, sliding_attention, conv (as in LFM2) or linear_attention (as in '
        'Qwen3-Next)')


class StateLayer(LinearAttentionLayer):
    """
    The state of a convolution or of linear attention, as transformers reads and writes it.

    It is written in place by every pass, so it is cloned before one and put back after a pass that
    is not to count.

    Parameters
    ----------
    spec : LayerSpec
    dtype : torch.dtype
        Of the model.
    device : torch.device
    """

    def __init__(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.lazy_initialization(
            torch.empty(spec.conv, dtype=dtype, device=device),
            torch.empty(spec.recurrent, device=device) if spec.recurrent else None)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Name the states, as they are written to a file."""
        found = {'conv': self.conv_states[0], 'recurrent': self.recurrent_states[0]}
        return {name: state for name, state in found.items() if state is not None}

    def nbytes(self) -> int:
        """Count the bytes of the states."""
        return sum(state.numel() * state.element_size() for state in self.tensors().values())

    def mark(self) -> tuple[bool, list[torch.Tensor]]:
        """Remember this moment: clones of the states."""
        return self.has_previous_state[0], [state.clone() for state in self.tensors().values()]

    def rollback(self, mark: tuple[bool, list[torch.Tensor]]) -> None:
        """Return to a marked moment, bit for bit."""
        self.has_previous_state[0], states = mark
        for state, value in zip(self.tensors().values(), states, strict=True):
            state.copy_(value)
