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
"""The page of performance shows what was measured, and what measures it works."""

from pathlib import Path
import sys

from infmllm_ros.bundled import MODEL
from infmllm_ros.engine import FlexPrefill, load_model
import pytest
import torch
from transformers import DynamicCache

from benchmarks import (  # noqa: I100
    backlog,
    decode_speed,
    first_token,
    flatness,
    flex_prefill,
    frame_cost,
    gpu,
    layouts,
    performance_page,
    profile_frame,
)
from benchmarks.exam import Ledger
from benchmarks.published_h2o import PublishedH2O
from benchmarks.shapes import picture, random_model, SHAPES
from benchmarks.timing import by_turns, machine, read_flex, write, write_shape

PAGE = Path(__file__).parents[1] / 'docs/performance.md'
BUDGET = 256


@pytest.fixture(scope='module')
def tiny():
    torch.set_num_threads(1)
    return random_model('tiny', dtype=torch.float32)


@pytest.mark.parametrize('name', performance_page.tables())
def test_the_page_shows_the_numbers_that_were_measured(name):
    assert performance_page.tables()[name] in PAGE.read_text()


def test_no_number_is_missing():
    assert set(performance_page.TABLES) - {'speed_gpu'} <= set(performance_page.tables())


def test_shapes_stand_beside_each_other(tmp_path):
    rows = {'ours': {'wall_ms': 2., 'processor_ms': 1.}}
    for shape, count in (('tiny', 16), ('other', 4), ('tiny', 64)):
        write_shape('speed_first_token', shape, {
            'dtype': 'float32', 'frame_tokens': count, 'question': 32, 'rows': rows}, tmp_path)
    (text,) = performance_page.tables(tmp_path).values()
    assert [line for line in text.splitlines() if line.startswith('**')] == [
        '**tiny**, float32, 64 tokens a frame, a question of 32.',
        '**other**, float32, 4 tokens a frame, a question of 32.']


def test_rivals_take_turns():
    order = []
    times = by_turns({name: lambda name=name: order.append(name) for name in 'abc'}, 2, warm=1)
    assert ''.join(order) == 'abcbcacab'
    assert {name: len(spent) for name, spent in times.items()} == {'a': 2, 'b': 2, 'c': 2}


@pytest.mark.parametrize('name', [
    'flatness', 'frame_cost', 'decode', 'profile', 'first_token', 'layouts', 'flex', 'gpu'])
def test_a_benchmark_makes_its_table(name, tiny, tmp_path, monkeypatch):
    if name == 'gpu':
        monkeypatch.setattr(gpu, 'WINDOW', 4)
        monkeypatch.setattr(sys, 'argv', [
            'gpu.py', '--device', 'cpu', '--tiny', '--dtype', 'float32', '--out', str(tmp_path)])
        gpu.main()
    elif name == 'flatness':
        found = flatness.measure(load_model(MODEL), 'saddle', 192, 180, 60, asks=2)
        assert found['frames'] == 180 and list(found['windows']) == [60, 120, 180]
    elif name == 'frame_cost':
        names = {'streaming_llm', 'live_vlm', 'hermes', 'full'}
        found = frame_cost.measure(tiny, tiny, sorted(names), BUDGET, 2)
        assert set(found['policies']) == {'h2o as published', *names}
        assert [found['held'][name] for name in ('live_vlm', 'hermes')] == [BUDGET, BUDGET]
    elif name == 'decode':
        found = decode_speed.measure(tiny, tiny, 'saddle', BUDGET, (128, 512), 2)
        assert [row['held'] for row in found['lengths'].values()] == [128, BUDGET]
    elif name == 'profile':
        found = profile_frame.measure(tiny, 'saddle', BUDGET, 2)
        parts = found['frame']['parts']
        assert parts['compaction'] > 0 < parts['scoring']
        assert sum(parts.values()) >= 2 * parts['whole'] - 1e-2 * len(parts)
    elif name == 'layouts':
        found = {'shape': 'tiny', **layouts.measure(tiny, BUDGET, 2)}
        sizes = [row['kv_bytes'] for row in found['rows'].values()]
        assert sizes == sorted(sizes, reverse=True)
        found['exam'] = layouts.examine(
            load_model(MODEL), (96,), 30, Ledger(tmp_path / 'work', 'tiny'))
        assert [row['layout'] for row in found['exam']['rows']] == ['fast', 'int8']
        assert {row['asked'] for row in found['exam']['rows']} != {0}
    elif name == 'flex':
        rows = [flex_prefill.measure(tiny, FlexPrefill(), 512, past, 1) for past in (0, 256)]
        assert [row['held'] for row in rows] == [512, 768] and rows[0]['error'] < .2
        exam = flex_prefill.examine(
            load_model(MODEL), 768, (.9,), 200, 1, Ledger(tmp_path / 'work', 'tiny'))
        assert len(exam) == 3 and len({row['asked'] for row in exam} - {0}) == 1
        assert [row['computed'] < 1 for row in exam] == [False, False, True]
        found = {'shape': 'tiny', 'rounds': 1, 'rows': rows}
        write_shape('speed_flex', 'exam', {
            'budget': 768, 'backlog': 150, 'frames': 200, 'streams': 2, 'exam': exam}, tmp_path)
    else:
        found = first_token.measure(tiny, BUDGET, (2,), 2)
    if name in ('flatness', 'layouts'):
        write(f'speed_{name}', {'machine': machine(), **found}, tmp_path)
    elif name != 'gpu':
        write_shape(f'speed_{name}', 'tiny', found, tmp_path)
    (text,) = performance_page.tables(tmp_path).values()
    assert (tmp_path / f'speed_{name}.json').exists() and f'torch {torch.__version__}' in text


