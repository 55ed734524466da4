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

"""LiveVLM keeps, and shows to questions, what a slow reference of its paper does (invariant 5)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from infmllm_ros.engine import make_policy, StreamingSession
from infmllm_ros.engine.chunk import Chunk
from infmllm_ros.engine.policies import Role
from keepers_live import LiveReference
import numpy as np
import pytest
from references import logits_plainly, OneLayer, TinyLlama
from tape import frame_tokens, same_prediction, Tape, text_tokens
import torch
import zoo
from zoo import changed, load, ONE_LAYER, picture, plain, session, show, words

TWO_LAYERS = changed(num_hidden_layers=2)
# all that is held leaves nothing to compare: no filter where frames are to be counted
BASE = {'rows': 5, 'page': 4, 'duplicate': 0.0}


def spied(target):
    """Write down what the questions of a session see, and what it predicts for them."""
    seen, logits = {}, []
    choose, feed = target.policy.retrieve, target.feed

    def retrieve(view, content, query):
        seen[content.layer] = choose(view, content, query)
        return seen[content.layer]

    def look(chunk, role, **options):
        out = feed(chunk, role, **options)
        if options.get('logits'):
            logits.append(out[-1].float())
        return out

    target.policy.retrieve, target.feed = retrieve, look
    return seen, logits


def live(family, changes, oracle, fields, budget=150, steps=18, seed=0):
    """Run a session and its reference side by side over frames, words and questions."""
    model, rng = load(family, changes), np.random.default_rng(seed)
    fields = {**BASE, **fields}
    own = {name: value for name, value in fields.items() if name != 'duplicate'}
    hidden = 0
    with Tape(model) as tape:
        target = session(family, 'live_vlm', budget, changes=changes, fields=fields)
        pinned = sum(len(chunk) for chunk in tape.chunks)
        reference = LiveReference(oracle, budget, pinned, **own)

        def follow(chunks):
            for chunk in chunks:
                reference.feed(chunk)
            reference.judge(target)

        follow(tape.take())
        seen, logits = spied(target)
        for number in range(steps):
            if model.adapter.sees and number % 4:
                size = (112, 112) if number % 7 else (56, 112)      # grids differ now and then
                show(target, number) if 'llava' in family else target.observe(
                    picture(seed + number, *size), stamp_ns=number * 10**9)
            else:
                target.tell(words(model, int(rng.integers(4, 40)), seed + number))
            follow(tape.take())
            if number % 4 == 1 and isinstance(oracle, TinyLlama):
                # what sees all chooses, too, before it is answered: see the other policies
                remember = number % 8 == 5 and target.policy.retrieves
                seen.clear()
                logits.clear()
                target.answer('Where is it now?', max_tokens=4, remember=remember)
                chunks = tape.take()
                expected = reference.ask(chunks, remember)
                for layer, slots in seen.items():
                    assert slots.tolist() == reference.visible_slots[layer]
                    hidden += pinned < len(slots) < target.cache.slots[0].count
                for found, truth in zip(logits, expected):
                    assert np.abs(found.numpy() - truth[-1]).max() < 2e-4
                assert logits and len(chunks) >= len(logits)
                reference.judge(target)
    if isinstance(oracle, TinyLlama):
        same_prediction(target, oracle, seed)
    return target.stats().evictions, hidden


CASES = {
    'paper': {},
    'buckets of three': {'bucket': 3},
    'by slot': {'position': 'slot', 'rows': 40},
    'one list': {'scope': 'all', 'recent': 40},
    'sinks alone': {'sinks_share': 1.0, 'text': 0.0},
    'no sinks': {'sinks_share': 0.0, 'bucket': 2, 'position': 'slot', 'text': 0.6},
    'no short term': {'recent': 0.0, 'rows': 1, 'page': 3},
    'one page': {'retrieved': 0.01, 'page': 16},
    'nothing retrieved': {'retrieved': 0.0},
    'all in sight': {'retrieved': 1.0},
}


@pytest.mark.parametrize('name', CASES)
def test_buckets_and_pages_are_those_of_the_paper(name):
    family = 'qwen2_5_vl'
    evictions, hidden = live(
        family, TWO_LAYERS, TinyLlama(plain(family, TWO_LAYERS)), CASES[name])
    assert evictions >= 4
    assert (hidden == 0) == (name == 'all in sight')


@pytest.mark.parametrize('family', ['llama', 'smolvlm', 'llava_onevision'])
def test_other_families_keep_and_show_the_same(family):
    evictions, hidden = live(family, TWO_LAYERS, TinyLlama(plain(family, TWO_LAYERS)), {}, 130)
    assert evictions >= 4
    assert (hidden == 0) == (family == 'llama')     # words are always in sight


@pytest.mark.parametrize('family', ['qwen3_vl', 'qwen2_5_vl'])
def test_one_layer_of_every_other_family_keeps_the_same(family):
    oracle = OneLayer(plain(family, ONE_LAYER, attention='eager'))
    assert live(family, ONE_LAYER, oracle, {})[0] >= 4


SCORES = st.lists(st.integers(0, 30), min_size=1, max_size=60)


@settings(max_examples=150)
@given(scores=SCORES, size=st.integers(0, 60), bucket=st.integers(1, 7),
       share=st.sampled_from([0.0, 0.1, 0.5, 1.0]), gap=st.integers(1, 9),
       position=st.sampled_from(['stream', 'slot']))
def test_buckets_fill_as_in_the_two_phases(scores, size, bucket, share, gap, position):
    """Few different scores, so that ties are many; words stand in the gaps between frames."""
    indices = [7 + at + at // 3 * gap for at in range(len(scores))]
    end = indices[-1] + gap
    reference = LiveReference(
        OneLayerStub(), 0, 7, bucket=bucket, sinks_share=share, position=position)
    expected = reference.fill(indices, dict(zip(indices, scores)), size, 7, end)
    policy = make_policy('live_vlm', bucket=bucket, sinks_share=share, position=position)
    place = torch.tensor(indices) - 6
    length = end - 6
    if position == 'slot':
        place, length = torch.arange(1, len(scores) + 1), len(scores)
    stays = policy.bucketed(torch.tensor(scores) / 30, place, length, size)
    assert [i for i, stay in zip(indices, stays.tolist()) if stay] == sorted(expected)
    assert len(expected) == min(size, len(scores))


class OneLayerStub:
    """A decoder without layers: for what needs none."""

    layers = groups = 0


# ------------------------------------------------------------------------------ what is seen
@pytest.mark.parametrize('family', ['smolvlm', 'llava_onevision', 'qwen2_5_vl', 'qwen3_vl'])
@pytest.mark.parametrize('remember', [False, True])
def test_an_answer_is_that_of_hugging_face_on_what_the_question_saw(family, remember):
    """In one layer, only what is seen can matter, at positions without gaps."""
    model, truth = load(family, ONE_LAYER), plain(family, ONE_LAYER)
    with Tape(model) as tape:
        target = session(family, 'live_vlm', 160, changes=ONE_LAYER,
                         fields={**BASE, 'retrieved': .1})
        seen, logits = spied(target)
        stream = []
        for number in range(12):
            show(target, number)
            target.tell(words(model, 3 + 5 * (number % 3), number))
            stream += [token for chunk in tape.take() for token in chunk]
            if number < 6:
                continue
            logits.clear()
            kept = [stream[index] for index in target.kept(0)[0].tolist()]
            target.answer('Where is it?', max_tokens=6, remember=remember)
            chunks = tape.take()
            context = [kept[slot] for slot in seen[0].tolist()]
            assert len(context) < len(kept)
            for found, chunk in zip(logits, chunks):
                context += chunk
                assert (found - logits_plainly(truth, context)[-1]).abs().max() < 1e-5
            # the negative control: with all that is held, it would have been another answer
            everything = logits_plainly(truth, kept + chunks[0])[-1]
            assert (logits[0] - everything).abs().max() > 1e-3
            if remember:
                stream += [token for chunk in chunks for token in chunk]
            assert len(stream) == target.stats().tokens_seen
        ids = words(model, 12, 99)
        kept = [stream[index] for index in target.kept(0)[0].tolist()]
        expected = logits_plainly(truth, kept + text_tokens(model, ids))[-12:]
        assert (target.logits(ids).float() - expected).abs().max() < 1e-5


@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_question_leaves_the_working_copy_bit_for_bit(family, dtype):
    target = session(family, 'live_vlm', 160, dtype=dtype, fields=BASE)
    for number in range(7):
        show(target, number)
    target.tell(words(load(family), 9, 0))

    def copies():
        return [getattr(layer, name)[:, :, :layer.slots.count].clone()
                for layer in target.cache.layers for name in ('master', 'keys', 'values')] + [
                    slots.end.clone() for slots in target.cache.slots]

    before = copies()
    first = target.answer('Where is it?', max_tokens=8)
    assert all(map(torch.equal, copies(), before))
    target.answer('Is it red?', choices=['yes', 'not at all'])
    assert all(map(torch.equal, copies(), before))
    for _ in target.ask('Where is it?', max_tokens=8):
        break
    target.kept(0)
    target.stats()
    assert target.answer('Where is it?', max_tokens=8).token_ids == first.token_ids
    assert all(map(torch.equal, copies(), before))


def test_choices_are_scored_as_they_would_be_generated():
    """Three tokens looked at on top of the question, against the same three fed one by one."""
    family = 'qwen2_5_vl'
    model = load(family)
    target = session(family, 'live_vlm', 160, fields=BASE)
    for number in range(8):
        show(target, number)
    choices = ['yes', 'not at all']
    found = target.answer('Is it red?', choices=choices)
    scores = []
    for choice in choices:
        ids, score = model.adapter.prompt.choice(choice), []
        asking = target.ask('Is it red?')
        logits = asking.prefill()
        for token in ids:
            score.append(logits.float().log_softmax(-1)[token])
            logits = asking._step(Chunk(token[None]), Role.ANSWER)
        asking.settle()
        scores.append(torch.stack(score).mean())
    expected = torch.stack(scores).softmax(0)
    assert (torch.tensor(found.probabilities) - expected).abs().max() < 1e-5


@pytest.mark.parametrize('rope', ['longrope', 'yarn'])
def test_what_is_seen_is_turned_as_hugging_face_does(rope):
    """Frequencies of LongRoPE change with what is seen, also in the midst of an answer."""
    limit = 150
    changes = changed(num_hidden_layers=1, rope_parameters={
        **zoo.ROPES[rope], 'original_max_position_embeddings': limit})
    model, truth = load('llama', changes), plain('llama', changes)
    target = StreamingSession(
        model, make_policy('live_vlm', budget=500), max_question=48, max_answer=40)
    stream = model.adapter.prompt.prefix('')
    crossed = set()
    for number in range(12):
        told = words(model, 28, number)
        stream = torch.cat((stream, told))
        target.tell(told)
        for part in (2, 3):     # words are always in sight, so choose for the policy
            chosen = torch.arange(number % 5, len(stream), part)
            target.policy.retrieve = lambda *_, chosen=chosen: chosen
            _, logits = spied(target)
            with Tape(model) as tape:
                target.answer('Where is the cup?', max_tokens=20)
                chunks = tape.take()
            context = text_tokens(model, stream[chosen])
            held = len(stream)
            for found, chunk in zip(logits, chunks):
                context, held = context + chunk, held + len(chunk)
                assert (found - logits_plainly(truth, context)[-1]).abs().max() < 1e-5
                if chunk is not chunks[0]:      # what this token of the answer crossed
                    crossed |= {'seen'} if len(context) == limit + 1 else set()
                    crossed |= {'held'} if held == limit + 1 else set()
                if len(context) <= limit < held:
                    crossed.add('held before')
            del target.feed
    assert crossed == {'seen', 'held', 'held before'}
    ids = words(model, 12, 99)
    expected = logits_plainly(truth, text_tokens(model, torch.cat((stream, ids))))[-12:]
    assert (target.logits(ids).float() - expected).abs().max() < 1e-5


# ------------------------------------------------------------------------------ the filter
def noisy(image, amount, seed):
    """Add noise to a picture."""
    noise = np.random.default_rng(seed).normal(0, amount, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def alikeness(model, one, other):
    """Cosine of the least alike pair of features, token by token, in float64."""
    pairs = []
    for image in (one, other):
        chunk = model.adapter.encode(model.model, image, 0.0, '')
        with torch.no_grad():
            tokens = [token.embed.astype(np.float64)
                      for token in frame_tokens(model, chunk, 0) if token.grid]
        pairs.append(tokens)
    if len(pairs[0]) != len(pairs[1]):
        return -1.0
    return min(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*pairs))


@pytest.mark.parametrize('family', ['smolvlm', 'llava_onevision', 'qwen2_5_vl', 'qwen3_vl'])
def test_a_frame_that_repeats_the_last_one_of_its_camera_is_skipped(family):
    model, rng = load(family), np.random.default_rng(3)
    sizes = {'front': (112, 112), 'back': (56, 112)}
    scenes = {camera: picture(1, *size) for camera, size in sizes.items()}
    shown = []      # (camera, image) of each frame
    for number in range(24):
        camera = ('front', 'back')[int(rng.integers(2))]
        if rng.random() < .3:
            scenes[camera] = picture(number, *sizes[camera])
        shown.append((camera, noisy(scenes[camera], [0, 3, 30][number % 3], number)))
    # a threshold in the widest gap between what occurs, as far from rounding as can be
    cosines = sorted(
        alikeness(model, next(old for where, old in shown[at - 1::-1] if where == camera), image)
        for at, (camera, image) in enumerate(shown)
        if camera in [where for where, _ in shown[:at]])
    middle = cosines[len(cosines) // 3:-len(cosines) // 4]
    gap = max(range(1, len(middle)), key=lambda at: middle[at] - middle[at - 1])
    threshold = (middle[gap] + middle[gap - 1]) / 2
    target = session(family, 'live_vlm', 160, fields={**BASE, 'duplicate': threshold})
    last, taken = {}, []
    for number, (camera, image) in enumerate(shown):
        tokens = target.stats().tokens_seen
        target.observe(image, stamp_ns=number * 10**9, camera=camera)
        if camera not in last or alikeness(model, last[camera], image) < threshold:
            last[camera] = image
            taken.append((number * 10**9, camera))
        else:
            assert target.stats().tokens_seen == tokens
        assert target.newest.stamp_ns == taken[-1][0]
    stats = target.stats()
    assert (stats.frames_seen, stats.frames_skipped) == (len(taken), len(shown) - len(taken))
    assert 3 < len(taken) < len(shown) - 3
    for number, frame in target.frames.items():
        assert (frame.ordinal, frame.stamp_ns, frame.camera) == (number, *taken[number])
    answer = target.answer('Where is it?', max_tokens=4)
    assert (answer.stamp_ns, answer.camera) == taken[-1]


def test_the_filter_is_saved_reset_and_not_moved_by_a_failed_pass(tmp_path):
    family = 'smolvlm'
    model = load(family)
    target = session(family, 'live_vlm', 160, fields={**BASE, 'duplicate': 0.999})
    target.observe(picture(1), stamp_ns=1, camera='a/b c')
    target.observe(picture(1), stamp_ns=2, camera='a/b c')
    target.save(tmp_path / 'memory')
    for one in (target, StreamingSession.load(tmp_path / 'memory', model)):
        one.observe(picture(1), stamp_ns=3, camera='a/b c')
        assert (one.stats().frames_seen, one.stats().frames_skipped) == (1, 2)
        one.observe(picture(1), stamp_ns=3, camera='')
        assert one.stats().frames_seen == 2
    hook = model.model.get_decoder().layers[-1].register_forward_hook(raise_error)
    with pytest.raises(RuntimeError, match='no memory'):
        target.observe(picture(2), stamp_ns=4)
    hook.remove()
    target.observe(picture(2), stamp_ns=5)
    assert target.newest.stamp_ns == 5
    target.reset()
    assert target.stats().frames_skipped == 0
    target.observe(picture(2), stamp_ns=6)
    assert target.stats().frames_seen == 1


def raise_error(*_):
    """Fail as a GPU does."""
    raise RuntimeError('no memory')


def test_other_policies_skip_nothing():
    target = session('smolvlm', 'saddle', 160)
    for number in range(3):
        target.observe(picture(1), stamp_ns=number)
    assert (target.stats().frames_seen, target.stats().frames_skipped) == (3, 0)
