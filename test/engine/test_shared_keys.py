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

"""Layers that read the keys and values of an earlier one (Gemma 3n, Gemma 4)."""

from infmllm_ros.engine import inspect_model
from infmllm_ros.engine.layers import layer_specs
import pytest
from references import logits_plainly
from tape import text_tokens
from test_one_layer import live
import torch
from zoo import changed, folder, load, ONE_HEAD, ONE_LAYER, plain, POLICIES, session, words

TOLERANCE = 1e-4
FULL, SLIDING = 'full_attention', 'sliding_attention'
# the first layer sees words alone, so its keys do not depend on context, and there are no others
THREE = {'num_hidden_layers': 3, 'layer_types': [FULL] * 3, 'num_kv_shared_layers': 2}


@pytest.mark.parametrize('row', POLICIES)
@pytest.mark.parametrize('family', ['gemma3n_text', 'gemma4_text'])
def test_after_evictions_all_readers_see_the_kept_tokens_alone(family, row):
    heads = {'num_key_value_heads': 1} if POLICIES[row][1].get('scope') == 'head' else {}
    target, stream, changes = live(family, row, changes=changed(**THREE, **heads))
    assert row == 'full' or target.stats().evictions >= 3
    kept = target.kept(0)
    assert target.kept(1).equal(kept) and target.kept(2).equal(kept)
    ids = words(load(family, changes), 12, 99)
    tokens = [stream[index] for index in kept[0].tolist()] + text_tokens(
        load(family, changes), ids)
    expected = logits_plainly(plain(family, changes), tokens)[-12:]
    found = target.logits(ids).float()
    assert (found - expected).abs().max() <= TOLERANCE
    wrong = logits_plainly(plain(family, changes), tokens[:20] + tokens[21:])[-12:]
    assert (found - wrong).abs().max() > 10 * TOLERANCE     # one token less would be seen


@pytest.mark.parametrize('scope', ['layer', 'all'])
def test_the_attention_of_every_reader_counts(scope):
    """H2O's numbers are sums over all queries, of the mean over the heads of all readers."""
    changes = changed(**{**THREE, 'num_hidden_layers': 4, 'layer_types': [FULL] * 4})
    model = load('gemma4_text', changes)
    target = session('gemma4_text', 'h2o', 300, changes=changes, fields={'scope': scope})
    ids = words(model, 60, 0)
    target.tell(ids)
    whole = torch.cat([model.adapter.prompt.prefix('Be brief.'), ids])
    with torch.no_grad():
        weights = plain('gemma4_text', changes, attention='eager')(
            input_ids=whole[None], output_attentions=True).attentions
    sums = torch.stack([layer[0].mean(0).sum(0) for layer in weights])
    # the first layer keeps its own, and the second for itself and the last two
    groups = [sums.mean(0)] if scope == 'all' else [sums[0], sums[1:].mean(0)]
    assert len(target.cache.slots) == len(groups)
    for slots, expected in zip(target.cache.slots, groups, strict=True):
        assert (slots.state[0, 0, :slots.count] - expected).abs().max() <= TOLERANCE


def test_keys_that_are_shared_are_kept_once():
    one, three = (session('gemma4_text', 'saddle', 200, changes=changes).stats().kv_bytes
                  for changes in (ONE_LAYER, changed(**THREE)))
    assert one == three
    fewer = session('gemma4_text', 'saddle', 200, changes=ONE_HEAD).stats().kv_bytes
    assert fewer < one


def test_heads_may_differ_from_layer_to_layer():
    changes = changed(num_hidden_layers=4, layer_types=[SLIDING, FULL, SLIDING, FULL],
                      attention_k_eq_v=True, num_global_key_value_heads=1, num_kv_shared_layers=1)
    config = inspect_model(str(folder('gemma4_text', changes))).config
    found = [(spec.heads, spec.size, spec.window, spec.source) for spec in layer_specs(config)]
    assert found == [(2, 16, 24, None), (1, 32, 0, None), (2, 16, 24, None), (0, 0, 0, 1)]
    model = load('gemma4_text', changes)
    ids = words(model, 60, 0)
    whole = torch.cat([model.adapter.prompt.prefix('Be brief.'), ids])
    with torch.no_grad():
        expected = plain('gemma4_text', changes)(input_ids=whole[None]).logits[0, -60:]
    found = session('gemma4_text', 'saddle_heads', 300, changes=changes).logits(ids)
    assert (found - expected).abs().max() <= TOLERANCE
