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

"""Policies that know frames keep what slow references of their papers keep (invariant 5)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from infmllm_ros.engine import BudgetError, retention
from keepers_video import InfiniPotReference, StreamingVLMReference
import numpy as np
import pytest
from references import TinyLlama
from tape import same_prediction, Tape
from zoo import changed, load, ONE_LAYER, picture, plain, session, words

# ------------------------------------------------------------------------------ streaming_vlm
STEPS = st.lists(
    st.tuples(st.sampled_from(['frame', 'frame', 'text', 'question', 'peek']),
              st.integers(1, 60), st.floats(0, 1.5)), min_size=14, max_size=20)


@pytest.mark.parametrize('family,wrapper,budget', [
    ('smolvlm', 'vision', 160), ('qwen2_5_vl', 'vision', 110), ('llava_onevision', 'vision', 160),
    ('qwen3_vl', 'text', 160), ('llama', 'vision', 160)])
@settings(max_examples=4)
@given(steps=STEPS, sink=st.sampled_from([0, 10, 40]), window=st.sampled_from([0, 7, 40]),
       seconds=st.sampled_from([0.5, 4.0, 1000.0]))
def test_streaming_vlm_keeps_both_ends_of_the_text_and_seconds_of_frames(
        family, wrapper, budget, steps, sink, window, seconds):
    model, now = load(family, ONE_LAYER), 100.0
    fields = {'text_sink': sink, 'text_window': window, 'vision_window': seconds,
              'wrapper': wrapper}
    with Tape(model) as tape:
        target = session(family, 'streaming_vlm', max(budget, 40 + sink + window + 40),
                         changes=ONE_LAYER, fields=fields, max_question=40)
        reference = StreamingVLMReference(
            target.plan.budget, pinned := sum(len(chunk) for chunk in tape.take()), sink, window,
            seconds, wrapper == 'vision')
        reference.text(pinned)
        for number, (kind, size, pause) in enumerate(steps):
            if kind == 'frame' and model.adapter.sees:
                now += pause
                target.observe(picture(number, 32 + size, 64), stamp_ns=round(now * 1e9))
                reference.frame(round(now * 1e9) / 1e9, [
                    token.grid is not None for chunk in tape.take() for token in chunk])
            elif kind == 'question':
                target.answer('Where?', max_tokens=4, remember=True)
                question, *said = tape.take()
                reference.text(len(question))
                reference.kept(now)
                reference.text(sum(len(chunk) for chunk in said))
            elif kind == 'peek':
                target.answer('Where?', max_tokens=4, remember=False)
                tape.take()
                continue
            else:
                target.tell(words(model, size, number))
                tape.take()
                reference.text(size)
            expected = reference.kept(now)
            assert target.kept(0).tolist() == [expected] * target.kept(0).shape[0]


def test_a_clock_that_starts_anew_ends_the_vision_window():
    target = session('smolvlm', 'streaming_vlm', changes=ONE_LAYER)
    for second in (50, 51, 52):
        target.observe(picture(second), stamp_ns=second * 10**9)
    assert target.stats().frames_retained == 3
    target.observe(picture(0), stamp_ns=1 * 10**9)
    assert target.stats().frames_retained == 1


def test_a_budget_too_small_for_the_text_is_refused_by_name():
    with pytest.raises(BudgetError, match=r'text \(streaming_vlm\) 1024.*smallest budget'):
        session('smolvlm', 'streaming_vlm', 900,
                fields={'text_sink': 512, 'text_window': 512, 'vision_window': 16.0})


# ------------------------------------------------------------------------------ infinipot_v
def evict(target, units, really=retention.evict):
    """Evict, and tell what stays, by (layer, KV head)."""
    really(target)
    return {(layer, group): target.kept(layer)[group].tolist() for layer, group in units}


@pytest.mark.parametrize('family,layers,fields', [
    ('smolvlm', 2, {}), ('qwen2_5_vl', 2, {}), ('llava_onevision', 2, {'keys': 'plain'}),
    ('qwen2_5_vl', 4, {'target': 0.6, 'tar': 0.7, 'text': 'norm'}),
    ('qwen2_5_vl', 4, {'scope': 'layer', 'keys': 'plain', 'recent': 0.1}),
    ('smolvlm', 2, {'scope': 'all', 'target': 1.0, 'recent': 0.4}),
    ('qwen2_5_vl', 2, {'pooling': 'none', 'tar': 0.0, 'text': 'norm'}),
    ('llama', 2, {'text': 'norm'})], ids=str)
def test_infinipot_v_keeps_what_is_new_in_time_and_what_is_large(
        family, layers, fields, monkeypatch):
    budget, changes = 100 if 'llava' in family else 150, changed(num_hidden_layers=layers)
    model, rng = load(family, changes), np.random.default_rng(0)
    oracle = TinyLlama(plain(family, changes))
    with Tape(model) as tape:
        target = session(family, 'infinipot_v', budget, changes=changes, fields=fields)
        prefix = sum(len(chunk) for chunk in tape.chunks)
        reference = InfiniPotReference(oracle, budget, prefix, **fields)

        def follow(chunks):
            for chunk in chunks:
                reference.feed(chunk)
            reference.judge(target)

        follow(tape.take())
        for number in range(16):
            if model.adapter.sees and number % 4:
                size = (112, 112) if number % 7 else (56, 112)      # grids differ now and then
                target.observe(picture(number, *size), stamp_ns=number * 10**9)
            else:
                target.tell(words(model, int(rng.integers(4, 40)), number))
            follow(tape.take())
            if number % 8 == 5:
                target.answer('Where is it now?', max_tokens=3, remember=False)
                tape.take()
                midway = []
                monkeypatch.setattr(retention, 'evict', lambda session, to=midway: to.append(
                    evict(session, reference.units)))
                target.answer('Where?', max_tokens=4, remember=True)
                monkeypatch.undo()
                question, *said = tape.take()
                reference.feed(question)
                reference.settle(midway[0])
                follow(said)
    same_prediction(target, oracle)
    assert target.stats().evictions >= 4
