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
"""Attention in blocks is attention: against the formula in double precision."""

from infmllm_ros.engine import blocks  # noqa: I100
from infmllm_ros.engine.blocks import attend_in_blocks, faster_in_blocks
import numpy as np
import pytest
from references import logits_plainly
from tape import Tape, text_tokens
import torch
from zoo import load, ONE_HEAD, ONE_LAYER, picture, plain, POLICIES, session, show, SIGHTED, words

HEADS, GROUPS, QUERIES, HELD, SIZE = 2, 3, 23, 71, 16


def drawn(dtype=torch.float32, offset=0.):
    rng = torch.Generator().manual_seed(0)
    query = torch.randn(1, HEADS * GROUPS, QUERIES, SIZE, generator=rng)
    key, value = torch.randn(2, 1, HEADS, HELD, SIZE, generator=rng).unbind(0)
    key = key + offset * torch.randn(1, HEADS, 1, SIZE, generator=rng)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def by_formula(query, key, value, scaling, sees):
    """Softmax of the seen logits, and their mean of the values; `sees` is bool [heads, q, K]."""
    query, key, value = (np.asarray(part[0].double()) for part in (query, key, value))
    key, value = key.repeat(GROUPS, 0), value.repeat(GROUPS, 0)
    logits = np.einsum('hqd,hkd->hqk', query, key) * scaling
    weights = np.where(sees, np.exp(logits - logits.max(-1, keepdims=True)), 0)
    weights /= weights.sum(-1, keepdims=True)
    return weights, np.einsum('hqk,hkd->qhd', weights, value)


@pytest.mark.parametrize('block', [1, 5 * GROUPS * HELD, 10 ** 6])
@pytest.mark.parametrize('seen', [
    'causal', 'ahead', 'hidden', 'hidden by head', 'hidden by query'])
def test_output_and_probabilities_are_those_of_the_formula(block, seen, monkeypatch):
    monkeypatch.setattr(blocks, 'BLOCK', block)
    inputs = drawn()
    place = np.arange(QUERIES)
    ahead = hidden = None
    last = place
    if seen == 'ahead':     # a frame of ten tokens in the middle sees all of itself
        last = np.where((place >= 5) & (place < 15), 14, place)
        ahead = torch.from_numpy(last)
    sees = np.arange(HELD) <= HELD - QUERIES + last[:, None]
    sees = np.broadcast_to(sees, (HEADS * GROUPS, QUERIES, HELD)).copy()
    if seen.startswith('hidden'):
        shape = {'head': (HEADS, 1, 1, HELD), 'query': (QUERIES, HELD)}.get(
            seen.split()[-1], (HELD,))
        hidden = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < .4
        hidden[..., -QUERIES:] = False
        gone = np.asarray(hidden.expand(HEADS, 1, QUERIES, HELD))
        sees &= ~gone.reshape(HEADS, QUERIES, HELD).repeat(GROUPS, 0)
    weights, expected = by_formula(*inputs, .3, sees)
    rows = torch.tensor([0, 4, 17, 22])
    window, final = torch.zeros(2, HEADS, GROUPS, HELD).unbind(0)
    out = attend_in_blocks(*inputs, .3, ahead, hidden, rows, window, final)
    assert np.abs(out[0].numpy() - expected).max() < 1e-5
    sums = weights[:, rows].sum(1).reshape(HEADS, GROUPS, HELD)
    assert np.abs(window.numpy() - sums).max() < 1e-5
    assert np.abs(final.numpy() - weights[:, -1].reshape(HEADS, GROUPS, HELD)).max() < 1e-5
    window.zero_()
    attend_in_blocks(*inputs, .3, ahead, hidden, None, window)
    assert np.abs(window.numpy() - weights.sum(1).reshape(sums.shape)).max() < 1e-5


def test_without_an_order_all_see_all():
    inputs = drawn()
    _, expected = by_formula(*inputs, .3, np.ones((1, QUERIES, HELD), bool))
    found = attend_in_blocks(*inputs, .3, causal=False)
    assert np.abs(found[0].numpy() - expected).max() < 1e-5


