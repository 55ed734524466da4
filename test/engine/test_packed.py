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
"""Packed weights: the products of the plain ones, in the place of these."""

from infmllm_ros.engine import load_model, StreamingSession
from infmllm_ros.engine.blocks import FAST_BFLOAT16
from infmllm_ros.engine.models.packed import pack, PackedLinear
import numpy as np
import pytest
import torch
from torch import nn
from zoo import folder, load, plain, session, show, words

pytestmark = pytest.mark.skipif(
    not FAST_BFLOAT16, reason='this processor has no arithmetic of bfloat16')
BFLOAT16_STEP = 2. ** -8    # relative
LOGITS_STEP = 2. ** -4      # of logits of about 4, over two layers


def linears(model):
    return {name: part for name, part in model.model.named_modules()
            if isinstance(part, nn.Linear)}


@pytest.mark.parametrize('shape', [(1, 1), (1, 33), (2, 3), (0,), ()])
@pytest.mark.parametrize('bias', [True, False])
def test_a_product_is_that_of_the_formula(shape, bias):
    torch.manual_seed(0)
    layer = nn.Linear(70, 45, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    given = torch.randn(*shape, 70).bfloat16()
    exact = np.asarray(given.double()) @ np.asarray(layer.weight.double()).T
    exact = exact + np.asarray(layer.bias.double()) if bias else exact
    pack(layer)
    assert type(layer) is PackedLinear
    found = layer(given)
    assert found.shape == (*shape, 45) and found.dtype == torch.bfloat16
    assert (np.abs(found.double().numpy() - exact) <= BFLOAT16_STEP * np.abs(exact) + 1e-5).all()


@pytest.mark.parametrize('family', ['qwen2', 'llava_onevision'])
def test_loaded_weights_take_the_place_of_plain_ones_but_for_tied_ones(family):
    model, given = load(family, dtype='bfloat16'), plain(family, dtype='bfloat16')
    found, theirs = linears(model), dict(given.named_modules())
    head = model.model.get_output_embeddings()
    tied = given.get_output_embeddings().weight is given.get_input_embeddings().weight
    assert found and set(map(type, found.values())) == {PackedLinear}
    for name, layer in found.items():
        assert layer.packed.to_dense().equal(theirs[name].weight)
        assert layer.weight.is_mkldnn is not (tied and layer is head)
    assert model.model.get_input_embeddings().weight.equal(given.get_input_embeddings().weight)
    assert (head.weight is model.model.get_input_embeddings().weight) is tied
    assert sum(p.nbytes for p in model.model.parameters()) == sum(
        p.nbytes for p in given.parameters())


@pytest.mark.parametrize('family', [
    'qwen2', 'gemma4', 'minicpmv4_6', 'qwen3_5', 'gemma3n_text', 'gpt_neox'])
def test_a_packed_model_called_plainly_is_as_exact_as_the_plain_one(family):
    model = load(family, dtype='bfloat16')
    ids = words(model, 12, seed=0)[None]
    found = model.model(ids).logits
    rounded, exact = (plain(family, dtype=dtype)(ids).logits for dtype in ('bfloat16', 'float32'))
    assert (found - exact).abs().max() < 2 * (rounded - exact).abs().max()
    said = model.model.generate(ids, max_new_tokens=3, do_sample=False)
    assert said[0, 12] == found[0, -1].argmax()


def test_a_memory_goes_from_a_packed_model_to_a_plain_one(tmp_path):
    target = session('llava_onevision', 'saddle', dtype='bfloat16')
    for number in range(6):
        show(target, number)
    target.save(tmp_path / 'memory')
    model = load_model(folder('llava_onevision'), 'cpu', 'bfloat16', packed=False)
    assert set(map(type, linears(model).values())) == {nn.Linear}
    loaded = StreamingSession.load(tmp_path / 'memory', model)
    assert loaded.kept(0).equal(target.kept(0))
    ids = words(model, 9, seed=1)
    assert (loaded.logits(ids) - target.logits(ids)).abs().max() < LOGITS_STEP


@pytest.mark.parametrize('layer', [
    nn.Linear(8, 8), nn.Linear(8, 8, dtype=torch.float16), nn.LayerNorm(8, dtype=torch.bfloat16)])
def test_what_gains_nothing_stays(layer):
    kind = type(layer)
    pack(layer)
    assert type(layer) is kind and not layer.weight.is_mkldnn
