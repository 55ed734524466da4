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
written. Elsewhere torch rotates all keys, then attends. The engine calls this in the `fused`
layout alone: see docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from itertools import product

import torch
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from .blocks import attend_in_blocks
from .errors import ModelError
from .rope import rotate

DTYPES = (torch.float32, torch.bfloat16, torch.float16)     # that the kernel multiplies
CLOSE = .03     # [of the largest] how near to torch the kernel must come: bfloat16's rounding


def can_fuse(*tensors: torch.Tensor) -> bool:
    """Tell whether the kernel can read these: of one GPU and type that it knows, with Triton."""
    first = tensors[0]
    return (first.is_cuda and first.dtype in DTYPES and find_spec('triton') is not None
            and all((part.device, part.dtype) == (first.device, first.dtype) for part in tensors))


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


def try_fused(query: torch.Tensor, master: torch.Tensor, value: torch.Tensor, cos: torch.Tensor,
              sin: torch.Tensor, scaling: float, kind: str) -> None:
    """
    Hold the kernel to torch on these inputs, as a chunk and as a last token, asked and not.

    This also compiles what a stream will need.

    Raises
    ------
    ModelError
        If it fails, or differs by more than `CLOSE`.
    """
    heads, held = master.shape[1:3]

    def attempt(attend: Callable[..., torch.Tensor], part: torch.Tensor, asked: bool,
                ) -> tuple[torch.Tensor, ...]:
        last = torch.tensor([part.shape[2] - 1], device=part.device) if asked else None
        sums = torch.zeros(2, heads, part.shape[1] // heads, held,
                           device=part.device).unbind(0) if asked else ()
        return attend(part, master, value, cos, sin, scaling, kind, last, *sums), *sums

    for part, asked in product((query, query[:, :, -1:]), (False, True)):
        try:
            found, expected = (attempt(attend, part, asked)
                               for attend in (attend_rotating, attend_by_torch))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: B902 whatever a compiler may raise
            reason = str(error).strip().partition('\n')[0]
            raise _refusal(f'fails here ({type(error).__name__}: {reason})') from error
        for one, other in zip(found, expected, strict=True):
            off = ((one - other).abs().max() / other.abs().max()).item()
            if not off <= CLOSE:    # nor NaN
                raise _refusal(f'is off by {off:.2g} of the largest number, where {CLOSE} would '
                               'be rounding')


def _refusal(what: str) -> ModelError:
    return ModelError(f"the kernel of the layout 'fused' {what}: use the layout 'lean', which "
                      'takes as much memory, or update Triton')
