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

"""The memory is bounded: tokens, bytes and positions, whatever comes in (invariants 1 and 2)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from infmllm_ros.engine import ContextFull
import pytest
import zoo
from zoo import cells, EVICTING, load, picture, session, words

BUDGET = 160

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just('observe'), st.integers(0, 99)),
        st.tuples(st.just('tell'), st.integers(1, 60)),
        st.tuples(st.just('ask'), st.booleans()),
        st.tuples(st.just('logits'), st.integers(1, 30)),
    ), min_size=10, max_size=16)


def happen(target, model, kind, value, number):
    """Let one event happen to a session."""
    if kind == 'observe' and model.adapter.sees:
        target.observe(picture(value), stamp_ns=number * 10**9)
    elif kind == 'ask':
        target.answer('Where is the cup?', max_tokens=1 + number % 5, remember=value)
    elif kind == 'logits':
        target.logits(words(model, value, number))
    else:
        target.tell(words(model, 1 + value, number))


@pytest.mark.parametrize(('family', 'row'), cells())
@settings(max_examples=3)
@given(events=EVENTS)
def test_no_layer_exceeds_the_budget_and_no_buffer_moves(family, row, events):
    model = load(family)
    target = session(family, row, BUDGET)
    layers = zoo.holders(target)
    size = target.stats().kv_bytes
    buffers = zoo.buffers(target)
    for number, (kind, value) in enumerate(events):
        before = [target.kept(layer) for layer in layers]
        try:
            happen(target, model, kind, value, number)
        except ContextFull:
            assert row == 'full'
            after = [target.kept(layer) for layer in layers]
            assert all((a == b).all() for a, b in zip(after, before))
        stats = target.stats()
        held = [target.kept(layer) for layer in layers]
        assert max(kept.shape[1] for kept in held) == stats.tokens <= BUDGET
        for kept in held:
            assert (kept[:, 1:] > kept[:, :-1]).all(), 'not in stream order'
            assert kept.max() < stats.tokens_seen
        assert stats.kv_bytes == size
        assert zoo.buffers(target) == buffers


@pytest.mark.parametrize(('family', 'row'), cells(
    ['llama', 'qwen2_5_vl', 'qwen3_vl'], EVICTING))
def test_no_position_reaches_the_context_limit(family, row, monkeypatch):
    limit = 320
    changes = zoo.changed(max_position_embeddings=limit)
    model = load(family, changes)
    monkeypatch.setattr(model, 'rope', None)  # so that every angle is worked out in sight
    turned = []
    rotary = model.model.get_decoder().rotary_emb

    def listen(_module, args, kwargs):
        turned.append(int(kwargs.get('position_ids', args[1] if len(args) > 1 else None).max()))

    hook = rotary.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        target = session(family, row, BUDGET, changes=changes, chunk=32)
        number = 0
        while target.stats().tokens_seen < 3 * limit:
            number += 1
            happen(target, model, 'observe', number, number)
            happen(target, model, 'tell', 30, number)
            happen(target, model, 'ask', number % 2, number)
    finally:
        hook.remove()
    assert target.stats().evictions > 3
    least = 80 if row == 'streaming_vlm' else BUDGET    # its windows may be full before
    assert least <= max(turned) < limit


def test_a_full_memory_refuses_before_it_changes():
    model = load('llama')
    target = session('llama', 'full', BUDGET)
    target.tell(words(model, 80, 0))
    before = target.kept(0)
    with pytest.raises(ContextFull) as refusal:
        target.tell(words(model, 120, 1))
    assert '\n' not in str(refusal.value) and str(BUDGET) in str(refusal.value)
    assert (target.kept(0) == before).all()
    target.tell(words(model, 5, 2))
    assert target.kept(0).shape[1] == before.shape[1] + 5


def test_a_text_of_several_chunks_is_refused_whole():
    model = load('llama')
    target = session('llama', 'full', BUDGET, chunk=32)
    before = target.kept(0)
    for enter in (target.tell, target.logits):
        with pytest.raises(ContextFull):
            enter(words(model, BUDGET, 0))
        assert target.kept(0).equal(before), 'a part of what was refused went in'


def test_a_full_memory_still_answers():
    target = session('llama', 'full', BUDGET)
    target.tell(words(load('llama'), BUDGET - target.stats().tokens, 0))
    assert target.stats().usage == 1
    assert target.answer('Where is the cup?', max_tokens=16).tokens
    with pytest.raises(ContextFull):
        target.answer('Where is the cup?', max_tokens=16, remember=True)
    assert target.stats().usage == 1


def test_empty_text_is_nothing():
    target = session('llama', 'saddle', BUDGET)
    before = target.kept(0), target.stats().tokens_seen
    target.tell('')
    assert target.kept(0).equal(before[0]) and target.stats().tokens_seen == before[1]
