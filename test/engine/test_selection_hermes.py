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

"""Policy hermes keeps what a slow reference of its paper keeps (invariant 5)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from infmllm_ros.engine import make_policy
from infmllm_ros.engine.policies import View
from keepers_hermes import HermesReference, HermesRule
import numpy as np
import pytest
from references import OneLayer, TinyLlama
from tape import same_prediction, Tape
import torch
from zoo import changed, load, ONE_LAYER, picture, plain, session, words

PROBE = 'What now?'


# ------------------------------------------------------------------------------ with a model
def stream(family, changes, oracle, budget, reduce='mean', steps=14, **fields):
    """
    Run a session and its reference side by side: frames, words, questions of all sorts.

    Returns
    -------
    int
        Evictions that the reference agreed with.
    """
    model, rng = load(family, changes), np.random.default_rng(0)
    guidance = model.adapter.prompt.question(PROBE).tolist()
    with Tape(model) as tape:
        target = session(family, 'hermes', budget, changes=changes,
                         fields={'shallow': 0.25, 'deep': 0.25, 'probe': PROBE,
                                 'reduce': reduce, **fields})
        prefix = [token for chunk in tape.take() for token in chunk]
        reference = HermesReference(
            oracle, budget, len(prefix), 0, reduce=reduce,
            rule=HermesRule(**{'shallow': 0.25, 'deep': 0.25, **fields}))
        reference.enter(prefix)

        def follow():
            """Evict where the session ran its guidance text, and only there."""
            chunks = tape.take()
            for at, chunk in enumerate(chunks):
                full = len(reference.held[0, 0]) > budget
                if [token.word for token in chunk] == guidance:
                    assert full, 'the guidance text was run for nothing'
                    reference.probe(chunk)
                    if at < len(chunks) - 1:
                        reference.evict()
                else:
                    reference.enter(chunk)
            reference.judge(target)

        for number in range(steps):
            if model.adapter.sees and number % 2 == 0:
                target.observe(picture(number), stamp_ns=number * 10**9)
            else:
                target.tell(words(model, int(rng.integers(8, 40)), number))
            follow()
            if number % 5 == 1:         # what was only asked in passing leaves no trace
                target.answer('Where is it now?', max_tokens=3, remember=False)
                target.answer('Is it here?', choices=['yes', 'by no means'], remember=False)
                tape.take()
            elif number % 5 == 3:       # what stays in the memory competes like all else
                target.answer(f'Where is cup {number}?', max_tokens=4, remember=True)
                follow()
    if isinstance(oracle, TinyLlama):   # the layers above the first saw the same memory, too
        same_prediction(target, oracle)
    return target.stats().evictions


@pytest.mark.parametrize('fields', [
    {}, {'summary': True}, {'summary': True, 'deep': 0.75, 'target': 0.7},
    {'reduce': 'max', 'age': 'stream', 'smoothing': 'pair', 'gone': 'own'},
    {'normalise': False, 'decay': 3.0, 'weight': 1.0, 'weight_fall': 1.0}], ids=str)
def test_hermes_keeps_what_its_layers_are_for(fields):
    changes = changed(num_hidden_layers=4)
    oracle = TinyLlama(plain('llama', changes))
    assert stream('llama', changes, oracle, 130, **fields) >= 6


@pytest.mark.parametrize('summary', [False, True])
@pytest.mark.parametrize('family', ['smolvlm', 'llava_onevision', 'qwen2_5_vl'])
def test_hermes_on_frames_over_layers(family, summary):
    changes = changed(num_hidden_layers=3)
    oracle = TinyLlama(plain(family, changes))
    assert stream(family, changes, oracle, 150, shallow=0.34, deep=0.34, summary=summary) >= 4


@pytest.mark.parametrize('family', ['qwen3_vl', 'qwen3'])
@pytest.mark.parametrize('deep', [0.0, 1.0])
def test_hermes_in_one_layer_of_the_other_families(family, deep):
    oracle = OneLayer(plain(family, ONE_LAYER, attention='eager'))
    assert stream(family, ONE_LAYER, oracle, 150, shallow=0.0, deep=deep) >= 4


# ------------------------------------------------------------------------------ by itself
def live(policy, rule, depth, steps, seed):
    """
    Let a policy choose by itself over a long stream of random attention, beside its rule.

    Returns
    -------
    list
        What each layer holds at the end.
    """
    rng, seen, pinned = np.random.default_rng(seed), 0, policy.sinks
    held = [[] for _ in range(depth)]
    for _ in range(steps):
        length = int(rng.integers(1, 30))
        held = [tokens + list(range(seen, seen + length)) for tokens in held]
        seen += length
        if len(held[0]) <= policy.budget:
            continue
        guide = rng.exponential(size=(depth, seen)).astype(np.float32)
        views = []
        for layer, tokens in enumerate(held):
            index = torch.tensor([tokens])
            views.append(View(len(tokens), policy.budget, pinned, *[index] * 6,
                              torch.from_numpy(guide[layer])[index][None], layer, depth))
        kept = [keep[0].tolist() for keep in policy.select_all(views)]
        kept = [[tokens[slot] for slot in slots] for tokens, slots in zip(held, kept)]
        scores = rule.scores(held, [dict(enumerate(row.tolist())) for row in guide], pinned)
        for layer in range(depth):
            own, values = kept[layer], scores[layer]
            best, _ = rule.choose(held[layer], values, policy.budget, pinned, False)
            if own != best:             # float32 may order equals either way
                lost, won = set(best) - set(own), set(own) - set(best)
                assert len(own) == len(best) and own == sorted(own)
                assert min(map(values.get, lost)) == pytest.approx(
                    max(map(values.get, won)), rel=1e-5, abs=1e-9)
        held = kept
    return held


SHARE = st.floats(0, 1).map(lambda value: round(value, 2))


@settings(max_examples=40)
@given(fields=st.fixed_dictionaries({
    'shallow': st.sampled_from([0.0, 0.1, 0.4]), 'deep': st.sampled_from([0.0, 0.3, 0.6]),
    'weight': st.sampled_from([0.75, 1.0]), 'weight_fall': st.sampled_from([0.0, 0.6]),
    'decay': st.sampled_from([0.5, 5.0, 20.0]), 'decay_end': st.sampled_from([0.5, 3.0]),
    'age': st.sampled_from(['slot', 'stream']), 'normalise': st.booleans(),
    'smooth_shallow': SHARE, 'smooth_middle': SHARE, 'smooth_deep': SHARE,
    'smoothing': st.sampled_from(['chain', 'pair']), 'gone': st.sampled_from(['zero', 'own']),
    'target': st.sampled_from([0.5, 0.8, 1.0])}),
    depth=st.integers(1, 12), sinks=st.integers(0, 9), seed=st.integers(0, 99))
def test_hermes_follows_its_rule_over_many_choices(fields, depth, sinks, seed):
    policy = make_policy('hermes', budget=60, sinks=sinks, **fields)
    live(policy, HermesRule(**fields), depth, 40, seed)


def test_the_layers_of_a_large_model_have_the_paper_s_roles():
    policy = make_policy('hermes')
    weight, decay, smooth, merges = zip(*(policy.role(layer, 28) for layer in range(28)))
    assert weight[:3] == (1, 1, 1) and weight[20:] == (0,) * 8
    assert weight[3:20] == pytest.approx(np.linspace(0.75, 0.15, 17))
    assert decay[:20] == pytest.approx([20, 20, 20, *np.linspace(20, 0.5, 17)])
    assert smooth == (0.1,) * 3 + (0.3,) * 17 + (0.4,) * 8
    assert not any(merges)
    merging = make_policy('hermes', summary=True)
    assert [merging.role(layer, 28)[3] for layer in range(28)] == [False] * 20 + [True] * 8


def test_shallow_layers_alone_are_a_window():
    policy = make_policy('hermes', budget=60, sinks=4, shallow=1.0, deep=0.0, smooth_shallow=0.0)
    held = live(policy, HermesRule(shallow=1.0, deep=0.0, smooth_shallow=0.0), 3, 60, 0)
    newest = held[0][-1]
    assert held == [[*range(4), *range(newest - 55, newest + 1)]] * 3


# ------------------------------------------------------------------------------ room
def test_there_is_room_for_the_guidance_after_the_longest_question_and_answer():
    model, question, choices = load('llama'), 'Where is the cup?', ['qxqx', 'zxzx']
    prompt = model.adapter.prompt
    longest, = {len(prompt.choice(choice)) for choice in choices}
    asked = len(prompt.question(question))
    target = session('llama', 'hermes', 100, max_question=asked, max_answer=longest, chunk=8)
    target.tell(words(model, 200, 0))
    for _ in range(3):
        seen = target.stats().tokens_seen
        target.answer(question, choices=choices, remember=True)
        assert target.stats().tokens == 100
        assert target.stats().tokens_seen - seen == asked + longest + len(prompt.reopen())
    assert target.plan.capacity == 100 + asked + longest + len(prompt.reopen()) + len(
        prompt.question('What now?'))
