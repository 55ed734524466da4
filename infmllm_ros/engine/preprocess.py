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
Camera images as the vision towers want them: resize, normalise, patchify, in torch.

The results are within one grey level of the families' own PIL processors (but for a few values
in 10,000 that are two off, where a tie in rounding meets the overshoot of the filter), without
torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional

from .errors import FrameError

# PIL's numbers for its filters, as `resample` in preprocessor_config.json has them.
FILTERS = {1: 'lanczos', 2: 'bilinear', 3: 'bicubic'}


def frame_size(image: Any) -> tuple[int, int]:
    """
    Check that something from outside is an image; give its height and width, pixels.

    Parameters
    ----------
    image : numpy.ndarray or torch.Tensor
        uint8 [H, W, 3], RGB; any strides.

    Raises
    ------
    FrameError
        If shape or type is another.
    """
    shape = tuple(getattr(image, 'shape', ()))
    dtype = str(getattr(image, 'dtype', type(image).__name__)).removeprefix('torch.')
    if dtype != 'uint8' or len(shape) != 3 or shape[2] != 3:
        raise FrameError(
            f'an image of {dtype} {list(shape)}: convert it to uint8 [height, width, 3] RGB'
        )
    if 0 in shape:
        raise FrameError(f'an image of {shape[1]} x {shape[0]} pixels: it needs at least 1 x 1')
    return shape[0], shape[1]


def to_frame(image: Any) -> torch.Tensor:
    """
    Take an image from outside as a tensor.

    Parameters
    ----------
    image : numpy.ndarray or torch.Tensor
        uint8 [H, W, 3], RGB; any strides.

    Returns
    -------
    torch.Tensor
        uint8 [1, 3, H, W] on the CPU, channels last in memory (the fast layout for resizing).

    Raises
    ------
    FrameError
        If shape or type is another.
    """
    frame_size(image)
    if not isinstance(image, torch.Tensor):
        # Torch cannot share reversed or read-only memory (images out of a message are read-only).
        image = torch.from_numpy(np.require(image, requirements=('C', 'W')))
    return image.cpu().permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)


def resize(frame: torch.Tensor, height: int, width: int, resample: int) -> torch.Tensor:
    """
    Resize as PIL does: antialiased, rows first, rounded and clipped to 0..255 after each pass.

    Torch does that for uint8 only; in float it leaves out the clipping between the passes, which
    is tens of grey levels off at hard edges, and is six times slower.

    Parameters
    ----------
    frame : torch.Tensor
        uint8 [1, 3, H, W].
    height, width : int
        Of the result, pixels.
    resample : int
        PIL's number of the filter, see `FILTERS`.

    Returns
    -------
    torch.Tensor
        uint8 [1, 3, height, width].
    """
    if frame.shape[-2:] == (height, width):
        return frame
    try:
        mode = FILTERS[resample]
        return functional.interpolate(frame, (height, width), mode=mode, antialias=True)
    except ValueError:
        # Lanczos came late to torch; transformers' own torch processors fall back like this.
        return functional.interpolate(frame, (height, width), mode='bicubic', antialias=True)


def normalise(
    frame: torch.Tensor, mean: Sequence[float], std: Sequence[float], scale: float = 1 / 255
) -> torch.Tensor:
    """
    Bring grey levels to the vision tower's range: ``(frame * scale - mean) / std``.

    Parameters
    ----------
    frame : torch.Tensor
        uint8 [1, 3, H, W].
    mean, std : sequence of float
        Per channel, of the scaled levels.
    scale : float
        Grey level to scaled level.

    Returns
    -------
    torch.Tensor
        float32 [1, 3, H, W].
    """
    gain = scale / torch.tensor(std).view(1, -1, 1, 1)
    offset = (torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1)
    return frame.float().mul_(gain).sub_(offset)


def patchify(pixels: torch.Tensor, patch: int, merge: int, frames: int) -> torch.Tensor:
    """
    Cut an image into the rows that the Qwen vision towers take.

    Patches come in blocks of `merge` x `merge` that later become one token, and each is repeated
    `frames` times: the tower looks at that many frames at once, and gets the same one.

    Parameters
    ----------
    pixels : torch.Tensor
        float [1, C, H, W]; H and W multiples of ``patch * merge``.
    patch : int
        Side of a patch, pixels.
    merge : int
        Patches along each side of a block.
    frames : int
        How many frames a patch is deep.

    Returns
    -------
    torch.Tensor
        float [H / patch * W / patch, C * frames * patch * patch].
    """
    _, channels, height, width = pixels.shape
    rows, cols = height // patch // merge, width // patch // merge
    blocks = pixels.expand(frames, -1, -1, -1).reshape(
        frames, channels, rows, merge, patch, cols, merge, patch
    )
    # [row, col, row in block, col in block, channel, frame, y, x]
    blocks = blocks.permute(2, 5, 3, 6, 1, 0, 4, 7)
    return blocks.reshape(rows * cols * merge**2, channels * frames * patch**2)


def patch_rows(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """
    Cut an image into patches as SigLIP 2 takes them: row by row, channels last.

    Parameters
    ----------
    pixels : torch.Tensor
        float [1, C, H, W]; H and W multiples of `patch`.
    patch : int
        Side of a patch, pixels.

    Returns
    -------
    torch.Tensor
        float [1, H / patch * W / patch, patch * patch * C].
    """
    cut = pixels.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    # [1, row, col, y, x, channel]
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def fit_longest(height: int, width: int, longest: int) -> tuple[int, int]:
    """
    Size with the longer side at `longest` and the aspect kept, the shorter side even.

    As SmolVLM's processors compute it (``_resize_output_size_rescale_to_max_len``).
    """
    aspect = width / height
    if width >= height:
        width, height = longest, int(longest / aspect)
        height += height % 2
    else:
        height, width = longest, int(longest * aspect)
        width += width % 2
    return max(height, 1), max(width, 1)


def fit_grid(
    height: int, width: int, cell: int, min_cells: int, max_cells: int
) -> tuple[int, int]:
    """
    Rows and columns of square cells for an image, its aspect kept as closely as they allow.

    Equal to ``smart_resize`` of Qwen2-VL's processor, but for images so narrow (beyond about
    1 : 200) that it refuses them or leaves the limit: here the longer side is clipped.

    Parameters
    ----------
    height, width : int
        Of the image, pixels.
    cell : int
        Side of a cell (one token), pixels.
    min_cells, max_cells : int
        Limits on rows times columns.

    Returns
    -------
    tuple of int
        Rows and columns, at least 1 each, at most `max_cells` together.
    """
    rows, cols = round(height / cell), round(width / cell)
    if rows * cols > max_cells:
        shrink = math.sqrt(height * width / (max_cells * cell**2))
        rows = max(1, math.floor(height / shrink / cell))
        cols = max(1, math.floor(width / shrink / cell))
    elif rows * cols < min_cells:
        grow = math.sqrt(min_cells * cell**2 / (height * width))
        rows, cols = math.ceil(height * grow / cell), math.ceil(width * grow / cell)
    rows = min(rows, max_cells)
    return rows, min(cols, max_cells // rows)
