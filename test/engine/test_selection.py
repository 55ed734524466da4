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

"""Each policy keeps exactly the tokens that a slow reference of its paper keeps (invariant 5)."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
from infmllm_ros.engine import make_policy
from infmllm_ros.engine.policies import View
from keepers import keep_random, keep_recent_frames, keep_streaming_llm, SaddleReference
import numpy as np
import pytest
from references import logits_plainly, OneLayer, TinyLlama
from tape import frame_tokens, same_prediction, Tape, text_tokens
import torch
from zoo import changed, load, ONE_LAYER, picture, plain, session, words

TWO_LAYERS = changed(num_hidden_layers=2)
PROBE = 'What now?'

LENGTHS = st.lists(st.integers(1, 50), min_size=12, max_size=20)


@pytest.mark.parametrize('family', ['llama', 'smolvlm', 'llava_onevision', 'qwen2_5_vl'])
def test_the_reference_decoder_is_the_decoder(family):
    model, truth = load(family), plain(family)
    tokens = text_tokens(model, words(model, 40, 0))
    if model.adapter.sees:
        chunk = model.adapter.encode(model.model, picture(1, 40, 90), 0.0, '')
        tokens[10:10] = frame_tokens(model, chunk, 0)
    own = TinyLlama(truth)
    own.feed(tokens[:25])
    own.feed(tokens[25:])
    expected = logits_plainly(truth, tokens)[25:].numpy()
    assert np.abs(own.logits - expected).max() < 1e-4


@settings(max_examples=5)
@given(lengths=LENGTHS, sinks=st.integers(0, 30), system=st.sampled_from(['', 'Be brief.']))
def test_streaming_llm_keeps_sinks_and_the_most_recent(lengths, sinks, system):
    model, budget = load('llama', ONE_LAYER), 120
    target = session('llama', 'streaming_llm', budget, changes=ONE_LAYER,
                     fields={'sinks': sinks}, system_prompt=system)
    prefix = len(model.adapter.prompt.prefix(system))
    held, seen = list(range(prefix)), prefix
    for number, length in enumerate(lengths):
        target.tell(words(model, length, number))
        held, seen = held + list(range(seen, seen + length)), seen + length
        held = keep_streaming_llm(held, budget, max(sinks, prefix))
        assert target.kept(0).tolist() == [held] * target.kept(0).shape[0]


@pytest.mark.parametrize('family', ['smolvlm', 'qwen3_vl'])
@settings(max_examples=4)
@given(frames=st.integers(1, 5), texts=st.lists(st.integers(0, 60), min_size=8, max_size=12))
def test_recent_frames_keeps_the_newest_frames_and_what_followed(family, frames, texts):
    budget = 200
    model = load(family, ONE_LAYER)
    with Tape(model) as tape:
        target = session(family, 'recent_frames', budget, changes=ONE_LAYER,
                         fields={'frames': frames})
        held = list(range(sum(len(chunk) for chunk in tape.take())))
        pinned = seen = len(held)
        starts = {}
        for number, length in enumerate(texts):
            target.observe(picture(number))
            count = sum(len(chunk) for chunk in tape.take())
            starts[number] = seen
            for extra in (count, length):
                if not extra:
                    continue
                if extra is length:
                    target.tell(words(model, length, number))
                    tape.take()
                held, seen = held + list(range(seen, seen + extra)), seen + extra
                held = keep_recent_frames(held, budget, pinned, frames, starts)
                starts = {frame: start for frame, start in starts.items() if start in held}
            assert target.kept(0).tolist() == [held] * target.kept(0).shape[0]


@pytest.mark.parametrize('over', [0, 1])
def test_a_frame_stays_as_long_as_all_since_its_start_fits_exactly(over):
    model, budget = load('smolvlm', ONE_LAYER), 160
    target = session('smolvlm', 'recent_frames', budget, changes=ONE_LAYER, fields={'frames': 2})
    pinned = target.stats().tokens
    target.tell(words(model, 50, 0))
    start = target.stats().tokens_seen
    target.observe(picture(0))
    second = target.stats().tokens_seen
    target.observe(picture(1))
    target.tell(words(model, budget - pinned - (target.stats().tokens_seen - start) + over, 1))
    since = second if over else start
    expected = [*range(pinned), *range(since, target.stats().tokens_seen)]
    assert target.kept(0)[0].tolist() == expected
    assert over or len(expected) == budget


# ------------------------------------------------------------------------------------ random
@settings(max_examples=5)
@given(lengths=LENGTHS, sinks=st.integers(0, 30), recent=st.sampled_from([0.0, 0.25, 1.0, 30.0]),
       seed=st.integers(0, 2**31 - 1))
def test_random_keeps_what_ranks_highest_of_all_that_was_ever_seen(lengths, sinks, recent, seed):
    """The reference sees the whole stream at once, the engine chunk by chunk."""
    model, budget = load('llama', ONE_LAYER), 120
    prefix = len(model.adapter.prompt.prefix('Be brief.'))
    count = int(recent * budget if recent <= 1 else recent)
    target = session('llama', 'random', budget, changes=ONE_LAYER,
                     fields={'sinks': sinks, 'recent': recent, 'seed': seed})
    seen = prefix
    for number, length in enumerate(lengths):
        target.tell(words(model, length, number))
        if number % 3 == 0:
            target.answer('What now?', max_tokens=2, remember=False)
        seen += length
        held = keep_random(seen, budget, max(sinks, prefix), count, seed)
        assert target.kept(0).tolist() == [held] * target.kept(0).shape[0]


@pytest.mark.parametrize('scope', ['layer', 'head'])
def test_random_draws_anew_for_each_layer_or_head(scope):
    model, budget = load('llama', TWO_LAYERS), 100
    target = session('llama', 'random', budget, changes=TWO_LAYERS,
                     fields={'scope': scope, 'seed': 0})
    target.tell(words(model, 300, 0))
    seen, pinned = target.stats().tokens_seen, len(model.adapter.prompt.prefix('Be brief.'))
    for layer in range(2):
        heads = target.kept(layer).tolist()
        units = [layer * len(heads) + row if scope == 'head' else layer
                 for row in range(len(heads))]
        assert heads == [keep_random(seen, budget, max(4, pinned), budget // 4, 0, unit)
                         for unit in units]
    assert target.kept(0).tolist() != target.kept(1).tolist()


def test_what_random_keeps_is_a_uniform_sample_of_the_whole_past():
    """By age, and by whether neighbours are held together; also far beyond 32 bits."""
    count, budget, bins = 400, 100, 10
    for first in (0, 2**32 - 200, 2**40):
        index = torch.arange(first, first + count)[None]
        held = torch.zeros(300, count)
        for seed in range(len(held)):
            policy = make_policy('random', budget=budget, sinks=0, recent=0, seed=seed)
            view = View(count, budget, 0, *[index] * 6, torch.empty(0))
            held[seed, policy.select(view)[0]] = 1
        assert (held.sum(1) == budget).all()
        share = held.mean(0).view(bins, -1).mean(1)     # of 40 tokens in 300 draws
        assert (share - .25).abs().max() < 4 * (.25 * .75 / (300 * 40)) ** .5
        assert held.mean(0).std() < 1.2 * (.25 * .75 / 300) ** .5
        for gap in (1, 2, 16, 128):
            both = (held[:, gap:] * held[:, :-gap]).mean()
            assert abs(both - .25 * 99 / 399) < .003


# ------------------------------------------------------------------------------------ saddle
PAPER = {'recent': 0.25, 'sinks': 4, 'bias': 0.0, 'age': 'slot', 'window': 'question', 'rows': 8,
         'scope': 'layer', 'reduce': 'mean', 'discount': 0.0, 'normalise': False}
CASES = {  # fields of the policy -> what differs from the paper's reading
    'paper': {},
    'bias': {'bias': 0.05},
    'bias by stream age': {'bias': 0.05, 'age': 'stream', 'window': 'chunk'},
    'bias per token': {'bias': 0.0005, 'age': 'token', 'window': 'chunk'},
    'normalised': {'normalise': True, 'bias': 0.5, 'window': 'chunk'},
    'per head': {'scope': 'head', 'window': 'chunk'},
    'per head, max': {'scope': 'head', 'reduce': 'max', 'window': 'chunk', 'rows': 3},
    'per layer, max': {'scope': 'layer', 'reduce': 'max', 'window': 'chunk', 'rows': 1},
    'shared': {'scope': 'all', 'window': 'chunk', 'rows': 5},
    'shared, max': {'scope': 'all', 'reduce': 'max'},
    'discounted': {'discount': 0.9, 'window': 'chunk'},
    'discounted, per head': {'discount': 0.5, 'scope': 'head', 'bias': 0.01, 'age': 'stream'},
    'summed for ever': {'discount': 1.0, 'scope': 'all', 'window': 'chunk', 'normalise': True},
    'recent tokens': {'recent': 40, 'window': 'chunk'},
    'no recent': {'recent': 0.0, 'window': 'chunk'},
    'many sinks': {'sinks': 60, 'window': 'chunk'},
    'probe': {'window': 'probe', 'probe': PROBE, 'probe_every': 1},
    'probe now and then': {
        'window': 'probe', 'probe': PROBE, 'probe_every': 3, 'scope': 'all', 'discount': 0.9},
}


def replay(reference, chunks, guidance=()):
    """Feed the chunks of one call to the reference: words, frames and probes, no questions."""
    for chunk in chunks:
        if guidance and [token.word for token in chunk] == guidance:
            reference.probe(chunk)
        else:
            reference.feed(chunk)


def stream_saddle(family, changes, oracle, case, budget, steps=14, seed=0):
    """
    Run a session and its reference side by side over frames, words and questions.

    Returns
    -------
    int
        Evictions that the reference agreed with.
    """
    model = load(family, changes)
    names = {f.name for f in dataclasses.fields(SaddleReference)}
    fields = {**PAPER, **case}
    rng = np.random.default_rng(seed)
    guidance = model.adapter.prompt.question(PROBE).tolist() if 'probe' in fields else []
    with Tape(model) as tape:
        target = session(family, 'saddle', budget, changes=changes, fields=fields)
        first = [token for chunk in tape.chunks for token in chunk]
        reference = SaddleReference(
            oracle, budget, max(fields['sinks'], len(first)),
            **{name: value for name, value in fields.items() if name in names})
        for chunk in tape.take():
            reference.feed(chunk, score=False)
        for number in range(steps):
            if model.adapter.sees and number % 2 == 0:
                target.observe(picture(seed + number), stamp_ns=number * 10**9)
            else:
                target.tell(words(model, int(rng.integers(8, 40)), seed + number))
            chunks = tape.take()
            assert len(chunks) == 1 + (
                bool(guidance) and (number + 1) % fields['probe_every'] == 0)
            replay(reference, chunks, guidance)
            reference.judge(target)
            if number % 5 == 4:
                before = [target.kept(layer) for layer in range(oracle.layers)]
                target.answer('Where is it now?', max_tokens=3, remember=False)
                tape.take()
                assert all((target.kept(layer) == kept).all()
                           for layer, kept in enumerate(before))
    if isinstance(oracle, TinyLlama):  # the layers above the first saw the same memory, too
        same_prediction(target, oracle, seed)
    return target.stats().evictions


@pytest.mark.parametrize('name', CASES)
def test_saddle_keeps_what_its_windows_attend_to(name):
    model = plain('llama', TWO_LAYERS)
    assert stream_saddle('llama', TWO_LAYERS, TinyLlama(model), CASES[name], 130) >= 4


@pytest.mark.parametrize('scope', ['all', 'layer', 'head'])
@pytest.mark.parametrize('family', ['smolvlm', 'llava_onevision', 'qwen2_5_vl'])
def test_saddle_on_frames_over_layers(family, scope):
    case = {'scope': scope, 'window': 'chunk', 'bias': 0.01}
    oracle = TinyLlama(plain(family, TWO_LAYERS))
    assert stream_saddle(family, TWO_LAYERS, oracle, case, 150) >= 3


@pytest.mark.parametrize('family', ['llava_onevision', 'qwen2_5_vl', 'qwen3_vl', 'qwen3'])
def test_saddle_in_one_layer_of_every_other_family(family):
    oracle = OneLayer(plain(family, ONE_LAYER, attention='eager'))
    case = {'scope': 'layer', 'window': 'chunk', 'bias': 0.01}
    assert stream_saddle(family, ONE_LAYER, oracle, case, 150) >= 3


@pytest.mark.parametrize('case', [
    {}, {'scope': 'all', 'bias': 0.02}, {'scope': 'head', 'discount': 0.9, 'reduce': 'max'},
], ids=['paper', 'shared', 'per head'])
def test_a_remembered_question_chooses_with_all_its_tokens(case):
    budget, model = 130, load('llama', TWO_LAYERS)
    with Tape(model) as tape:
        target = session('llama', 'saddle', budget, changes=TWO_LAYERS,
                         fields={**PAPER, **case})
        prefix = sum(len(chunk) for chunk in tape.chunks)
        reference = SaddleReference(TinyLlama(plain('llama', TWO_LAYERS)), budget, prefix, **case)
        for chunk in tape.take():
            reference.feed(chunk, score=False)
        for number in range(10):
            target.tell(words(model, 30, number))
            replay(reference, tape.take())
            reference.judge(target)
            if number % 2:
                target.answer(f'Where is cup {number}?', max_tokens=4, remember=True)
                question, *decoded, close = tape.take()
                reference.feed(question, question=True)
                reference.evict()  # before the answer
                for chunk in (*decoded, close):
                    reference.feed(chunk, score=False)
                reference.judge(target)
    assert target.stats().evictions >= 8


def test_marked_tokens_alone_choose(monkeypatch):
    model = load('smolvlm', TWO_LAYERS)
    monkeypatch.setattr(model.adapter, 'status', (int(words(model, 1, 7)[0]),))
    oracle = TinyLlama(plain('smolvlm', TWO_LAYERS))
    case = {'window': 'marker', 'scope': 'all', 'bias': 0.01}
    assert stream_saddle('smolvlm', TWO_LAYERS, oracle, case, 170) >= 4
