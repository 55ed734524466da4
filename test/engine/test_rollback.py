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

"""A question that is not remembered leaves no trace, however it ends (invariant 6)."""

import pytest
from safetensors.torch import load_file
import zoo
from zoo import cells, FAMILIES, load, POLICIES, session, show, words

LONG = 900


def memory(target, tmp_path):
    """Read all that a session saves of itself."""
    path = tmp_path / 'memory.safetensors'
    target.save(path)
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def same(one, other):
    """Compare two memories bit for bit."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].equal(other[name]) for name in one)


def lived(family, row, **options):
    """Start a session and let it live past a few evictions."""
    model = load(family)
    target = session(family, row, LONG if row == 'full' else 160, **options)
    for number in range(6):
        if model.adapter.sees:
            show(target, number)
        target.tell(words(model, 25, number))
    return target


@pytest.mark.parametrize(('family', 'row'), cells())
def test_asking_twice_gives_the_same_answer_and_leaves_no_trace(family, row, tmp_path):
    target = lived(family, row)
    before = memory(target, tmp_path)
    seen = target.stats().tokens_seen
    first = target.answer('Where is the cup?', max_tokens=6)
    assert same(memory(target, tmp_path), before)
    again = target.answer('Where is the cup?', max_tokens=6)
    for part in ('text', 'token_ids', 'finish', 'stamp_ns', 'evidence'):
        assert getattr(again, part) == getattr(first, part)
    target.answer('Is it red?', choices=['yes', 'no'])
    assert same(memory(target, tmp_path), before)
    assert target.stats().tokens_seen == seen


@pytest.mark.parametrize('row', POLICIES)
@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl', 'llama'])
def test_a_cancelled_or_abandoned_answer_leaves_no_trace(family, row, tmp_path):
    target = lived(family, row)
    before = memory(target, tmp_path)
    whole = target.answer('Where is the cup?', max_tokens=12)
    asking = target.ask('Where is the cup?', max_tokens=12)
    first = next(iter(asking))
    asking.cancel()
    list(asking)
    if first != whole.text:     # noise may be no character before its last token
        assert asking.answer.finish == 'cancelled'
        assert asking.answer.tokens < whole.tokens
    assert same(memory(target, tmp_path), before)
    for _ in target.ask('Where is the cup?', max_tokens=12):
        break  # the generator is dropped here
    assert same(memory(target, tmp_path), before)
    assert target.answer('Where is the cup?', max_tokens=12).text == whole.text


@pytest.mark.parametrize('family', FAMILIES)
def test_a_question_that_never_was_does_not_change_what_follows(family):
    lives = []
    for asks in (False, True):
        target = lived(family, 'saddle')
        if asks:
            target.answer('Where is the cup?', max_tokens=6)
        model = load(family)
        for number in range(3):
            if model.adapter.sees:
                show(target, 50 + number)
            target.tell(words(model, 30, 50 + number))
        lives.append((target.kept(0).tolist(), target.logits(words(model, 5, 5))))
    assert lives[0][0] == lives[1][0]
    assert lives[0][1].equal(lives[1][1])


@pytest.mark.parametrize('row', ['saddle', 'saddle_heads', 'recent_frames', 'live_vlm'])
@pytest.mark.parametrize(('family', 'call'), [
    (family, call)
    for family in ('smolvlm', 'qwen3_vl', 'gemma3_text', 'lfm2', 'qwen3_5_text')
    for call in ('observe', 'tell', 'ask', 'choose', 'decode')
    if call != 'observe' or family in zoo.SIGHTED])
def test_a_pass_that_fails_leaves_no_trace(family, row, call, tmp_path):
    """A GPU may run out of memory in the middle of any forward pass."""
    target = lived(family, row)
    model = load(family)
    before = memory(target, tmp_path)
    expected = target.answer('Where is the cup?', max_tokens=6).text
    passes = [3 if call == 'decode' else 1]

    def fail(*_):
        passes[0] -= 1
        if not passes[0]:
            raise RuntimeError('out of memory')

    broken = model.model.get_decoder().layers[-1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        if call == 'observe':
            show(target, 50)
        elif call == 'tell':
            target.tell(words(model, 20, 50))
        else:
            choices = ['yes', 'not at all'] if call == 'choose' else None
            target.answer('Where is the cup?', max_tokens=6, choices=choices)
    broken.remove()
    assert same(memory(target, tmp_path), before)
    frames = 6 if model.adapter.sees else 0
    assert target.frames_seen == frames
    assert target.newest == (target.frames[5] if frames else None)
    assert target.answer('Where is the cup?', max_tokens=6).text == expected


def test_a_remembered_question_stays():
    target = lived('llama', 'saddle')
    seen = target.stats().tokens_seen
    answer = target.answer('Where is the cup?', max_tokens=6, remember=True)
    question = len(load('llama').adapter.prompt.question('Where is the cup?'))
    assert target.stats().tokens_seen >= seen + question + answer.tokens
    assert target.kept(0).max() > seen


def test_a_remembered_answer_left_in_the_middle_is_kept_as_far_as_it_went():
    prompt = load('llama').adapter.prompt
    target = lived('llama', 'full')
    before = target.kept(0).shape[1]
    for piece in target.ask('Where is the cup?', max_tokens=12, remember=True):
        assert piece
        break
    target.tell(words(load('llama'), 1, 0))
    grown = target.kept(0).shape[1] - before - 1
    turn = len(prompt.question('Where is the cup?')) + len(prompt.reopen())
    assert turn < grown < turn + 12


@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl'])
def test_reset_forgets_all_but_the_system_prompt(family, tmp_path):
    target = lived(family, 'saddle')
    buffers = zoo.buffers(target)
    target.reset()
    for number in range(30):  # and nothing adds up, reset after reset
        show(target, number)
        target.reset()
    fresh = session(family, 'saddle', 160)
    assert same(memory(target, tmp_path), memory(fresh, tmp_path))
    assert target.stats().frames_seen == target.frames_seen == 0 and target.newest is None
    assert zoo.buffers(target) == buffers
    for one in (target, fresh):
        show(one, 3)
    assert target.answer('What is it?', max_tokens=6).text == fresh.answer(
        'What is it?', max_tokens=6).text
