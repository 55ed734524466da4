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
What a CUDA graph does, done on a CPU: operations noted with the tensors that they read and write.

As on a GPU, nothing is computed while a function is recorded, what it would have to wait for is
refused, and a repetition runs no Python of the function's: each operation again, on the same
addresses. What the recording allots is full of NaN until it is repeated.
"""

from infmllm_ros.engine import graphs
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# what must know numbers, or brings some from elsewhere
WAITS = {'_local_scalar_dense', 'nonzero', 'masked_select', 'equal', 'is_nonzero', 'unique_dim',
         '_unique2', 'lift_fresh', 'bincount', 'randperm', 'multinomial'}
# where a mask among the indices hides a `nonzero`
INDEXES = {'index', 'index_put', 'index_put_', '_index_put_impl_'}


def tensors(tree):
    return [part for part in tree_leaves(tree) if isinstance(part, torch.Tensor)]


def place(tensor):
    return tensor.untyped_storage().data_ptr()


class NoWaiting(TorchDispatchMode):
    """Refuse what a GPU would be waited for."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix('aten::')
        masks = name in INDEXES and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1])
        if name in WAITS or masks:
            raise RuntimeError(f'{name} would wait for the GPU')
        return self.run(function, args, kwargs or {})

    def run(self, function, args, kwargs):
        return function(*args, **kwargs)


class Film(NoWaiting):
    """Note every operation, and how to put back what it changes that is not its own."""

    def __init__(self):
        super().__init__()
        self.operations, self.own, self.before = [], {}, {}

    def run(self, function, args, kwargs):
        given = {place(part) for part in tensors((args, kwargs))}
        for argument, part in zip(function._schema.arguments, args):
            self.note(argument, part)
        for argument in function._schema.arguments:
            if argument.name in kwargs:
                self.note(argument, kwargs[argument.name])
        out = function(*args, **kwargs)
        made = [part for part in tensors(out) if place(part) not in given]
        self.own.update((place(part), part) for part in made)
        views = not made and not function._schema.is_mutable
        if not views:
            self.operations.append((function, args, kwargs, out))
        return out

    def note(self, argument, part):
        """Remember what an operation writes to, if that was there before."""
        if argument.alias_info is None or not argument.alias_info.is_write:
            return
        for target in tensors(part):
            if place(target) not in self.own and place(target) not in self.before:
                whole = torch.empty(0, dtype=torch.uint8).set_(target.untyped_storage())
                self.before[place(target)] = whole, whole.clone()


class Rehearsal:
    """In the place of `graphs.CudaRecorder`; counts what is repeated."""

    repeated = 0

    def __init__(self, device):
        self.device = device

    def warm(self, call):
        with NoWaiting():
            return call()

    def record(self, call):
        with Film() as film:
            out = call()
        for whole, value in film.before.values():
            whole.copy_(value)
        for part in film.own.values():
            if part.is_floating_point():
                part.fill_(float('nan'))

        def replay():
            Rehearsal.repeated += 1
            for function, args, kwargs, made in film.operations:
                for old, new in zip(tensors(made), tensors(function(*args, **kwargs))):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)
        return replay, out


@pytest.fixture
def rehearsed(monkeypatch):
    """Record on the CPU."""
    monkeypatch.setattr(graphs, 'records', lambda device: True)
    monkeypatch.setattr(graphs, 'recorder', Rehearsal)
