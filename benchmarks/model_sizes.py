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
Which checkpoint fits which GPU, and how long a memory it carries: one table, without weights.

``python -m benchmarks.model_sizes`` prints the table of docs/models.md. The numbers follow from
the published configs in `model_sizes.json`: weights are counted on a model of that config without
storage, the memory as the engine itself plans it for the default policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import json
from pathlib import Path
import tempfile

from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.engine import inspect_model, make_policy
from infmllm_ros.engine.budget import fixed_bytes, make_plan, Settings, slot_bytes
from infmllm_ros.engine.layers import layer_specs
from infmllm_ros.engine.models import ModelSpec
from infmllm_ros.engine.models.load import ADAPTERS
import numpy as np
import torch
import transformers

from .pages import markdown

CONFIGS = Path(__file__).with_suffix('.json')
GPUS = (4, 8, 12, 16, 24, 48, 80)       # GB
MEMORIES = (1, 2, 4)                    # GiB
GIB = 2 ** 30
# Of a GPU's memory: for the driver's context, the vision tower's and a chunk's activations.
WORKING = 1.5 * GIB
DTYPE, FRAME = torch.bfloat16, (480, 640)


@dataclass
class Size:
    """
    What one checkpoint takes.

    Parameters
    ----------
    name : str
    weights : int
        [bytes] In bfloat16.
    frame : int
        Tokens of a frame of 640 x 480 pixels, wrapper included.
    slot : int
        [bytes] Of one token in the memory.
    frames : dict of int to int
        How many frames a memory of so many GiB holds, the system prompt's place aside.
    """

    name: str
    weights: int
    frame: int
    slot: int
    frames: dict[int, int]

    @property
    def gpu(self) -> int:
        """Name the smallest GPU, in GB, for the weights and a memory of `MEMORIES[0]` GiB."""
        needs = self.weights + MEMORIES[0] * GIB + WORKING
        return next(size for size in GPUS if size * 10 ** 9 >= needs)


def spec_of(name: str, fields: dict) -> ModelSpec:
    """Inspect a checkpoint of which there is the config alone; its tokenizer is a tiny one's."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = inspect_model(make_tiny(fields['model_type'], folder))
    ids = {key: value for key, value in tiny.config.to_dict().items()
           if key.endswith(('_token_id', '_token_index'))}
    config = transformers.AutoConfig.for_model(**fields, **ids)
    adapter = ADAPTERS[config.model_type](config, tiny.tokenizer, {})
    return ModelSpec(name, '', config, tiny.tokenizer, adapter)


def memory_of(spec: ModelSpec) -> tuple[int, int, int]:
    """Give the bytes of a token in the default policy's memory, of all else, and most tokens."""
    policy, layers = make_policy('saddle', budget=0), layer_specs(spec.config.get_text_config())
    whole = make_plan(spec, policy, DTYPE, Settings())      # as much as the context holds
    slot = slot_bytes(layers, policy, DTYPE.itemsize)
    fixed = fixed_bytes(layers, whole.headroom, DTYPE.itemsize) + whole.headroom * slot
    return slot, fixed, whole.budget


def sizes() -> Iterator[Size]:
    """Compute the rows of the table, the smallest weights first."""
    found = []
    for name, fields in json.loads(CONFIGS.read_text()).items():
        spec = spec_of(name, fields)
        with torch.device('meta'):
            model = transformers.AutoModelForImageTextToText.from_config(spec.config, dtype=DTYPE)
        weights = sum(weight.nbytes for weight in model.parameters())
        frame = len(spec.adapter.lay_out(np.zeros((*FRAME, 3), np.uint8), 754.0))
        slot, fixed, most = memory_of(spec)
        frames = {size: max(0, min(most, (size * GIB - fixed) // slot)) // frame
                  for size in MEMORIES}
        found.append(Size(name, weights, frame, slot, frames))
    yield from sorted(found, key=lambda size: size.weights)


def table() -> str:
    """Write the table in Markdown."""
    heads = ['GPU from', 'checkpoint', 'weights', 'tokens a frame', 'memory a token',
             *(f'{size} GiB' for size in MEMORIES)]
    rows = []
    for size in sizes():
        memories = (f'{frames:,} ({frames / 60:.1f} min)' if frames else 'too small'
                    for frames in size.frames.values())
        rows.append([f'{size.gpu} GB', f'`{size.name}`', f'{size.weights / 1e9:.1f} GB',
                     size.frame, f'{size.slot / 1024:.1f} KiB', *memories])
    return markdown(heads, rows)


if __name__ == '__main__':
    print(table())
