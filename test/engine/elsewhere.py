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
A second device that a machine without one can compute on.

Its tensors say that they lie on 'cpu:1', and as on any other device an operation refuses operands
of both: what is to meet must be moved, with ``.to``, before.
"""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

HERE, THERE = torch.device('cpu'), torch.device('cpu', 1)
MOVES = {'aten::_to_copy', 'aten::copy_'}


class Elsewhere(torch.Tensor):
    """A tensor on the second device; `held` is where its numbers really are."""

    @staticmethod
    def __new__(cls, held, requires_grad=False):
        """Wrap a tensor."""
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=THERE, requires_grad=requires_grad)

    def __init__(self, held, requires_grad=False):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        """Compute, on one device."""
        return compute(function, args, kwargs or {})


def each(change, part):
    """Change all that lies in tuples, lists and dicts, as torch's `tree_map` does slowly."""
    if type(part) in (tuple, list):
        return type(part)([each(change, inner) for inner in part])
    if type(part) is dict:
        return {name: each(change, inner) for name, inner in part.items()}
    return change(part)


def compute(function, args, kwargs):
    """Compute on the device of the operands, or on the one that is named."""
    tensors = []
    each(lambda part: tensors.append(part) if isinstance(part, torch.Tensor) else None,
         (args, kwargs))
    there = [part for part in tensors if isinstance(part, Elsewhere)]
    # a number beside a tensor is a tensor without dimensions, and may be here
    here = [part for part in tensors if not isinstance(part, Elsewhere) and part.ndim]
    name = function._schema.name
    if there and here and name not in MOVES:
        raise RuntimeError(f'{name}: operands lie on {HERE} and on {THERE}')
    wanted = kwargs.get('device')
    if wanted is not None:
        kwargs = {**kwargs, 'device': HERE}
    known = {id(part.held): part for part in there}
    args, kwargs = each(
        lambda part: part.held if isinstance(part, Elsewhere) else part, (args, kwargs))
    result = function(*args, **kwargs)
    if wanted is None:
        target = args[0] if name == 'aten::copy_' else None
        away = bool(there) if target is None else id(target) in known
    else:
        away = torch.device(wanted) == THERE
    if name == 'aten::_to_copy' and any(result is part for part in tensors):
        result = result.clone()
    if not away:
        return result
    return each(
        lambda part: known.get(id(part)) if id(part) in known else Elsewhere(part)
        if isinstance(part, torch.Tensor) else part, result)


class Machine(TorchDispatchMode):
    """Lets tensors be made on, and moved to, the second device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Compute, on one device."""
        return compute(function, args, kwargs or {})


@contextmanager
def spread(model, layers):
    """Lay some layers of a decoder on the second device, as accelerate dispatches them."""
    from accelerate.hooks import add_hook_to_module, AlignDevicesHook, remove_hook_from_module
    decoder = model.get_decoder()
    moved = [decoder.layers[number] for number in layers]
    parts = [part for layer in moved for part in layer.modules()]
    before = [(part, dict(part._parameters), dict(part._buffers)) for part in parts]
    with Machine():
        for part in parts:
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = torch.nn.Parameter(
                        Elsewhere(weight.data), requires_grad=False)
            for name, held in part._buffers.items():
                part._buffers[name] = None if held is None else Elsewhere(held)
        for part in (*decoder.layers, decoder.norm if hasattr(decoder, 'norm') else
                     decoder.embedding_norm):
            add_hook_to_module(part, AlignDevicesHook(
                THERE if any(part is one for one in moved) else HERE,
                skip_keys='past_key_values'))
        try:
            yield model
        finally:
            for part in decoder.modules():
                remove_hook_from_module(part)
            for part, weights, buffers in before:
                part._parameters.update(weights)
                part._buffers.update(buffers)
