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
Linear layers laid out once as the processor's matrix product reads them.

A token of an answer reads every weight once, so that it can be no faster than memory is read. On a
CPU in bfloat16, torch's product of one row with a plain weight runs at less than half that speed;
with the weight in oneDNN's own blocks it runs at it, and some per cent faster with many rows, too
(docs/performance.md). The same products are summed: outcomes are the same.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from ..blocks import FAST_BFLOAT16

SAMPLE = 8      # values of a weight by which models are told apart


class PackedLinear(nn.Linear):
    """
    A linear layer of packed weights; does not know gradients, copies, or other devices.

    Attributes
    ----------
    packed : torch.Tensor
        [out, in], opaque: `to_dense` gives it back. `weight` is the same, and its `sample` the
        first values of what it was; or it is plain, if tied.
    """

    packed: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Compute as a plain layer: [..., in] -> [..., out]."""
        return torch.ops.mkldnn._linear_pointwise.default(
            input, self.packed, self.bias, 'none', [], '')


def pack(model: nn.Module) -> None:
    """
    Pack the linear layers that compute in bfloat16 on a CPU with arithmetic of that type.

    The packed weights take the place of the plain ones, one layer after the other, so that no more
    memory is needed; but one that another module reads, as an embedding does that is tied to the
    vocabulary's projection, stays beside its packed copy.
    """
    if not (FAST_BFLOAT16 and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, '_reorder_linear_weight')):   # torch's own, not public
        return
    readers = Counter(
        id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    for module in model.modules():
        weight = module.weight if type(module) is nn.Linear else None
        if weight is None or weight.dtype != torch.bfloat16 or weight.device.type != 'cpu':
            continue
        module.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1)
        module.__class__ = PackedLinear
        if readers[id(weight)] == 1:
            module.weight = nn.Parameter(module.packed, requires_grad=False)
            module.weight.sample = weight.detach().flatten()[:SAMPLE].clone()
