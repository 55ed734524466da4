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

"""The budget can change while the stream goes on: at once, and within the same buffers."""

from infmllm_ros.engine import BudgetError, ContextFull, StreamingSession
import pytest
from references import logits_plainly
from tape import text_tokens
from test_one_layer import live
import torch
import zoo
from zoo import EVICTING, load, plain, POLICIES, session, words

MADE, LOWER = 160, 110


@pytest.mark.parametrize(('family', 'row'), [
    *(('qwen2_5_vl', row) for row in EVICTING), ('llama', 'saddle_heads')])
def test_what_no_longer_fits_leaves_at_once_and_the_rest_stays_exact(family, row):
    target, stream, changes = live(family, row)
    size, buffers, before = target.stats().kv_bytes, zoo.buffers(target), target.kept(0)
    most, capacity = target.stats().tokens, target.stats().capacity
    target.set_budget(LOWER)
    stats, after = target.stats(), target.kept(0)
    assert stats.tokens == after.shape[1] <= stats.budget == LOWER
    assert stats.tokens < most if most > LOWER else after.equal(before)
    assert all(set(new.tolist()) <= set(old.tolist()) for new, old in zip(after, before))
    assert stats.kv_bytes == size and zoo.buffers(target) == buffers
    assert stats.capacity == capacity
    kept = [stream[index] for index in after[0].tolist()]
    ids = words(load(family, changes), 12, 99)
    asked = text_tokens(load(family, changes), ids)
    expected = logits_plainly(plain(family, changes), kept + asked)[-12:]
    assert (target.logits(ids).float() - expected).abs().max() <= 1e-5
    for number in range(3):
        target.tell(words(load(family, changes), 40, number))
        assert target.stats().tokens <= LOWER
    assert target.answer('Where is it?', max_tokens=4).tokens


@pytest.mark.parametrize('row', POLICIES)
def test_a_memory_that_holds_nothing_takes_another_budget(row, monkeypatch):
    """As with a tokenizer that has neither a template nor a first token."""
    model = load('llama')
    monkeypatch.setattr(
        model.adapter.prompt, 'prefix', lambda _: torch.empty(0, dtype=torch.long))
    target = session('llama', row, MADE)
    target.set_budget(LOWER)
    assert (target.stats().tokens, target.stats().budget) == (0, LOWER)
    target.tell(words(model, 60, 0))
    assert 0 < target.stats().tokens <= LOWER


def test_the_first_and_the_newest_tokens_are_those_that_stay():
    target = session('llama', 'streaming_llm', MADE)
    target.tell(words(load('llama'), 400, 0))
    seen, prefix = target.stats().tokens_seen, len(target.prefix)
    target.set_budget(100)
    expected = [*range(prefix), *range(seen - (100 - prefix), seen)]
    assert target.kept(0)[0].tolist() == target.kept(1)[0].tolist() == expected


def test_it_can_come_back_to_what_it_was_made_with_and_no_further(tmp_path):
    model = load('llama')
    target = session('llama', 'saddle', MADE)
    target.tell(words(model, 400, 0))
    target.set_budget(100)
    target.save(tmp_path / 'memory')
    assert StreamingSession.load(tmp_path / 'memory', model).stats().budget == 100
    target.set_budget(MADE)
    assert target.stats().tokens == 100
    target.tell(words(model, 200, 1))
    assert target.stats().tokens == MADE
    with pytest.raises(BudgetError, match=f'budget {MADE + 1} is more than the {MADE} tokens'):
        target.set_budget(MADE + 1)
    with pytest.raises(BudgetError, match='smallest budget that works'):
        target.set_budget(10)
    assert target.stats().tokens == target.stats().budget == MADE


def test_a_policy_that_never_evicts_refuses_less_than_it_holds():
    model = load('llama')
    target = session('llama', 'full', MADE)
    target.tell(words(model, 110, 0))
    held = target.stats().tokens
    with pytest.raises(ContextFull, match=f'holds {held} tokens'):
        target.set_budget(held - 1)
    assert target.stats().budget == MADE
    target.set_budget(held)
    with pytest.raises(ContextFull):
        target.tell(words(model, 1, 1))
