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

"""Heads split over two processes: they keep, and say, what one process does."""

import json
import os
from pathlib import Path
import subprocess
import sys

from infmllm_ros.engine import ModelError
from infmllm_ros.engine.layers import layer_specs
from infmllm_ros.engine.parallel import check_heads, Ranks
import pytest
from ranks import live
import torch
import zoo

pytest.importorskip('accelerate', reason='transformers places weights with it')

TOLERANCE = 1e-4
HEADS = zoo.changed(num_attention_heads=8, num_key_value_heads=4)   # two KV heads a process
# family, changes, row of policies, fields, and a layout
CASES = {
    'all': ('llama', HEADS, 'saddle', {}),
    'lean': ('llama', HEADS, 'saddle', {}, 'lean'),
    'heads': ('llama', HEADS, 'saddle_heads', {}),
    'h2o': ('llama', HEADS, 'h2o', {}),
    'random': ('llama', HEADS, 'random', {'scope': 'head'}),
    'retrieves': ('llama', HEADS, 'live_vlm', {}),
    'layers': ('qwen2_5_vl', '', 'saddle_layers', {}),
    'depth': ('qwen2_5_vl', '', 'hermes', {}),
    'reads': ('qwen2_5_vl', '', 'infinipot_v', {}),
    'max': ('gemma3_text', '', 'saddle', {'reduce': 'max'}),
    'states': ('qwen3_5_text', '', 'saddle', {}),
    'planless': ('qwen3_vl', '', 'saddle', {}),
}
REFUSED = {'retrieves': 'live_vlm', 'planless': 'no plan to split qwen3_vl'}


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """Run all cases in two processes: what each rank found, by case."""
    place = tmp_path_factory.mktemp('ranks')
    cases = [(str(zoo.folder(family, changes)), *rest)
             for family, changes, *rest in CASES.values()]
    (place / 'cases.json').write_text(json.dumps(cases))
    paths = [str(Path(__file__).parents[2]), os.environ.get('PYTHONPATH', '')]
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
         str(Path(__file__).with_name('ranks.py')), str(place / 'cases.json'), str(place)],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(paths)},
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    both = [torch.load(place / f'{rank}.pt') for rank in (0, 1)]
    return dict(zip([*CASES, 'saved'], zip(*both, strict=True), strict=True))


@pytest.mark.parametrize('case', [name for name in CASES if name not in REFUSED])
def test_two_processes_live_as_one(ranks, case):
    family, changes, *rest = CASES[case]
    target, alone = live(zoo.load(family, changes), *rest)
    assert alone['evicted'] > 0
    for found in ranks[case]:
        assert found['ranks'] == 2 and found['evicted'] == alone['evicted']
        assert found['bytes'] < alone['bytes']
        assert (found['logits'] - alone['logits']).abs().max() <= TOLERANCE
        assert found['probabilities'] == pytest.approx(alone['probabilities'], abs=TOLERANCE)
        for (said, seen), (expected, evidence) in zip(
                found['answers'], alone['answers'], strict=True):
            assert said == expected
            assert dict(seen) == pytest.approx(dict(evidence), abs=TOLERANCE)
    for layer, kept in alone['kept'].items():
        parts = torch.cat([found['kept'][layer] for found in ranks[case]])
        assert parts.equal(kept)


def test_every_rank_saves_and_loads_its_own_heads(ranks):
    for found in ranks['saved']:
        loaded, kept = found['again']
        assert loaded.equal(kept)


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_split_is_refused(ranks, case):
    for found in ranks[case]:
        assert REFUSED[case] in found['refused'] and '2 processes' in found['refused']


def test_heads_that_cannot_be_shared_out_are_refused():
    specs = layer_specs(zoo.load('llama').config)
    check_heads(specs, 2)
    with pytest.raises(ModelError, match='2 KV heads .* 4 processes.* divides 2'):
        check_heads(specs, 4)


def test_other_processes_than_those_that_share_the_heads_are_refused(monkeypatch):
    monkeypatch.setattr('torch.distributed.is_initialized', lambda: True)
    monkeypatch.setattr('torch.distributed.get_world_size', lambda: 3)
    with pytest.raises(ModelError, match='4 of 8 KV heads, but 3 processes run'):
        Ranks.of(8, 4)
