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

"""A frame that comes with a question: seen right before it, and gone with it (invariant 6)."""

from infmllm_ros.engine import ContextFull, QuestionError, StreamingSession
from infmllm_ros.engine.plain import plain_inputs, Shown
import pytest
from tape import generate_plainly
from test_rollback import memory, same
from zoo import load, picture, plain, policy, session, show, words

QUESTION = 'Where is the cup?'
S = 10**9


def lived(family, row, frames=6):
    """Start a session with room for such a frame; let it live past a few evictions."""
    target = session(family, row, 900 if row == 'full' else 160, question_frame=True)
    for number in range(frames):
        show(target, number)
        target.tell(words(load(family), 25, number))
    return target


# 1-D positions, M-RoPE, tokens of a frame that see each other, linear attention
FAMILIES = ['smolvlm', 'qwen3_vl', 'gemma3', 'qwen3_5']


@pytest.mark.parametrize('family', FAMILIES)
def test_it_is_read_right_before_the_question_and_answers_equal_generate(family):
    model, target = load(family), session(family, 'full', 900, question_frame=True)
    frames = [Shown(picture(n), float(n), camera) for n, camera in enumerate(('a', 'b'))]
    for frame in frames:
        target.observe(frame.image, int(frame.seconds * S), frame.camera)
    again = Shown(picture(0), 0.0, 'a')
    found = target.answer(QUESTION, max_tokens=6, frame=(again.image, 0, 'a'))
    prompt, stops = model.adapter.prompt, sorted(model.adapter.prompt.stop_ids)
    whole = [prompt.prefix('Be brief.'), *frames, again, prompt.question(QUESTION)]
    expected = generate_plainly(plain(family), *plain_inputs(model, whole), stops, 6)
    assert list(found.token_ids) == [token for token in expected if token not in stops]
    assert list(target.answer(QUESTION, max_tokens=6).token_ids) != list(found.token_ids)


@pytest.mark.parametrize(('family', 'row'), [
    *(('smolvlm', row) for row in ('saddle', 'saddle_heads', 'hermes', 'live_vlm', 'full')),
    *((family, 'saddle') for family in FAMILIES[1:])])
def test_it_leaves_no_trace(family, row, tmp_path):
    target = lived(family, row)
    before, newest = memory(target, tmp_path), target.newest
    plain_answer = target.answer(QUESTION, max_tokens=6)
    counts = target.stats()
    frame = (picture(3), 3 * S, 'front')
    found = [target.answer(QUESTION, max_tokens=6, frame=frame) for _ in range(2)]
    assert (found[0].text, found[0].evidence) == (found[1].text, found[1].evidence)
    target.answer(QUESTION, choices=['yes', 'not at all'], frame=frame)
    for _ in target.ask(QUESTION, max_tokens=6, frame=frame):
        break  # abandoned
    target.ask(QUESTION, frame=frame)  # never begun
    assert same(memory(target, tmp_path), before)
    after = target.stats()
    for count in ('tokens_seen', 'tokens', 'frames_seen', 'frames_retained', 'evictions'):
        assert getattr(after, count) == getattr(counts, count)
    assert target.newest is newest
    again = target.answer(QUESTION, max_tokens=6)
    assert (again.token_ids, again.evidence) == (plain_answer.token_ids, plain_answer.evidence)


def test_its_evidence_is_that_of_the_frame_in_the_memory_or_of_a_new_one():
    target = lived('smolvlm', 'full')
    known = target.frames[2]
    weight = {e.frame: e.weight for e in target.answer(QUESTION).evidence}
    shown = {e.frame: e for e in target.answer(
        QUESTION, frame=(picture(2), known.stamp_ns, known.camera)).evidence}
    assert shown.keys() <= target.frames.keys()
    assert shown[2].weight > weight[2]
    new = target.answer(QUESTION, frame=(picture(9), 99 * S, 'left'))
    assert (new.stamp_ns, new.camera) == (99 * S, 'left')
    assert (99 * S, 'left') in [(e.stamp_ns, e.camera) for e in new.evidence]
    assert target.answer(QUESTION).stamp_ns == target.newest.stamp_ns


def test_it_stays_with_a_question_that_stays():
    target = lived('smolvlm', 'full')
    target.answer(QUESTION, max_tokens=2, remember=True, frame=(picture(9), 99 * S, 'left'))
    assert (target.newest.stamp_ns, target.newest.camera) == (99 * S, 'left')
    assert target.stats().frames_seen == 7


@pytest.mark.parametrize(('row', 'wrong'), [
    ('saddle', {'temperature': -1}), ('saddle', {'deadline_s': -1}),
    ('saddle', {'schema': 'no JSON'}), ('saddle', {'choices': ['yes']}), ('full', {})])
def test_a_question_that_is_refused_leaves_no_frame_behind(row, wrong, tmp_path):
    target = session('smolvlm', row, 160, question_frame=True)
    target.tell(words(load('smolvlm'), 100, 0))
    before = memory(target, tmp_path)
    with pytest.raises((QuestionError, ContextFull)):
        target.answer(QUESTION, max_tokens=16, remember=True, frame=(picture(9), S, 'left'),
                      **wrong)
    assert same(memory(target, tmp_path), before) and target.stats().frames_seen == 0


def test_a_pass_that_fails_on_it_leaves_no_trace(tmp_path):
    target = lived('smolvlm', 'saddle')
    before = memory(target, tmp_path)

    def fail(*_):
        raise RuntimeError('out of memory')

    broken = load('smolvlm').model.get_decoder().layers[-1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        target.answer(QUESTION, frame=(picture(3), 3 * S, 'front'))
    broken.remove()
    assert same(memory(target, tmp_path), before)


def test_it_has_its_room_or_is_refused_with_the_remedy():
    model, room = load('smolvlm'), {'max_question': 40, 'max_answer': 8, 'chunk': 1}
    bare, roomy = (StreamingSession(model, policy('saddle', 96), question_frame=wanted, **room)
                   for wanted in (False, True))
    assert roomy.plan.headroom == bare.plan.headroom + model.adapter.frame_tokens
    with pytest.raises(QuestionError, match='question_frame'):
        bare.answer(QUESTION, frame=(picture(0), 0, ''))
    size = roomy.stats().kv_bytes
    for number in range(12):
        roomy.observe(picture(number), number)
        roomy.tell(words(model, 20, number))
    longest = ' '.join(['cup'] * 64)
    while len(model.adapter.prompt.question(longest)) > 40:
        longest = longest[:-1]
    assert roomy.answer(longest, max_tokens=8, frame=(picture(0), 0, '')).tokens <= 8
    assert roomy.stats().kv_bytes == size and roomy.stats().tokens <= 96
