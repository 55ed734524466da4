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

"""A backlog of frames where something is evicted: what stays, and that no more depends on it."""

import dataclasses

from backlogs import shots, START
from hypothesis import given, settings
from hypothesis import strategies as st
from keepers import (
    H2OReference,
    keep_random,
    keep_recent_frames,
    keep_streaming_llm,
    SaddleReference,
)
from keepers_video import InfiniPotReference, StreamingVLMReference
import numpy as np
import pytest
from references import logits_plainly, TinyLlama
from tape import same_prediction, Tape, text_tokens
import zoo
from zoo import (
    cells,
    changed,
    EVICTING,
    load,
    ONE_HEAD,
    ONE_LAYER,
    plain,
    POLICIES,
    session,
    SIGHTED,
    words,
)

TOLERANCE = 1e-5
TWO_LAYERS = changed(num_hidden_layers=2)


def lived(family, row, changes, budget=160, chunk=90, **fields):
    """Live through backlogs, words and questions; return the session and its whole stream."""
    model, rng = load(family, changes), np.random.default_rng(0)
    probe = POLICIES[row][1].get('probe')
    guidance = model.adapter.prompt.question(probe).tolist() if probe else []
    with Tape(model) as tape:
        target = session(family, row, budget, changes=changes, chunk=chunk, fields=fields)
        place = zoo.buffers(target)
        for number in range(11):
            target.observe_many(*shots(int(rng.integers(1, 9)), 100 * number))
            assert target.stats().tokens <= budget
            target.tell(words(model, 11, number))
            if number % 3 == 1:
                target.answer('Where is it?', max_tokens=4, remember=True)
        assert zoo.buffers(target) == place
        stream = [token for chunk in tape.take() if [t.word for t in chunk] != guidance
                  for token in chunk]
    assert len(stream) == target.stats().tokens_seen
    return target, stream


@pytest.mark.parametrize(('family', 'row'), cells(SIGHTED, EVICTING))
def test_after_backlogs_logits_are_those_of_the_kept_tokens_alone(family, row):
    changes = ONE_HEAD if POLICIES[row][1].get('scope') == 'head' else ONE_LAYER
    target, stream = lived(family, row, changes)
    assert target.stats().evictions >= 5
    kept = [stream[index] for index in target.kept(0)[0].tolist()]
    assert target.stats().frames_retained == len({token.frame for token in kept} - {None})
    model = load(family, changes)
    ids = words(model, 12, 99)
    expected = logits_plainly(plain(family, changes), kept + text_tokens(model, ids))[-12:]
    found = target.logits(ids).float()
    assert (found - expected).abs().max() <= TOLERANCE
    wrong = logits_plainly(
        plain(family, changes), kept[:20] + kept[21:] + text_tokens(model, ids))[-12:]
    assert (found - wrong).abs().max() > 100 * TOLERANCE


REFERENCES = {  # policy -> its reference, and fields of both
    'saddle, last rows': ('saddle', SaddleReference, {'window': 'chunk', 'bias': 0.01}),
    'saddle, discounted': ('saddle', SaddleReference, {
        'window': 'chunk', 'discount': 0.9, 'scope': 'head', 'reduce': 'max'}),
    'saddle, markers': ('saddle', SaddleReference, {'window': 'marker', 'scope': 'all'}),
    'h2o': ('h2o', H2OReference, {}),
    'h2o, max': ('h2o', H2OReference, {'scope': 'layer', 'reduce': 'max'}),
    'infinipot_v': ('infinipot_v', InfiniPotReference, {}),
    'infinipot_v, all': ('infinipot_v', InfiniPotReference, {'scope': 'all', 'keys': 'plain'})}


@pytest.mark.parametrize('name', REFERENCES)
@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl'])
def test_policies_keep_of_a_backlog_what_their_references_keep(family, name, monkeypatch):
    row, kind, fields = REFERENCES[name]
    model, rng, budget = load(family, TWO_LAYERS), np.random.default_rng(1), 150
    if fields.get('window') == 'marker':
        monkeypatch.setattr(model.adapter, 'status', (int(words(model, 1, 7)[0]),))
    if row == 'saddle':
        fields = {'recent': 0.25, 'sinks': 4, 'bias': 0.0, 'scope': 'layer', **fields}
    oracle = TinyLlama(plain(family, TWO_LAYERS))
    with Tape(model) as tape:
        target = session(family, row, budget, changes=TWO_LAYERS, chunk=120, fields=fields)
        names = {field.name for field in dataclasses.fields(kind)}
        reference = kind(oracle, budget, sum(len(chunk) for chunk in tape.chunks), **{
            name: value for name, value in fields.items() if name in names})
        first = {'score': False} if kind is SaddleReference else {}
        for chunk in tape.take():
            reference.feed(chunk, **first)
        several = 0
        for number in range(13):
            if number % 3 == 2:
                target.tell(words(model, int(rng.integers(8, 40)), number))
            else:
                target.observe_many(*shots(int(rng.integers(2, 6)), 100 * number))
            for chunk in (chunks := tape.take()):
                several += len({token.frame for token in chunk}) > 1
                reference.feed(chunk)
                if chunk is not chunks[-1]:
                    reference.evict()
            reference.judge(target)
    assert several >= 5 and target.stats().evictions >= 4
    same_prediction(target, oracle)


CHEAP = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), min_size=4, max_size=8)


@settings(max_examples=10)
@given(steps=CHEAP, chunk=st.integers(1, 150), seed=st.integers(0, 99))
def test_policies_without_scores_do_not_mind_how_a_backlog_is_cut(steps, chunk, seed):
    model, budget = load('qwen2_5_vl', ONE_LAYER), 130
    prefix = len(model.adapter.prompt.prefix('Be brief.'))
    fields = {'streaming_llm': {}, 'random': {'seed': seed}, 'recent_frames': {'frames': 3},
              'streaming_vlm': {'text_sink': 8, 'text_window': 20, 'vision_window': 5.0}}
    targets = {row: session('qwen2_5_vl', row, budget, changes=ONE_LAYER, chunk=chunk,
                            max_question=40, fields=own) for row, own in fields.items()}
    held, starts, seen, now = list(range(prefix)), {}, prefix, 0.0
    recent = list(held)
    vlm = StreamingVLMReference(budget, prefix, 8, 20, 5.0)
    vlm.text(prefix)
    for number, (count, told) in enumerate(steps):
        images, stamps, cameras = shots(count, 100 * number)
        stamps = [stamp + 40 * number * 10**9 for stamp in stamps]
        text = words(model, told, number)
        for target in targets.values():
            target.observe_many(images, stamps, cameras)
            target.tell(text)
        for image, stamp in zip(images, stamps, strict=True):
            ids = model.adapter.encode(model.model, image, 0.0).ids
            starts[len(starts)] = seen
            seen, now = seen + len(ids), (stamp - START) / 1e9
            vlm.frame(now, (ids == model.adapter.placeholder).tolist())
            vlm.kept(now)
        vlm.text(told)
        held = keep_streaming_llm(list(range(seen + told)), budget, prefix)
        recent = keep_recent_frames(
            [*recent, *range(recent[-1] + 1, seen + told)], budget, prefix, 3,
            {n: at for n, at in starts.items() if at in recent or at > recent[-1]})
        seen += told
        kept = {row: target.kept(0)[0].tolist() for row, target in targets.items()}
        assert kept['streaming_llm'] == held
        assert kept['random'] == keep_random(seen, budget, prefix, int(.25 * budget), seed)
        assert kept['streaming_vlm'] == vlm.kept(now)
        assert kept['recent_frames'] == recent
