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
The models and policies that every invariant is tested on; a new one joins by one line.

Models are tiny folders with random weights, written once a session by `infmllm_ros.bundled.tiny`.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from pathlib import Path
import shutil

from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.engine import load_model, make_policy, ModelError, StreamingSession
import numpy as np
import pytest
import torch
import transformers

SIGHTED = (
    'smolvlm', 'llava_onevision', 'qwen2_5_vl', 'qwen3_vl', 'qwen2_vl', 'idefics3', 'internvl',
    'gemma3', 'lfm2_vl', 'qwen3_5', 'gemma4', 'lfm3_vl', 'minicpmv4_6')
TEXT_ONLY = (
    'llama', 'qwen2', 'qwen3', 'gemma3_text', 'lfm2', 'qwen3_5_text', 'mistral', 'gpt_neox',
    'phi3', 'smollm3', 'qwen3_moe', 'ernie4_5', 'gemma3n_text')
FAMILIES = SIGHTED + TEXT_ONLY

# name of the row -> (policy, fields); every row is held to invariants 1, 2, 4, 6, 7, 8 and 9
POLICIES = {
    'saddle': ('saddle', {'recent': 0.25, 'bias': 0.01}),
    'saddle_heads': (
        'saddle', {'scope': 'head', 'window': 'chunk', 'reduce': 'max', 'discount': 0.9}),
    'saddle_layers': (
        'saddle', {'scope': 'layer', 'window': 'chunk', 'age': 'stream', 'recent': 24}),
    'saddle_probe': ('saddle', {'window': 'probe', 'probe': 'What now?', 'probe_every': 2}),
    'streaming_llm': ('streaming_llm', {'sinks': 4}),
    'streaming_vlm': (
        'streaming_vlm', {'text_sink': 16, 'text_window': 40, 'vision_window': 3.0}),
    'live_vlm': ('live_vlm', {'rows': 8, 'page': 4, 'duplicate': 0.0}),
    'infinipot_v': ('infinipot_v', {'scope': 'head'}),
    'hermes': ('hermes', {'probe': 'What now?', 'shallow': 0.34, 'deep': 0.34}),
    'h2o': ('h2o', {'scope': 'head'}),
    'recent_frames': ('recent_frames', {'frames': 3}),
    'random': ('random', {'seed': 3}),
    'full': ('full', {}),
}

EVICTING = [row for row in POLICIES if row != 'full']

# fields of policies that evict within their budget, with which they do not
WIDE = {
    'recent_frames': {'frames': 99},
    'streaming_vlm': {'text_sink': 0, 'text_window': 500, 'vision_window': 1e6},
}

ROPES = {  # every 1-D scaling that a Llama configuration takes
    'default': {'rope_type': 'default', 'rope_theta': 10000.0},
    'linear': {'rope_type': 'linear', 'rope_theta': 10000.0, 'factor': 4.0},
    'dynamic': {'rope_type': 'dynamic', 'rope_theta': 10000.0, 'factor': 4.0},
    'llama3': {'rope_type': 'llama3', 'rope_theta': 10000.0, 'factor': 8.0,
               'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
               'original_max_position_embeddings': 512},
    'yarn': {'rope_type': 'yarn', 'rope_theta': 10000.0, 'factor': 4.0,
             'original_max_position_embeddings': 512},
    'longrope': {'rope_type': 'longrope', 'rope_theta': 10000.0, 'factor': 4.0,
                 'short_factor': [1.0] * 8, 'long_factor': [4.0] * 8,
                 'original_max_position_embeddings': 512},
}


def cells(families=FAMILIES, rows=POLICIES):
    """List every fourth cell of the matrix, each row and column at least once; if long, all."""
    step = 1 if os.environ.get('INFMLLM_CASES') else min(4, len(families), len(rows))
    return [(family, row) for number, family in enumerate(families)
            for place, row in enumerate(rows) if (number + place) % step == 0]


_home: Path | None = None


def settle(folder: Path) -> None:
    """Say where the tiny folders go, once a session."""
    global _home
    _home = folder


def policy(row: str, budget: int | str = 96, **fields):
    """Make the policy of one row of `POLICIES`."""
    name, own = POLICIES[row]
    return make_policy(name, budget=budget, **{**own, **fields})


