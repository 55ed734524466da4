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

"""FlexPrefill chooses what its paper says, computes just that, and at gamma 1 is dense."""

from dataclasses import replace

from infmllm_ros.engine import attention as engine_attention
from infmllm_ros.engine import BudgetError, FlexPrefill, PolicyError, StreamingSession
from infmllm_ros.engine.prefill import make_prefill, sparse
import numpy as np
import pytest
from references_flex import blocks_of_head
import torch
from zoo import changed, load, ONE_LAYER, session, show, words

TOLERANCE = 1e-5
SMALL = {'block': 16, 'min_budget': 16, 'min_chunk': 32, 'min_held': 32, 'dense_above': 1.0}
# name -> H, Hkv, D, held, queries: square and over a cache; whole and ragged at either end
SHAPES = {
    'square': (2, 2, 16, 256, 256), 'ragged': (6, 2, 16, 203, 203),
    'chunk': (4, 1, 16, 256, 128), 'ragged_chunk': (6, 3, 8, 283, 99),
    'last_block': (4, 2, 16, 200, 40)}
FIELDS = {
    'default': {}, 'released': {'count': 'tokens', 'slash': 'one'}, 'low': {'gamma': 0.5},
    'aware': {'tau': 1.0}, 'vertical_slash': {'tau': 0.0}, 'at_most': {'max_budget': 40},
    'at_least': {'min_budget': 50}, 'aware_one': {'tau': 1.0, 'slash': 'one'},
    'other_block': {'block': 24}}


