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

"""NaN and infinity never enter the memory, and what led to them is told (docs/reliability.md)."""

from faults import fault
from infmllm_ros.engine import load_model, NotFiniteError, StreamingSession
from machine import same, snapshot
import pytest
import torch
from zoo import folder, load, picture, POLICIES, policy, session, show, SIGHTED, words

QUESTION = 'Where is the cup?'


def lived(family, row='saddle', **options):
    """Start a session and let it live past an eviction."""
    target = session(family, row, 900 if row == 'full' else 160, **options)
    for number in range(4):
        if load(family).adapter.sees:
            show(target, number)
        target.tell(words(load(family), 40, number))
    return target


@pytest.mark.parametrize(('family', 'kind'), [
    *((family, 'vision nan') for family in SIGHTED), ('smolvlm', 'vision inf')])
def test_one_bad_feature_keeps_its_frame_out(family, kind):
    target, twin = lived(family), lived(family)
    before = snapshot(target)
    with fault(load(family), kind) as spoilt, pytest.raises(
            NotFiniteError, match=r'left 77 ns.*left out.*float32') as refusal:
        target.observe(picture(9), 77, 'left')
    assert spoilt.fired and '\n' not in str(refusal.value)
    same(snapshot(target), before)
    for one in (target, twin):
        show(one, 5)
    assert target.answer(QUESTION, max_tokens=6).token_ids == twin.answer(
        QUESTION, max_tokens=6).token_ids


def test_of_a_backlog_only_the_bad_frame_stays_out(monkeypatch):
    target, twin = (session('smolvlm', 'saddle', 200, chunk=90) for _ in range(2))
    images = [picture(number) for number in range(5)]
    kind = type(load('smolvlm').adapter)
    see = kind.see

    def blind(self, model, chunks, shown, *rest):
        seen = see(self, model, chunks, shown, *rest)
        for chunk, image in zip(seen, shown):
            if image is images[2]:
                for part in chunk.features['image'].pooler_output:
                    part.fill_(torch.nan)
        return seen
    with monkeypatch.context() as patch:
        patch.setattr(kind, 'see', blind)
        with pytest.raises(NotFiniteError, match='front 2 ns'):
            target.observe_many(images, range(5), 'front')
    assert [frame.stamp_ns for frame in target.frames.values()] == [0, 1, 3, 4]
    for number in (0, 1, 3, 4):
        twin.observe(images[number], number, 'front')
    assert target.kept(0).equal(twin.kept(0))
    assert target.answer(QUESTION, max_tokens=6).text == twin.answer(QUESTION, max_tokens=6).text


@pytest.mark.parametrize('passes', [1, 3])
@pytest.mark.parametrize('options', [
    {}, {'temperature': 1.0}, {'temperature': 1.0, 'top_p': 0.5},
    {'choices': ['yes', 'not at all']}, {'remember': True}], ids=str)
@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl', 'lfm2', 'gemma3n_text'])
def test_a_question_that_comes_to_nan_fails_and_leaves_no_trace(family, options, passes):
    target = session(family, 'saddle', 160)
    forgotten = {**options, 'remember': False}
    expected = target.answer(QUESTION, **forgotten).token_ids
    before = snapshot(target)
    # of choices: the question, and the second one on top of it; of noise, some is short
    passes = min(passes, 2 if 'choices' in options else len(expected))
    with fault(load(family), 'nan', passes) as spoilt, pytest.raises(NotFiniteError) as refusal:
        target.answer(QUESTION, **options)
    assert spoilt.fired and 'left out' in str(refusal.value)
    same(snapshot(target), before)
    assert target.answer(QUESTION, **forgotten).token_ids == expected


def test_numbers_too_large_for_float16_are_told_and_float32_is_the_remedy():
    place = str(folder('llama'))
    for dtype in ('float16', 'float32'):
        model = load_model(place, device='cpu', dtype=dtype)
        layer = model.model.get_decoder().layers[0].mlp
        target = StreamingSession(
            model, policy('saddle', 160), max_question=48, max_answer=16)
        layer.down_proj.weight.mul_(3e4)
        layer.gate_proj.weight.mul_(1e3)
        if dtype == 'float16':
            with pytest.raises(NotFiniteError, match='the text .* float32'):
                target.tell('The cup is red.')
            assert target.stats().tokens_seen == len(target.prefix)
        else:
            target.tell('The cup is red.')


@pytest.mark.parametrize('kind', ['memory', 'nan'])
@pytest.mark.parametrize('row', [row for row in POLICIES if 'probe' in POLICIES[row][1]])
def test_a_probe_that_fails_takes_its_chunk_back(row, kind):
    """It is run when the chunk is in, but before anything is evicted for it."""
    target = lived('llama', row)
    before = snapshot(target)
    for _ in range(9):      # each would have left the memory fuller, in the end beyond its buffers
        with fault(load('llama'), kind, 2) as spoilt:
            try:
                target.tell(words(load('llama'), 40, 9))
            except (torch.OutOfMemoryError, NotFiniteError):
                assert spoilt.fired
                same(snapshot(target), before)
            before = snapshot(target)
    target.tell(words(load('llama'), 40, 9))
    assert target.stats().tokens <= 160


def test_a_system_prompt_that_failed_is_tried_again():
    target = lived('llama')
    with fault(load('llama'), 'memory') as spoilt, pytest.raises(torch.OutOfMemoryError):
        target.reset()
    assert spoilt.fired
    target.tell(words(load('llama'), 9, 0))
    fresh = session('llama', 'saddle', 160)
    fresh.tell(words(load('llama'), 9, 0))
    same(snapshot(target), snapshot(fresh))


def test_when_memory_runs_out_while_tokens_are_moved_the_memory_is_empty_not_wrong(monkeypatch):
    target = lived('llama')
    layer = target.cache.full[-1]

    def fail(_):
        raise torch.OutOfMemoryError('CUDA out of memory (injected)')
    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(layer, 'compact', fail)
        target.tell(words(load('llama'), 40, 9))
    assert target.stats().tokens == 0
    target.tell(words(load('llama'), 9, 0))
    fresh = session('llama', 'saddle', 160)
    fresh.tell(words(load('llama'), 9, 0))
    same(snapshot(target), snapshot(fresh))
