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

from backlogs import memory, one_by_one, shots, START
from hypothesis import given, settings
from hypothesis import strategies as st
from infmllm_ros.engine import ContextFull, FlexPrefill, FrameError, ModelError
from infmllm_ros.engine.models import base
from infmllm_ros.engine.plain import plain_inputs, Shown
from infmllm_ros.engine.watching import passes
import numpy as np
import pytest
from tape import frame_tokens
import torch
import zoo
from zoo import cells, load, plain, session, SIGHTED, words

TOLERANCE = 1e-5
# rows of `POLICIES` whose numbers must be the same too: all queries, or one window not discounted
EXACT = {'h2o': {}, 'saddle': {'rows': 3}, 'saddle_layers': {'rows': 3}}


@pytest.fixture
def fed(monkeypatch):
    """List the tokens of every forward pass."""
    kind, sizes = zoo.StreamingSession, []
    feed = kind.feed
    monkeypatch.setattr(kind, 'feed', lambda self, chunk, *args, **kwargs: (
        sizes.append(len(chunk)), feed(self, chunk, *args, **kwargs))[1])
    return sizes


# ------------------------------------------------------------------------ nothing is evicted
@pytest.mark.parametrize(('family', 'row'), cells(SIGHTED))
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
