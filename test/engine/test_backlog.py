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

"""A backlog of frames, several a pass, makes the memory that frames one by one make."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
from infmllm_ros.engine import ContextFull, FlexPrefill, FrameError, ModelError
from infmllm_ros.engine.models import base
from infmllm_ros.engine.plain import plain_inputs, Shown
from infmllm_ros.engine.watching import passes
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
from tape import frame_tokens, Tape, text_tokens
import torch
import zoo
from zoo import (
    changed,
    load,
    ONE_HEAD,
    ONE_LAYER,
    picture,
    plain,
    POLICIES,
    session,
    SIGHTED,
    words,
)

TOLERANCE = 1e-5
TWO_LAYERS = changed(num_hidden_layers=2)
SIZES = [(64, 64), (90, 40), (30, 100), (112, 112)]
START = 1_700_000_000 * 10**9 + 7    # nanoseconds that float64 could not tell apart
# rows of `POLICIES` whose numbers must be the same too: all queries, or one window not discounted
EXACT = {'h2o': {}, 'saddle': {'rows': 3}, 'saddle_layers': {'rows': 3}}


def shots(count, seed=0):
    """Take pictures of several shapes by two cameras: images, stamps, cameras."""
    rng = np.random.default_rng(seed)
    stamps = START + rng.integers(1, 3 * 10**9, count).cumsum()
    return ([picture(seed + number, *SIZES[rng.integers(len(SIZES))]) for number in range(count)],
            stamps.tolist(), [('front', 'left')[rng.integers(2)] for _ in range(count)])


def one_by_one(target, images, stamps, cameras):
    """Observe a backlog as if there were none."""
    for image, stamp, camera in zip(images, stamps, cameras, strict=True):
        target.observe(image, stamp, camera)


def memory(target):
    """Tell all that a memory knows of its tokens, but for keys and values."""
    ledgers = [slots.meta[:, :, :slots.count].tolist() for slots in target.cache.slots]
    stats = target.stats()
    return (ledgers, target.frames, target.newest, stats.tokens, stats.tokens_seen,
            stats.frames_seen, stats.frames_retained, target._first_stamp)


@pytest.fixture
def fed(monkeypatch):
    """List the tokens of every forward pass."""
    kind, sizes = zoo.StreamingSession, []
    feed = kind.feed
    monkeypatch.setattr(kind, 'feed', lambda self, chunk, *args, **kwargs: (
        sizes.append(len(chunk)), feed(self, chunk, *args, **kwargs))[1])
    return sizes


# ------------------------------------------------------------------------ nothing is evicted
@pytest.mark.parametrize('row', POLICIES)
@pytest.mark.parametrize('family', SIGHTED)
def test_a_backlog_is_what_its_frames_are_one_by_one(family, row, fed):
    model, taken = load(family), shots(9)
    fields = {**zoo.WIDE.get(row, {}), **EXACT.get(row, {})}
    both, logits, answers = [], [], []
    for observe in (one_by_one, zoo.StreamingSession.observe_many):
        target = session(family, row, 900, chunk=100, fields=fields)
        target.tell(words(model, 7, 0))
        before = len(fed)
        observe(target, *taken)
        both.append((memory(target), len(fed) - before, target.cache.slots))
        answers.append(target.answer('Where is it?', max_tokens=4))
        logits.append(target.logits(words(model, 20, 1)).float())
        assert target.stats().tokens_evicted == 0
    (memory_1, passes_1, slots_1), (memory_2, passes_2, slots_2) = both
    assert memory_1 == memory_2
    assert passes_2 < passes_1 or row == 'saddle_probe'
    assert (logits[0] - logits[1]).abs().max() <= TOLERANCE
    assert answers[0].token_ids == answers[1].token_ids
    assert (answers[0].stamp_ns, answers[0].camera) == (answers[1].stamp_ns, answers[1].camera)
    shares = [{e.frame: (e.stamp_ns, e.camera, e.weight) for e in a.evidence} for a in answers]
    for frame in shares[0].keys() & shares[1].keys():
        assert shares[0][frame] == pytest.approx(shares[1][frame], abs=1e-6)
    assert len(shares[0].keys() & shares[1].keys()) >= 7    # of 8: the last may be a tie
    if row in EXACT:
        for one, many in zip(slots_1, slots_2, strict=True):
            torch.testing.assert_close(one.state[:, :, :one.count], many.state[:, :, :one.count],
                                       atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('family', SIGHTED)
@settings(max_examples=8)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=4), chunk=st.integers(1, 200),
       told=st.integers(0, 12), seed=st.integers(0, 999))
def test_however_a_backlog_is_cut_logits_are_those_of_the_plain_model(
        family, counts, chunk, told, seed):
    model = load(family)
    target = session(family, 'saddle', 1500, chunk=chunk)
    alone = session(family, 'saddle', 1500)
    parts, first = [model.adapter.prompt.prefix('Be brief.')], None
    for number, count in enumerate(counts):
        images, stamps, cameras = shots(count, seed + 10 * number)
        target.observe_many(images, stamps, cameras)
        one_by_one(alone, images, stamps, cameras)
        first = stamps[0] if first is None and stamps else first
        parts += [Shown(image, max(0, stamp - first) / 1e9)
                  for image, stamp in zip(images, stamps, strict=True)]
        text = words(model, told, seed + number)
        parts.append(text)
        target.tell(text)
        alone.tell(text)
    assert memory(target) == memory(alone)
    asked = words(model, 12, seed)
    found = target.logits(asked).float()
    # states round otherwise in chunks of other sizes
    limit = TOLERANCE * (10 if target.cache.states else 1)
    assert (found - alone.logits(asked).float()).abs().max() <= limit
    inputs, count = plain_inputs(model, [*parts, asked])
    with torch.no_grad():
        expected = plain(family)(**inputs).logits[0, count - 12:count].float()
    assert (found - expected).abs().max() <= 1e-4


@given(sizes=st.lists(st.integers(1, 30), max_size=30), most=st.integers(1, 60))
def test_passes_are_as_full_as_whole_frames_allow(sizes, most):
    cut = [sizes[part] for part in passes(sizes, most)]
    assert [size for run in cut for size in run] == sizes
    assert all(run and (len(run) == 1 or sum(run) <= most) for run in cut)
    assert all(sum(run) + after[0] > most for run, after in zip(cut, cut[1:]))


# ------------------------------------------------------------------------ vision
@pytest.mark.parametrize('blank', [False, True])
@pytest.mark.parametrize('family', SIGHTED)
def test_frames_seen_together_have_the_features_of_each_alone(family, blank, monkeypatch):
    model, looks = load(family), []
    adapter = model.adapter
    images = shots(2 * base.FRAMES_AT_ONCE + 3)[0]
    if blank:   # zero everywhere after normalising: what SmolVLM takes for padding
        monkeypatch.setattr(adapter, '_mean', [0.0] * 3)
        images[1] = images[6] = images[-1] = np.zeros((50, 60, 3), np.uint8)
    alone = [adapter.encode(model.model, image, 1.0) for image in images]
    kind = type(adapter)
    look = kind.look
    monkeypatch.setattr(kind, 'look', lambda self, model, pixels: (
        looks.append(pixels), look(self, model, pixels))[1])
    together = adapter.see(
        model.model, [adapter.lay_out(image, 1.0) for image in images], images)
    if not blank:
        assert len(looks) == 3
    for one, many in zip(alone, together, strict=True):
        assert one.ids.equal(many.ids) and one.spans == many.spans
        expected, found = (
            [token.embed for token in frame_tokens(model, chunk, 0)] for chunk in (one, many))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        deep = [[torch.cat(layer) for layer in next(iter(chunk.features.values())).get(
            'deepstack_features', [])] for chunk in (one, many)]
        assert len(deep[0]) == (2 if family == 'qwen3_vl' else 0)
        for layer, other in zip(*deep, strict=True):
            assert (layer - other).abs().max() <= TOLERANCE


# ------------------------------------------------------------------------ evictions
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


@pytest.mark.parametrize('row', [row for row in POLICIES if row != 'full'])
@pytest.mark.parametrize('family', SIGHTED)
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
    ids = words(model, 9, 0)
    oracle.feed(text_tokens(model, ids))
    assert np.abs(target.logits(ids).numpy() - oracle.logits).max() < 2e-4


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


# ------------------------------------------------------------------------ sparse prefill
FLEX = FlexPrefill(gamma=1.0, block=16, min_budget=16, min_chunk=32, min_held=32, dense_above=1.0)


@pytest.mark.parametrize('row', ['full', 'saddle', 'h2o'])
@pytest.mark.parametrize('family', SIGHTED)
def test_a_backlog_at_gamma_one_is_the_dense_backlog(family, row, monkeypatch):
    used, attend, kept, logits = [], FlexPrefill.attend, [], []
    # h2o reads every weight, and frames that look ahead are computed densely
    sparse = row != 'h2o' and not load(family).adapter.both_ways
    monkeypatch.setattr(FlexPrefill, 'attend', lambda self, query, *rest: (
        used.append(query.shape[1]), attend(self, query, *rest))[1])
    for prefill in (None, FLEX):
        target = session(family, row, 900 if row == 'full' else 150, chunk=90, prefill=prefill)
        for number in range(3):
            target.observe_many(*shots(8, 50 * number))
        assert bool(used) == (prefill is not None and sparse)
        kept.append([target.kept(layer).tolist() for layer in zoo.holders(target)])
        logits.append(target.logits(words(load(family), 20, 0)).float())
    assert kept[0] == kept[1]
    assert (logits[0] - logits[1]).abs().max() <= TOLERANCE


# ------------------------------------------------------------------------ refusals
BAD = {'grey': np.zeros((64, 64), np.uint8), 'float': np.zeros((64, 64, 3), np.float32),
       'no rows': np.zeros((0, 64, 3), np.uint8), 'text': 'picture.png', 'nothing': None}


@pytest.mark.parametrize('place', [0, 3, 7])
@pytest.mark.parametrize('name', BAD)
@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl'])
def test_one_bad_frame_is_named_and_none_enters(family, name, place, monkeypatch):
    target = session(family, 'saddle', 160, chunk=40)
    target.observe_many(*shots(2))
    before = memory(target)
    images, stamps, cameras = shots(8, 9)
    images[place] = BAD[name]
    monkeypatch.setattr(type(target.adapter), 'look', None)     # and none is looked at
    with pytest.raises(FrameError) as refusal:
        target.observe_many(images, stamps, cameras)
    with pytest.raises(FrameError) as alone:
        target.observe(BAD[name])
    message = str(refusal.value)
    assert message.startswith(f'frame {place} of 0 to 7: ') and message.endswith(str(alone.value))
    assert '\n' not in message and len(message) < 400
    assert memory(target) == before


@pytest.mark.parametrize('lengths', [(3, 2, 3), (2, 3, 3), (3, 3, 2), (0, 1, 0), (1, 0, 1)])
def test_lists_of_different_lengths_are_refused(lengths):
    target = session('smolvlm', 'saddle', 160)
    before = memory(target)
    with pytest.raises(FrameError, match='{} images, {} stamps and {} cameras'.format(*lengths)):
        target.observe_many(*(part[:n] for part, n in zip(shots(3), lengths, strict=True)))
    assert memory(target) == before


def test_one_camera_serves_all_and_none_is_needed():
    target = session('smolvlm', 'saddle', 160)
    images, stamps, _ = shots(4)
    target.observe_many(np.stack([images[0]] * 4), np.array(stamps))
    target.observe_many(images, stamps, 'rear')
    target.observe_many([], [])
    assert [frame.camera for frame in target.frames.values()] == [''] * 4 + ['rear'] * 4
    assert target.newest.stamp_ns == stamps[-1] and type(target.newest.stamp_ns) is int


def test_a_model_without_eyes_says_so():
    with pytest.raises(ModelError, match='text-only'):
        session('llama', 'saddle', 160).observe_many(*shots(2))


@pytest.mark.parametrize('family', ['smolvlm', 'qwen3_vl'])
def test_a_full_memory_refuses_a_backlog_whole(family):
    target = session(family, 'full', 160, chunk=40)
    target.observe_many(*shots(3))
    before, taken = memory(target), shots(30, 5)
    with pytest.raises(ContextFull) as refusal:
        target.observe_many(*taken)
    assert '160' in str(refusal.value)
    assert memory(target) == before
    target.observe_many(*(part[:2] for part in taken))
    assert target.frames_seen == 5


def test_a_pass_that_fails_keeps_those_before_it(monkeypatch):
    target, calm = (session('smolvlm', 'saddle', 160, chunk=40) for _ in range(2))
    images, stamps, cameras = shots(8)
    sizes = [len(target.adapter.lay_out(image, (stamp - START) / 1e9))
             for image, stamp in zip(images, stamps, strict=True)]
    done = next(passes(sizes, 40)).stop
    assert done < 8
    decoder, calls = target.model.model.base_model, []

    def fail(_module, _args, _kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError('no memory left')

    hook = decoder.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            target.observe_many(images, stamps, cameras)
    finally:
        hook.remove()
    calm.observe_many(images[:done], stamps[:done], cameras[:done])
    assert memory(target) == memory(calm)
    for one in (target, calm):
        one.observe_many(images[done:], stamps[done:], cameras[done:])
    asked = words(load('smolvlm'), 9, 0)
    assert target.logits(asked).equal(calm.logits(asked))