def cached(make):
    """Remember what was made, whichever way the arguments are written."""
    once, form = functools.lru_cache(maxsize=None)(make), inspect.signature(make)

    @functools.wraps(make)
    def get(*args, **kwargs):
        bound = form.bind(*args, **kwargs)
        bound.apply_defaults()
        return once(*bound.args)
    return get


@cached
def folder(family: str, changes: str = '') -> Path:
    """Write a tiny folder of `family`, its text config changed by the JSON object `changes`."""
    place = _home / f'{family}-{len(list(_home.iterdir()))}'
    make_tiny(family, place, **json.loads(changes or '{}'))
    return place


def changed(**text_config) -> str:
    """Write changes of a text config in the form that the caches here take as a key."""
    return json.dumps(text_config, sort_keys=True)


ONE_LAYER = changed(num_hidden_layers=1)
ONE_HEAD = changed(num_hidden_layers=1, num_key_value_heads=1)


@cached
def load(family: str, changes: str = '', dtype: str = 'float32'):
    """Load a tiny folder with the engine."""
    model = load_model(str(folder(family, changes)), device='cpu', dtype=dtype)
    # a first session finds the rotations by running the model: let that be over before any test
    StreamingSession(
        model, make_policy('full', budget=128), max_question=8, max_answer=8, chunk=16)
    return model


@cached
def plain(family: str, changes: str = '', dtype: str = 'float32', attention: str = 'sdpa'):
    """Load the same folder with Hugging Face alone."""
    place = folder(family, changes)
    name = transformers.AutoConfig.from_pretrained(place).architectures[0]
    return getattr(transformers, name).from_pretrained(
        place, dtype=getattr(torch, dtype), attn_implementation=attention).eval()


def session(family: str, row: str, budget: int | str = 96, *, changes: str = '',
            dtype: str = 'float32', fields: dict | None = None, **options) -> StreamingSession:
    """Start a session of one cell of the matrix, with little room for questions and answers."""
    options = {'system_prompt': 'Be brief.', 'max_question': 48, 'max_answer': 16, **options}
    return StreamingSession(
        load(family, changes, dtype), policy(row, budget, **(fields or {})), **options)


def picture(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Paint a random image, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def words(model, count: int, seed: int) -> torch.Tensor:
    """Draw `count` ids of ordinary words: none that the model treats as special."""
    special = set(model.tokenizer.all_special_ids) | set(model.tokenizer.added_tokens_decoder)
    ordinary = [i for i in range(len(model.tokenizer)) if i not in special]
    return torch.tensor(np.random.default_rng(seed).choice(ordinary, count))


def show(target: StreamingSession, number: int, size: int = 64) -> None:
    """Show picture `number`, at one picture a second."""
    target.observe(picture(number, size, size), stamp_ns=number * 10**9, camera='front')


def buffers(target: StreamingSession) -> dict[tuple, tuple]:
    """Find where in memory the keys and values of a session lie, and how large they are."""
    found = {
        (number, name): (value.data_ptr(), value.untyped_storage().nbytes())
        for number, layer in enumerate(target.cache.layers)
        for name, part in vars(layer).items()
        for value in (part.values() if isinstance(part, dict) else [part])
        if isinstance(value, torch.Tensor)}
    total = target.stats().kv_bytes
    assert sum(size for _, size in found.values()) > total / 2  # the rest are ledgers
    return found


def holders(target: StreamingSession) -> list[int]:
    """List the layers that hold tokens: all but those that carry a state."""
    return [number for number, layer in enumerate(target.cache.layers) if hasattr(layer, 'slots')]


def copy(family: str, place: Path, changes: str = '') -> Path:
    """Copy a tiny folder, to change it."""
    return Path(shutil.copytree(folder(family, changes), place / family))


def shards(place: Path) -> list[Path]:
    """List the weight files of a folder."""
    return sorted(place.glob('model*.safetensors'))


def refusal(call, *args, **kwargs) -> str:
    """Call, and give the one line of the ModelError that must come."""
    with pytest.raises(ModelError) as caught:
        call(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)
