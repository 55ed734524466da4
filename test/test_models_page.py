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

"""The page of models has a row for each family, with what a frame of it looks like."""

from pathlib import Path
import re

from infmllm_ros.bundled.tiny import FAMILIES, make_tiny
from infmllm_ros.engine import inspect_model
from infmllm_ros.engine.models.load import ADAPTERS
import numpy as np
import pytest

from benchmarks.model_sizes import sizes, table  # noqa: I100

PAGE = (Path(__file__).parents[1] / 'docs/models.md').read_text()
ROWS = {name: row for row in re.findall(r'^\| `.*\|$', PAGE, re.M)
        for name in re.findall(r'`(\w+)`', row.split(' | ')[0])}


def test_every_family_that_sees_has_its_row():
    assert sorted(ROWS) == sorted(name for name in ADAPTERS if ADAPTERS[name].sees)


def test_every_text_decoder_that_is_tested_is_listed():
    listed = re.findall(r'`(\w+)`', ' '.join(re.findall(r'^> .*$', PAGE, re.M)))
    assert sorted(listed) == sorted(name for name in FAMILIES if not ADAPTERS[name].sees)


@pytest.mark.parametrize('family', [name for name in FAMILIES if ADAPTERS[name].sees])
def test_a_row_shows_the_tokens_around_a_frame(family, tmp_path):
    spec = inspect_model(make_tiny(family, tmp_path))
    chunk = spec.adapter.lay_out(np.zeros((60, 60, 3), np.uint8), 12.0)
    (span,) = chunk.spans
    end = span.start + span.rows * span.cols
    around = spec.tokenizer.decode([*chunk.ids[:span.start], *chunk.ids[end:]])
    special = {token for token in spec.tokenizer.all_special_tokens if token in around}
    # two rows say that they share tokens with the row before them
    shown = PAGE if 'the same' in ROWS[family] else ROWS[family]
    assert all(token.replace('|', '\\|') in shown for token in special)
    stamp = spec.adapter.stamp(12.0).strip()
    assert stamp in ROWS[family]


def test_sizes_are_those_that_the_configs_say():
    assert table() in PAGE


def test_a_size_follows_from_a_config_by_hand():
    size = next(size for size in sizes() if size.name == 'Qwen/Qwen3-VL-4B-Instruct')
    keys_and_values = 3 * 36 * 8 * 128 * 2      # layers, KV heads, channels, bytes of bfloat16
    assert 0 < size.slot - keys_and_values < 128
    assert 4.3e9 < size.weights / 2 < 4.6e9     # parameters: "4B" and its vision tower
    assert size.gpu == 12                       # 8.9 GB, 1 GiB and 1.5 GiB are 11.6 GB
    least = size.frames[1] * size.frame * keys_and_values
    assert 2 ** 30 / 2 < least < 2 ** 30        # the rest is kept free for a question
