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
One memory over a model whose weights lie in several places.

Layers may lie on several devices; then each layer's keys and values lie beside its weights, and
the ledgers where the tokens enter. Or the heads of every layer may be split over several processes
(tensor parallelism: Megatron-LM, arXiv 1909.08053, section 3), each of which runs the same session
on the same stream; then each holds the keys and values of its own heads, and what follows from all
heads is averaged, so that every process keeps the same tokens and says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import torch
from torch import distributed, nn

from .errors import ModelError

if TYPE_CHECKING:
    from .layers import LayerSpec
    from .policies import Policy


def entrance(model: nn.Module) -> torch.device:
    """Say where a model takes its input; weights that are off-loaded are not there themselves."""
    for module in (model, *model.modules()):
        device = getattr(getattr(module, '_hf_hook', None), 'execution_device', None)
        if device is not None:
            return torch.device(device)
    return next(model.parameters()).device


def check_heads(specs: Iterable[LayerSpec], size: int) -> None:
    """Refuse to split the KV heads of a model's layers into `size` unequal parts; ModelError."""
    for spec in specs:
        if spec.heads % size:
            raise ModelError(
                f'{spec.heads} KV heads cannot be shared out among {size} processes: start a '
                f'number of them that divides {spec.heads}')


@dataclass(frozen=True)
class Ranks:
    """
    The processes that share out a model's heads, in equal parts.

    Parameters
    ----------
    size : int
        How many there are; 1: heads are not split, and every method gives back what it got.
    rank : int
        Which of them this is.
    """

    size: int = 1
    rank: int = 0

    @classmethod
    def of(cls, heads: int, local: int) -> Ranks:
        """
        Find them from the KV heads that a layer has and those that this process computes.

        Raises
        ------
        ModelError
            If they are not all processes of the run.
        """
        if heads == local or not (distributed.is_available() and distributed.is_initialized()):
            return ALONE
        world = distributed.get_world_size()
        if local * world != heads:
            raise ModelError(
                f'this process computes {local} of {heads} KV heads, but {world} processes run: '
                'start as many as share out the heads')
        return cls(world, distributed.get_rank())

    def check(self, policy: Policy) -> None:
        """Refuse a policy that would need the keys of all heads; ModelError."""
        compares = policy.retrieves or policy.reads and policy.scope != 'head'
        if self.size > 1 and compares:
            raise ModelError(
                f'{policy.name} of scope {policy.scope!r} compares keys of all heads, of which '
                f'each of {self.size} processes has a part: use another policy, or scope head '
                'where it has one')

    def join(self, scores: torch.Tensor, reduce: str) -> torch.Tensor:
        """Join scores of the heads of all ranks: their 'mean' or 'max', in place."""
        if self.size > 1:
            mean = reduce == 'mean'
            distributed.all_reduce(
                scores, distributed.ReduceOp.SUM if mean else distributed.ReduceOp.MAX)
            scores /= self.size if mean else 1
        return scores

    def mean(self, weights: Mapping[int, float]) -> dict[int, float]:
        """Average what each rank says of the same things; what it does not name is 0 there."""
        total: dict[int, float] = {}
        for part in self._gather(weights):
            for key, value in part.items():
                total[key] = total.get(key, 0.0) + value / self.size
        return total

    def union(self, numbers: list[int]) -> list[int]:
        """List what any rank lists, ascending."""
        return sorted(set().union(*self._gather(numbers)))

    def _gather(self, value: Any) -> list[Any]:
        parts = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(parts, value)
        return parts


ALONE = Ranks()
