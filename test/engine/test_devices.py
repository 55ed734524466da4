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

"""Layers over several devices: each layer's memory lies beside its weights."""

from copy import copy

from elsewhere import Elsewhere, HERE, Machine, spread, THERE
from infmllm_ros.engine import load_model
import pytest
from ranks import live
import torch
import zoo

pytest.importorskip('accelerate', reason='transformers places weights with it')


@pytest.fixture
def two_places(monkeypatch):
    """Give a model of a family whose last layers lie on a second device."""
    with_hooks = []

    def make(family):
        model = copy(zoo.load(family))
        model.rope = None
        manager = spread(model.model, range(1, len(model.model.get_decoder().layers)))
        manager.__enter__()
        with_hooks.append(manager)
        return model

    yield make
    for manager in with_hooks:
        manager.__exit__(None, None, None)


def test_the_second_device_computes_but_does_not_mix():
    with Machine():
        one, two = torch.arange(6.).view(2, 3), torch.ones(3, device='cpu:1')
        assert (one.device, two.device) == (HERE, THERE)
        with pytest.raises(RuntimeError, match='cpu and on cpu:1'):
            one @ two
        moved = one.to(THERE)
        assert isinstance(moved @ two, Elsewhere)
        assert (moved @ two * 2).to(HERE).tolist() == [6.0, 24.0]
        moved[:, 1] = 7.0
        assert one[0].tolist() == [0.0, 1.0, 2.0] and moved[:, 1].to(HERE).tolist() == [7.0, 7.0]
        kept = torch.zeros(2)
        kept.copy_(two[:2])
        assert type(kept) is torch.Tensor and kept.tolist() == [1.0, 1.0]


@pytest.mark.parametrize('family, row, layout', [(*cell, 'fast') for cell in [
    ('smolvlm', 'saddle_layers'), ('smolvlm', 'hermes'), ('smolvlm', 'infinipot_v'),
    ('qwen2_5_vl', 'live_vlm'), ('gemma3', 'saddle'), ('lfm2_vl', 'h2o'),
    ('qwen3_5_text', 'saddle_heads'), ('gemma4', 'live_vlm'), ('gemma4_text', 'saddle_heads')
]] + [('gemma4', 'live_vlm', 'lean'), ('smolvlm', 'saddle', 'int8')])
def test_layers_on_another_device_remember_the_same(family, row, layout, two_places):
    _, expected = live(zoo.load(family), row, {}, layout)
    model = two_places(family)
    target, found = live(model, row, {}, layout)
    assert expected['evicted'] > 0
    for number, layer in target.cache.own.items():
        tensors = [t for t in vars(layer).values() if isinstance(t, torch.Tensor)]
        tensors += layer.tensors().values()
        assert {t.device for t in tensors} == {THERE if number else HERE}
    for layer, kept in expected['kept'].items():
        assert found['kept'][layer].equal(kept)
    assert found['answers'] == expected['answers']
    assert found['logits'].equal(expected['logits'])


def test_weights_that_are_off_loaded_are_streamed(tmp_path):
    """Accelerate's own dispatch: layers on the CPU, and on disk until they are used."""
    decoder = 'model.text_model.'
    disk = [f'{decoder}embed_tokens', f'{decoder}layers.1', 'lm_head']
    memory = ['model.vision_model', 'model.connector', f'{decoder}layers.0', f'{decoder}layers.2',
              f'{decoder}norm', f'{decoder}rotary_emb']
    model = load_model(
        zoo.folder('smolvlm'), dtype='float32', offload_folder=str(tmp_path),
        device_map={**dict.fromkeys(memory, 'cpu'), **dict.fromkeys(disk, 'disk')})
    assert 'meta' in {weight.device.type for weight in model.model.parameters()}
    assert model.device == HERE
    _, expected = live(zoo.load('smolvlm'), 'saddle', {})
    _, found = live(model, 'saddle', {})
    assert found['answers'] == expected['answers']
    assert found['logits'].equal(expected['logits'])


def test_a_map_may_be_left_to_accelerate():
    model = load_model(zoo.folder('llama'), dtype='float32', device_map='auto')
    assert model.device == next(model.model.parameters()).device
    assert live(model, 'saddle', {})[1]['answers'] == live(
        zoo.load('llama'), 'saddle', {})[1]['answers']
