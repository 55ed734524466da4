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
Attention to keys that are stored un-rotated alone: they are turned on their way to the products.

A memory that keeps no rotated copy of its keys needs two thirds of the bytes. On a GPU one kernel
(`fused_kernel.py`) rotates a tile of keys where it multiplies them, so that no rotated key is ever
written. Elsewhere torch rotates all keys, then attends. Nothing in the engine calls this by
itself: see docs/performance.md.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from .blocks import attend_in_blocks
from .rope import rotate

DTYPES = (torch.float32, torch.bfloat16, torch.float16)     # that the kernel multiplies


def can_fuse(query: torch.Tensor, master: torch.Tensor, value: torch.Tensor) -> bool:
    """Tell whether the kernel can be used: where the tensors lie, of which types, with Triton."""
    return (query.is_cuda and query.dtype in DTYPES
            and query.dtype == master.dtype == value.dtype and find_spec('triton') is not None)


def attend_rotating(query: torch.Tensor, master: torch.Tensor, value: torch.Tensor,
                    cos: torch.Tensor, sin: torch.Tensor, scaling: float, kind: str,
                    rows: torch.Tensor | None = None, window: torch.Tensor | None = None,
                    final: torch.Tensor | None = None) -> torch.Tensor:
    """
    Attend causally to keys that are rotated for this alone, by the kernel where it can be used.

    Parameters
    ----------
    query : torch.Tensor
        [1, H, q, D], rotated: the last q tokens.
    master, value : torch.Tensor
        [1, Hkv, K, D]: un-rotated keys, and values; views of larger buffers will do.
    cos, sin : torch.Tensor
        [G, K, R] of the keys' positions; G is 1, or Hkv where each head has its own. Both
        channels of a pair turn by one angle.
    scaling : float
        Of the logits.
    kind : str
        Pairing of channels, see :func:`~infmllm_ros.engine.rope.rotate`.
    rows, window, final : torch.Tensor, optional
        See :func:`~infmllm_ros.engine.blocks.attend_in_blocks`.

    Returns
    -------
    torch.Tensor
        [1, q, H, D].
    """
    # where all queries are asked, blocks have their probabilities at hand; the kernel has not
    if can_fuse(query, master, value) and (window is None or rows is not None):
        from .fused_kernel import attend_fused  # imports Triton
        return attend_fused(query, master, value, cos, sin, scaling, kind, rows, window, final)
    return attend_by_torch(query, master, value, cos, sin, scaling, kind, rows, window, final)


def attend_by_torch(query: torch.Tensor, master: torch.Tensor, value: torch.Tensor,
                    cos: torch.Tensor, sin: torch.Tensor, scaling: float, kind: str,
                    rows: torch.Tensor | None = None, window: torch.Tensor | None = None,
                    final: torch.Tensor | None = None) -> torch.Tensor:
    """Do as :func:`attend_rotating`, with the rotated keys written out."""
    key = rotate(master, cos, sin, kind)
    if window is not None or final is not None:
        return attend_in_blocks(
            query, key, value, scaling, rows=rows, window=window, final=final)
    seen = causal_lower_right(query.shape[2], key.shape[2])
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, scale=scaling, enable_gqa=True).transpose(1, 2)