@pytest.mark.parametrize('family', SIGHTED)
def test_a_vision_tower_sees_the_same(family, monkeypatch):
    """With and without blocks: in half precision about as near to what single precision sees."""
    def features(dtype):
        model = load(family, dtype=dtype)
        session(family, 'streaming_llm', 160, dtype=dtype)      # puts our attention in
        images = [picture(number, 64, 64) for number in range(3)]       # looked at together
        seen = model.adapter.see(
            model.model, [model.adapter.lay_out(image, 0.0) for image in images], images)
        return torch.cat([part.flatten().float() for chunk in seen
                          for output in chunk.features.values() for part in output.pooler_output])

    exact, rounded = features('float32'), features('bfloat16')
    monkeypatch.setattr(blocks, 'WORTH', 0)
    monkeypatch.setattr(blocks, 'FAST_BFLOAT16', True)
    calls = []
    monkeypatch.setattr('infmllm_ros.engine.attention.attend_in_blocks', lambda *args, **how: (
        calls.append(how), attend_in_blocks(*args, **how))[1])
    found = features('bfloat16')
    assert {'causal': False} in calls
    assert (found - exact).norm() < 2 * (rounded - exact).norm()


def test_an_offset_that_all_keys_share_costs_little_in_half_precision():
    inputs = drawn(torch.bfloat16, offset=30.)
    sees = np.arange(HELD) <= HELD - QUERIES + np.arange(QUERIES)[:, None]
    _, exact = by_formula(*inputs, .3, sees)
    query, key, value = inputs
    logits = (query @ key.repeat_interleave(GROUPS, 1).transpose(2, 3)) * .3     # as eager does
    logits = logits.masked_fill(~torch.from_numpy(sees), float('-inf'))
    eager = (logits.float().softmax(-1).bfloat16() @ value.repeat_interleave(GROUPS, 1))
    eager = np.abs(eager[0].transpose(0, 1).float().numpy() - exact).max()
    found = np.abs(attend_in_blocks(*inputs, .3)[0].float().numpy() - exact).max()
    assert found < eager / 3


@pytest.mark.parametrize(('family', 'row'), [
    ('smolvlm', 'saddle'), ('smolvlm', 'h2o'), ('qwen2_5_vl', 'live_vlm'), ('gemma3', 'saddle'),
    ('lfm2_vl', 'streaming_llm')])
def test_a_memory_in_half_precision_is_as_good_in_blocks(family, row, monkeypatch):
    """As in test_one_layer, with every chunk computed so, on any processor."""
    monkeypatch.setattr(blocks, 'WORTH', 0)
    monkeypatch.setattr(blocks, 'FAST_BFLOAT16', True)
    changes = ONE_HEAD if POLICIES[row][1].get('scope') == 'head' else ONE_LAYER
    model, calls = load(family, changes, 'bfloat16'), []
    monkeypatch.setattr('infmllm_ros.engine.attention.attend_in_blocks', lambda *args, **how: (
        how or calls.append(args), attend_in_blocks(*args, **how))[1])
    with Tape(model) as tape:
        target = session(family, row, 160, changes=changes, dtype='bfloat16')
        for number in range(8):
            show(target, number)
            target.tell(words(model, 5 + 7 * (number % 4), number))
        stream = [token for chunk in tape.take() for token in chunk]
    assert target.stats().evictions >= 2 and len(calls) >= 16
    kept = [stream[index] for index in target.kept(0)[0].tolist()]
    ids = words(model, 12, 99)
    reference = kept + text_tokens(model, ids)
    expected = logits_plainly(plain(family, changes, 'bfloat16'), reference)[-12:]
    exact = logits_plainly(plain(family, changes), reference)[-12:]
    found = target.logits(ids).float()
    assert (found - exact).abs().max() < 2 * (expected - exact).abs().max() + .02


def test_where_it_is_faster():
    query, key, _ = drawn(torch.bfloat16)
    assert not faster_in_blocks(query, key)                 # too little to be worth it
    long = key.repeat(1, 1, 100, 1)
    assert faster_in_blocks(query, long) == blocks.FAST_BFLOAT16
    assert not faster_in_blocks(query.float(), long.float())