def random_inputs(shape, seed=0, dtype=torch.float32):
    """Draw queries, keys and values that attend unevenly."""
    heads, kv_heads, size, held, queries = SHAPES[shape]
    rng = torch.Generator().manual_seed(seed)
    query = 3 * torch.randn(heads, queries, size, generator=rng)
    key = torch.randn(kv_heads, held, size, generator=rng)
    # neighbours are alike, as in text: some means say much
    key = key + 2 * torch.randn(kv_heads, -(-held // 16), size, generator=rng).repeat_interleave(
        16, 1)[:, :held]
    value = torch.randn(kv_heads, held, size, generator=rng)
    return query.to(dtype), key.to(dtype), value.to(dtype), size ** -0.5


def attention(query, key, scaling):
    """Compute the whole causal attention: fp32 [H, q, n]."""
    queries, held = query.shape[1], key.shape[1]
    key = key.repeat_interleave(len(query) // len(key), 0)
    seen = torch.ones(queries, held, dtype=torch.bool).tril(held - queries)
    return (query.float() @ key.float().mT * scaling).masked_fill(~seen, -torch.inf).softmax(-1)


def mass_held(weights, active, block):
    """Sum what each query gives to the keys of chosen blocks: [H, q]."""
    _, queries, held = weights.shape
    row = torch.arange(held - queries, held) // block
    column = torch.arange(held) // block
    return (weights * active[:, row - row[0]][:, :, column]).sum(-1)


@pytest.mark.parametrize('fields', FIELDS)
@pytest.mark.parametrize('shape', SHAPES)
def test_the_chosen_blocks_are_those_of_a_slow_reference(shape, fields):
    flex = FlexPrefill(**{**SMALL, 'gamma': 0.7, **FIELDS[fields]})
    query, key, _, scaling = random_inputs(shape, 3)
    choice = flex.choose(query, key, scaling)
    group = len(query) // len(key)
    for head in range(len(query)):
        aware, blocks = blocks_of_head(
            query[head].double().numpy(), key[head // group].double().numpy(), scaling, flex)
        assert choice.query_aware[head] == aware
        np.testing.assert_array_equal(choice.active[head].numpy(), blocks)
    assert sparse.shares(choice.active).min() < 0.95, 'nothing to choose proves nothing'


@pytest.mark.parametrize('shape', SHAPES)
def test_the_rows_of_a_chunk_are_those_of_the_whole(shape):
    """What a chunk of a vertical-slash head computes does not depend on where the chunk began."""
    flex = FlexPrefill(**SMALL, tau=0.0)
    heads, kv_heads, size, held, queries = SHAPES[shape]
    query, key, _, scaling = random_inputs(shape, 4)
    before = torch.randn(heads, held - queries, size, generator=torch.Generator().manual_seed(1))
    whole = flex.choose(torch.cat((before, query), 1), key, scaling).active
    part = flex.choose(query, key, scaling).active
    assert torch.equal(part, whole[:, whole.shape[1] - part.shape[1]:])


@pytest.mark.filterwarnings('ignore:flex_attention called without torch.compile')
@pytest.mark.parametrize('backend', [*sparse.BACKENDS, 'products'])
@pytest.mark.parametrize('gamma', [0.5, 0.9])
@pytest.mark.parametrize('shape', SHAPES)
def test_just_the_chosen_blocks_are_attended_to(shape, gamma, backend, monkeypatch):
    # FlexAttention un-compiled: the same mask, in a second instead of minutes
    from torch.nn.attention.flex_attention import flex_attention
    monkeypatch.setattr(sparse, '_flex_attention', lambda: flex_attention)
    if backend == 'products':       # as where those of bfloat16 are fast
        monkeypatch.setattr(sparse, 'fast_products', lambda query: True)
        backend = 'gather'
    query, key, value, scaling = random_inputs(shape, 5)
    for above in (1.0, 0.7):
        flex = FlexPrefill(**{**SMALL, 'dense_above': above}, gamma=gamma, backend=backend)
        active = flex.choose(query, key, scaling).active
        whole = sparse.shares(active) > above
        computed = active | whole[:, None, None]
        held, queries = key.shape[1], query.shape[1]
        row, column = torch.arange(held - queries, held) // 16, torch.arange(held) // 16
        weights = attention(query, key, scaling) * computed[:, row - row[0]][:, :, column]
        weights /= weights.sum(-1, keepdim=True)
        expected = weights @ value.repeat_interleave(len(query) // len(key), 0)
        found = flex.attend(query, key, value, scaling)
        assert (found - expected).abs().max() <= TOLERANCE


def rounding(query, key, value, scaling):
    """Tell how far eager attention in half precision is off, whose logits are rounded."""
    exact = attention(query, key, scaling) @ value.float().repeat_interleave(
        len(query) // len(key), 0)
    key, value = (part.repeat_interleave(len(query) // len(part), 0) for part in (key, value))
    seen = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool).tril(
        key.shape[1] - query.shape[1])
    weights = (query @ key.mT * scaling).masked_fill(~seen, -torch.inf).softmax(-1)
    return ((weights @ value).float() - exact).abs().max()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('fields', ['default', 'released', 'aware', 'other_block'])
@pytest.mark.parametrize('shape', SHAPES)
def test_gamma_one_is_dense(shape, fields, dtype):
    flex = FlexPrefill(**{**SMALL, **FIELDS[fields], 'gamma': 1.0})
    query, key, value, scaling = random_inputs(shape, 6, dtype)
    expected = attention(query, key, scaling) @ value.float().repeat_interleave(
        len(query) // len(key), 0)
    found = flex.attend(query, key, value, scaling)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() <= (
        TOLERANCE if dtype == torch.float32 else 2 * rounding(query, key, value, scaling))


def test_rows_at_a_time_do_not_show(monkeypatch):
    monkeypatch.setattr(engine_attention, 'MASKED_ROWS', 37)
    monkeypatch.setattr(sparse, 'GATHERED', 5000)
    for shape in SHAPES:
        query, key, value, scaling = random_inputs(shape, 7)
        expected = attention(query, key, scaling) @ value.repeat_interleave(
            len(query) // len(key), 0)
        for above in (0.0, 1.0):
            flex = FlexPrefill(**{**SMALL, 'dense_above': above, 'gamma': 1.0})
            found = flex.attend(query, key, value, scaling)
            assert (found - expected).abs().max() <= TOLERANCE


# ---- known structure: one head, 512 tokens, blocks of 16

HELD, BLOCK = 512, 16


def looking(at):
    """Make queries that look for what `at` says: an int64 [HELD, k] of key places, -1 for none."""
    rng = torch.Generator().manual_seed(2)
    key = torch.nn.functional.normalize(torch.randn(HELD, 256, generator=rng), dim=-1)
    query = sum(key[places.clamp_min(0)] * (places >= 0)[:, None] for places in at.T)
    return 14 * query[None], key[None]


def chosen(query, key, **fields):
    """Choose; return the choice and the least share of its attention that any query keeps."""
    flex = FlexPrefill(**{**SMALL, 'tau': 0.1, **fields})
    choice = flex.choose(query, key, 1.0)
    return choice, mass_held(attention(query, key, 1.0), choice.active, BLOCK)[0].min()


def test_columns_are_found():
    columns = torch.tensor([37, 120, 121, 300])
    at = columns.expand(HELD, -1).clone()
    at[at > torch.arange(HELD)[:, None]] = -1
    query, key = looking(at)
    choice, least = chosen(query[:, 300:], key)
    assert not choice.query_aware[0]
    assert choice.active[0, :, columns // BLOCK].all()
    assert least > 0.9
    assert sparse.shares(choice.active)[0] < 0.4
    # the released count: four columns fill one block, so their blocks are not all taken
    assert chosen(query[:, 300:], key, count='tokens')[1] < 0.5


@pytest.mark.parametrize('distance', [16, 24, 250])
def test_a_diagonal_is_found(distance):
    query, key = looking(torch.arange(HELD)[:, None] - distance)
    choice, least = chosen(query[:, 256:], key)
    assert not choice.query_aware[0]
    offset = distance // BLOCK
    for row in range(16):
        assert choice.active[0, row, 16 + row - offset]
        assert choice.active[0, row, 16 + row - offset - 1]
    assert least > 0.9
    assert sparse.shares(choice.active)[0] < 0.35
    # the released code takes one of the two blocks that a diagonal crosses
    one = chosen(query[:, 256:], key, slash='one')[1]
    assert one < 0.1 if distance % BLOCK else one > 0.9


def test_blocks_that_look_for_blocks_are_found():
    rng = torch.Generator().manual_seed(3)
    codes = torch.nn.functional.normalize(torch.randn(HELD // BLOCK, 256, generator=rng), dim=-1)
    block = torch.arange(HELD) // BLOCK
    sought = (torch.rand(HELD // BLOCK, generator=rng) * (1 + torch.arange(HELD // BLOCK))).long()
    key, query = codes[block][None], 14 * codes[sought[block]][None]
    choice, least = chosen(query, key)
    assert choice.query_aware[0]
    assert choice.active[0, torch.arange(HELD // BLOCK), sought].float().mean() > 0.9
    assert sparse.shares(choice.active)[0] < 0.3
    assert mass_held(attention(query, key, 1.0), choice.active, BLOCK)[0].mean() > 0.9
    # columns and diagonals, chosen for the last block alone, serve no other
    other = chosen(query, key, tau=0.0)[0]
    assert not other.query_aware[0]
    assert mass_held(attention(query, key, 1.0), other.active, BLOCK)[0].mean() < 0.5


def test_the_last_block_keeps_gamma():
    """What the representatives attend to is held to gamma by columns and by diagonals alike."""
    for shape in SHAPES:
        query, key, _, scaling = random_inputs(shape, 8)
        for gamma in (0.5, 0.8, 0.95):
            flex = FlexPrefill(**SMALL, gamma=gamma, tau=0.0)
            active = flex.choose(query, key, scaling).active
            held = mass_held(attention(query, key, scaling), active, flex.block)
            assert held[:, -flex.block:].mean(1).min() >= gamma - 1e-6


# ---- in a session

FLEX = FlexPrefill(**{**SMALL, 'gamma': 1.0})


@pytest.fixture
def used(monkeypatch):
    """List the shapes (queries, held) that FlexPrefill computed."""
    calls, attend = [], FlexPrefill.attend

    def spy(self, query, key, value, scaling):
        calls.append((query.shape[1], key.shape[1]))
        return attend(self, query, key, value, scaling)
    monkeypatch.setattr(FlexPrefill, 'attend', spy)
    return calls


def lived(family, row, budget, prefill, changes='', dtype='float32'):
    """Live through frames and long texts; return the session and the logits of a few words."""
    target = session(family, row, budget, changes=changes, dtype=dtype, chunk=96, prefill=prefill)
    model = load(family, changes, dtype)
    for number in range(3):
        if model.adapter.sees:
            show(target, number)
        target.tell(words(model, 150, number))
    return target, target.logits(words(model, 40, 9)).float()


@pytest.mark.parametrize('row', ['full', 'saddle', 'saddle_heads'])
@pytest.mark.parametrize('family', ['llama', 'qwen2', 'smolvlm', 'qwen2_5_vl'])
def test_a_session_at_gamma_one_is_the_dense_session(family, row, used):
    budget = 900 if row == 'full' else 200
    dense, expected = lived(family, row, budget, 'dense')
    assert not used
    flex, found = lived(family, row, budget, FLEX)
    layers = len(flex.cache.layers)
    assert len(used) >= 6 * layers
    assert any(held > queries for queries, held in used)
    assert (found - expected).abs().max() <= TOLERANCE
    assert all(torch.equal(flex.kept(n), dense.kept(n)) for n in range(layers))
    assert (flex.stats().evictions == 0) == (row == 'full')


def test_a_session_in_half_precision_at_gamma_one_is_within_its_rounding(used):
    exact = lived('llama', 'full', 900, 'dense')[1]
    rounding = (lived('llama', 'full', 900, 'dense', dtype='bfloat16')[1] - exact).abs().max()
    found = lived('llama', 'full', 900, FLEX, dtype='bfloat16')[1]
    assert used
    assert (found - exact).abs().max() < 2 * rounding + 0.02


def test_window_scores_are_exact_whatever_is_skipped(used):
    """In one layer the scores do not depend on what was computed, so the same tokens stay."""
    low = replace(FLEX, gamma=0.3)
    dense = lived('llama', 'saddle', 200, 'dense', ONE_LAYER)[0]
    flex = lived('llama', 'saddle', 200, low, ONE_LAYER)[0]
    assert used
    assert flex.stats().evictions >= 3
    assert torch.equal(flex.kept(0), dense.kept(0))


def test_short_chunks_are_dense(used):
    target = session('llama', 'full', 900, chunk=96, prefill=FLEX)
    target.tell(words(load('llama'), 31, 0))
    target.answer('Where is it?', max_tokens=4)
    assert not used
    target.tell(words(load('llama'), 32, 0))
    assert used
    used.clear()
    target = session('llama', 'full', 900, chunk=96, prefill=replace(FLEX, min_held=200))
    target.tell(words(load('llama'), 150, 0))
    assert not used
    target.tell(words(load('llama'), 90, 0))
    assert used
    dense = session('llama', 'full', 900, chunk=96)
    assert dense.settings.prefill is None


def test_a_long_text_of_a_deep_model_stays_near_dense(used):
    changes = changed(num_hidden_layers=1, max_position_embeddings=8192)
    told, asked = words(load('llama', changes), 1500, 1), words(load('llama', changes), 8, 2)
    logits = {}
    for name, prefill in (('dense', 'dense'), ('flex', FlexPrefill(gamma=0.99, min_held=1024))):
        target = session('llama', 'full', 4000, changes=changes, chunk=2000, prefill=prefill)
        target.tell(told)
        logits[name] = target.logits(asked).float()
    assert used == [(1500, 1500 + used[0][1] - used[0][0])]
    assert (logits['flex'] - logits['dense']).abs().max() < 0.1 * logits['dense'].std()


def test_a_saved_memory_goes_on_as_it_was_made(tmp_path):
    target, _ = lived('llama', 'saddle', 200, FLEX)
    target.save(tmp_path / 'memory')
    again = StreamingSession.load(tmp_path / 'memory', load('llama'))
    assert again.settings.prefill == FLEX
    asked = words(load('llama'), 60, 5)
    assert torch.equal(again.logits(asked), target.logits(asked))


@pytest.mark.parametrize(('given', 'told'), [
    ('quick', ['quick', 'dense', 'flex']), (3, ['3', 'dense']),
    ({'gama': 1.0}, ['gama', 'gamma']), ({'gamma': 1.5}, ['flex.gamma', '1.5', '1']),
    ({'block': 8}, ['flex.block', '16']), ({'slash': 'none'}, ['flex.slash', 'both'])])
def test_a_wrong_prefill_is_refused(given, told):
    with pytest.raises(PolicyError) as refusal:
        make_prefill(given)
    assert '\n' not in str(refusal.value)
    assert all(text in str(refusal.value) for text in told)


def test_chunks_that_would_never_be_sparse_are_refused():
    with pytest.raises(BudgetError, match='chunk is 256.*1024.*raise chunk'):
        session('llama', 'full', 900, prefill='flex')
    with pytest.raises(BudgetError, match='900.*1024.*4096.*raise them'):
        session('llama', 'full', 900, prefill='flex', chunk=1024)