def test_a_gpu_that_is_too_small_gets_half_the_budget(monkeypatch):
    tried = []

    def measure(model, policy, budget, *rest):
        tried.append(budget)
        if budget > 1000:
            raise torch.OutOfMemoryError
        return {'budget': budget}

    monkeypatch.setattr(gpu, 'measure', measure)
    model = random_model('tiny', dtype=torch.float32)
    assert gpu.halving(model, 'saddle', 4096)['budget'] == 512 and tried == [4096, 2048, 1024, 512]
    monkeypatch.setattr(gpu, 'SMALLEST', 600)
    with pytest.raises(torch.OutOfMemoryError):
        gpu.halving(model, 'saddle', 4096)


def test_a_backlog_is_measured_in_three_ways():
    flex = read_flex(['min_chunk=20', 'min_held=20', 'gamma=1', 'block=16'])
    assert (flex.min_chunk, flex.gamma) == (20, 1.0)
    ways, sparse = backlog.measure(load_model(MODEL), 24, 2, 192, 60, flex)
    passes = {name: way.passes for name, way in ways.items()}
    assert len(passes['one by one']) == 24 and max(passes['many, dense']) <= 60
    assert passes['many, dense'] == passes['many, flex']
    assert sum(passes['one by one']) == sum(passes['many, flex'])
    assert sparse > 0 and all(len(way.feeding) == 3 for way in ways.values())
    assert [row.split()[-1] for row in backlog.table(ways, 24).splitlines()[1:2]] == ['1.00x']


@pytest.mark.parametrize(('shape', 'weights', 'frame'), [
    ('LLaVA-OneVision-0.5B', .89e9, 196), ('SmolVLM-256M', .256e9, 64),
    ('LLaVA-OneVision-7B', 8.03e9, 196), ('Qwen3-VL-2B', 2.13e9, 196)])
def test_shapes_are_those_of_the_checkpoints(shape, weights, frame):
    spec = gpu_spec(shape)
    assert abs(spec.count_parameters() - weights) < .02 * weights
    side = 448 if 'Qwen' in shape else 384
    rows, cols = spec.adapter.grid(side, side)
    assert rows * cols == frame


def gpu_spec(shape):
    from benchmarks.model_sizes import spec_of
    return spec_of(shape, SHAPES[shape])


def test_h2o_as_published_is_plain_attention_until_it_evicts(tiny):
    chunk = tiny.adapter.encode(tiny.model, picture(), 0.0)
    rival = PublishedH2O(tiny, 24, 24)
    found = torch.cat([rival.observe(chunk) for _ in range(3)], 1)
    cache, count = DynamicCache(), 3 * len(chunk)
    with torch.no_grad():
        expected = torch.cat([tiny.model.base_model(
            input_ids=chunk.ids[None], mm_encoder_outputs=chunk.features, past_key_values=cache,
            position_ids=torch.arange(first, first + len(chunk))[None],
        ).last_hidden_state for first in range(0, count, len(chunk))], 1)
    assert torch.allclose(found, expected, atol=1e-5)
    rival.observe(chunk)
    assert [layer.keys.shape[2] for layer in rival.cache.layers] == [48, 48]
    # the last 24 of 64 tokens, of which the plain cache has read 48
    assert rival.cache.layers[0].keys[:, :, 24:32].equal(cache.layers[0].keys[:, :, 40:])


def test_h2o_as_published_keeps_the_heaviest_columns(tiny):
    rival = PublishedH2O(tiny, 2, 2)
    keys = torch.arange(12.).view(1, 2, 6, 1).expand(-1, -1, -1, 32)
    rival.cache.update(keys, keys, 0)
    weights = torch.zeros(1, 4, 3, 6)
    weights[0, 0, :, 1] = weights[0, 1, :, 3] = .5      # query heads 0 and 1 share KV head 0
    weights[0, 2, 0, 0], weights[0, 3, 2, 2] = .4, .6
    rival.keep(0, weights)
    kept = rival.cache.layers[0].keys[0, :, :, 0].tolist()
    assert kept == [[1, 3, 4, 5], [6, 8, 10, 11]]
    assert rival.scores[0][0].tolist() == [1.5, 1.5, 0, 0]


def test_a_kernel_that_fails_is_reported(tiny, monkeypatch):
    def fails(*args):
        raise RuntimeError('no such instruction\nand more of it')

    place = tiny.config.get_text_config(decoder=True), tiny.dtype, tiny.device
    times, went = gpu.rotating(*place, 1, BUDGET)
    assert set(times) == {'torch'} and 'needs a GPU' in went
    monkeypatch.setattr(gpu, 'can_fuse', lambda *args: True)
    times, went = gpu.rotating(*place, 1, BUDGET)       # torch in its place
    assert set(times) == {'torch', 'fused'} and went == 'off from torch by 0.0e+00 at most'
    monkeypatch.setattr(gpu, 'attend_rotating', fails)
    times, went = gpu.rotating(*place, 1, BUDGET)
    assert set(times) == {'torch'} and went == 'failed: RuntimeError: no such instruction'
