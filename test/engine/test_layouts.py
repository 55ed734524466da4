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

"""Layouts of keys and values: what they say, what they weigh, and that `lean` changes nothing."""

from infmllm_ros.engine import BudgetError, LAYOUTS, persist, StreamingSession
from infmllm_ros.engine.budget import memory_bytes
import pytest
from zoo import changed, FAMILIES, load, POLICIES, ROPES, session, show, words


def live(family, row, layout, dtype='float32'):
    """Live through frames, words, questions and evictions; tell all that came of it."""
    model = load(family, '', dtype)
    target = session(
        family, row, 900 if row == 'full' else 160, dtype=dtype, layout=layout, chunk=32)
    said = []
    for number in range(5):
        if model.adapter.sees:
            show(target, number)
        target.tell(words(model, 30 + 7 * number, number))
        if number % 2:
            for remember in (True, False):
                answer = target.answer('Where is it?', max_tokens=4, remember=remember)
                said.append((answer.token_ids, [(e.frame, e.weight) for e in answer.evidence]))
    said.append(target.answer('Is it red?', choices=['yes', 'no']).probabilities)
    said.append(target.answer('Where is it?', max_tokens=4).token_ids)
    return target, said


def alike(family, row, dtype='float32'):
    """Compare a life in `fast` with the same in `lean`, bit for bit."""
    (fast, said), (lean, also) = (
        live(family, row, layout, dtype) for layout in ('fast', 'lean'))
    assert row == 'full' or fast.stats().evictions >= 2
    assert said == also
    theirs = persist._views(lean)
    for name, view in persist._views(fast).items():
        assert view.equal(theirs[name]), name
    for number, layer in enumerate(fast.cache.full):
        assert layer.rotated().equal(lean.cache.full[number].rotated())
    asked = words(load(family, '', dtype), 12, 99)
    assert fast.logits(asked).equal(lean.logits(asked))


@pytest.mark.parametrize('family', FAMILIES)
def test_lean_says_what_fast_says(family):
    alike(family, 'saddle')


@pytest.mark.parametrize('row', POLICIES)
@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl'])
def test_lean_says_what_fast_says_whoever_chooses(family, row):
    alike(family, row)


def test_lean_follows_where_frequencies_change_with_the_length():
    changes, found = changed(rope_parameters=ROPES['longrope']), []
    for layout in ('fast', 'lean'):
        target = session('llama', 'full', 900, changes=changes, layout=layout)
        before = target.cache.mark()
        for count in (450, 200):        # past the 512 of the short frequencies, and back
            target.tell(words(target.model, count, count))
            found.append(target.logits(words(target.model, 12, 9)))
        target.cache.rollback(before)
        found.append(target.logits(words(target.model, 12, 9)))
    assert all(one.equal(other) for one, other in zip(found[:3], found[3:], strict=True))
    assert not found[0].equal(found[1])


def test_a_pass_in_lean_does_not_forget_what_another_session_did():
    """Two sessions of one model take turns."""
    model = load('smolvlm')
    one, other = (session('smolvlm', 'saddle', 160, layout='lean') for _ in range(2))
    alone = session('smolvlm', 'saddle', 160, layout='lean')
    for number in range(3):
        for target in (one, other):
            show(target, number if target is one else number + 7)
        show(alone, number)
    asked = words(model, 9, 1)
    assert one.logits(asked).equal(alone.logits(asked))


# by hand: 3 layers of 2 KV heads of 16 channels in float32 take 128 bytes each for a key or value;
# a ledger's slot is 8 numbers of 8 bytes (6 without M-RoPE), a window and an evidence of 4 each
NUMBERS = {'fast': 3 * 3 * 128, 'lean': 3 * 2 * 128 + 128,
           'int8': 3 * 2 * 2 * (16 + 4) + 2 * 128}      # and the scales; a shared buffer of both
FIXED = {'int8': 3 * 2 * 128}       # mean and spread of each channel


@pytest.mark.parametrize('layout', NUMBERS)
@pytest.mark.parametrize('family, fields', [('llama', 6), ('qwen2_5_vl', 8)])
def test_bytes_are_those_of_the_buffers(layout, family, fields):
    target = session(family, 'saddle', 200, layout=layout)
    slots = target.plan.capacity
    channels = target.policy.channels
    assert target.stats().kv_bytes == slots * (
        NUMBERS[layout] + 8 * fields + 4 * (channels + 2)) + FIXED.get(layout, 0)
    assert target.stats().kv_bytes <= memory_bytes(
        target.model.spec, target.policy, target.plan, target.model.dtype, layout)


@pytest.mark.parametrize('family', ['smolvlm', 'gemma4', 'qwen3_5'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_budget_in_bytes_is_used_and_kept(layout, family):
    """It counts what layers share; without M-RoPE some bytes of the ledger are left over."""
    stats = session(family, 'saddle', '2MiB', layout=layout).stats()
    assert 0.95 * 2**20 < stats.kv_bytes / 2 <= 2**20


def test_each_holds_more_in_as_many_bytes_than_the_one_before():
    fast, lean, int8 = (session('llama', 'saddle', '2MiB', layout=layout).plan.capacity
                        for layout in ('fast', 'lean', 'int8'))
    assert lean / fast > 1.2 and int8 / lean > 1.5


def test_a_file_may_be_loaded_into_the_other_of_two_that_say_the_same(tmp_path):
    fast, _ = live('smolvlm', 'saddle', 'fast')
    fast.save(tmp_path / 'memory')
    lean = session('smolvlm', 'saddle', 160, layout='lean', chunk=32)
    lean.restore(tmp_path / 'memory')
    assert StreamingSession.load(tmp_path / 'memory', fast.model).settings.layout == 'fast'
    asked = words(fast.model, 9, 1)
    assert lean.logits(asked).equal(fast.logits(asked))


def test_an_unknown_layout_is_refused():
    with pytest.raises(BudgetError, match="layout is 'small', must be one of fast, lean"):
        session('llama', 'saddle', layout='small')
