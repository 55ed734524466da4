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

"""Passes that are recorded and repeated make the memory and the answers of plain ones."""

from dataclasses import replace
import json
import sys

from infmllm_ros.engine import graphs, load_model, lookout, NotFiniteError, StreamingSession
from infmllm_ros.engine.store import KVLayer
from machine import same, snapshot
import pytest
from rehearsal import NoWaiting, Rehearsal, rehearsed
import torch
from zoo import (
    cells,
    FAMILIES,
    folder,
    holders,
    load,
    picture,
    plain,
    policy,
    session,
    show,
    words,
)

from benchmarks import gpu  # noqa: I100

assert rehearsed
pytestmark = pytest.mark.usefixtures('rehearsed')
QUESTION = 'Where is the cup?'
# towers that compute their shapes from numbers in tensors, of which Python must know
LOOKS = ('llava_onevision', 'internvl', 'gemma3')


def live(target, first=0, count=5):
    """See, hear and answer; give what was said, and on what evidence."""
    said = []
    for number in range(first, first + count):
        if target.model.adapter.sees:
            show(target, number)
        target.tell(words(target.model, 20, number))
        answer = target.answer(QUESTION, max_tokens=6, remember=bool(number % 2))
        said.append((answer.token_ids, [one.frame for one in answer.evidence]))
        said.append([round(one.weight, 4) for one in answer.evidence])
    return said


def held(target):
    """Note all that a memory holds; answers are counted, too."""
    return {name: value for name, value in snapshot(target).items() if name != 'answers'}


def agree(one, other):
    """Hold two memories against each other, bit for bit in what is kept."""
    for number in holders(one):
        assert one.kept(number).equal(other.kept(number))
    ids = words(one.model, 6, 1)
    assert (one.logits(ids) - other.logits(ids)).abs().max() < 2e-5


@pytest.mark.parametrize(('family', 'row'), cells(
    FAMILIES, ['saddle', 'saddle_heads', 'saddle_layers', 'live_vlm', 'hermes', 'h2o']))
def test_repeated_passes_are_plain_ones(family, row):
    one, other = session(family, row, 160), session(family, row, 160, graphs=True)
    before = Rehearsal.repeated
    assert live(one) == live(other)
    agree(one, other)
    passes = other.graphs.passes
    assert passes.recordings and Rehearsal.repeated > before + 2 * len(passes.recordings)
    if family != 'qwen3_vl':        # it adds features of the tower at places told by a mask
        assert not passes.refused


@pytest.mark.parametrize('family', LOOKS)
def test_looks_of_the_vision_tower_are_repeated(family):
    one, other = session(family, 'saddle', 160), session(family, 'saddle', 160, graphs=True)
    assert live(one) == live(other)
    assert len(other.graphs.looks.recordings) == 1
    for target in (one, other):     # several at once, and then one again
        target.observe_many([picture(number) for number in range(9)], range(9))
        show(target, 9)
    agree(one, other)


@pytest.mark.parametrize('family', [
    'llama', 'llava_onevision', 'qwen2_5_vl', 'lfm2', 'gemma3n_text'])
def test_a_question_leaves_no_trace(family):
    target = session(family, 'saddle', 160, graphs=True)
    live(target)
    before = held(target)
    first = target.answer(QUESTION, max_tokens=6).token_ids
    for _ in range(5):
        same(held(target), before)
        assert target.answer(QUESTION, max_tokens=6).token_ids == first
        target.answer(QUESTION, choices=['yes', 'not at all'])
    assert target.graphs.passes.recordings


@pytest.mark.parametrize('family', ['llama', 'lfm2', 'qwen3_5', 'mistral', 'smolvlm'])
def test_life_after_reset_restore_and_another_budget(family, tmp_path):
    one, other = session(family, 'saddle', 160), session(family, 'saddle', 160, graphs=True)
    lives = []
    for target in (one, other):
        said = live(target)
        target.save(tmp_path / 'memory')
        for _ in range(4):
            target.reset()
            said += live(target, 7, 2)
        target.restore(tmp_path / 'memory')
        said += live(target, 9, 2)
        target.set_budget(140)
        lives.append((said, live(target, 11, 2)))
        loaded = StreamingSession.load(tmp_path / 'memory', target.model)
        assert (loaded.graphs is None) == (target is one)
    assert lives[0] == lives[1]
    agree(one, other)


def test_what_a_failed_pass_wrote_spoils_none_of_those_that_read_all_slots(monkeypatch):
    one, other = (session('llava_onevision', 'saddle', 160, graphs=some) for some in (False, True))
    live(one), live(other)
    look = type(one.adapter).look
    spoil = [False]

    def blind(self, *args):
        features = look(self, *args)
        if spoil[0]:
            features['video'].pooler_output[0, 0].fill_(torch.nan)
        return features

    monkeypatch.setattr(type(one.adapter), 'look', blind)
    for number in range(20, 24):
        for target in (one, other):
            spoil[0] = True
            target.graphs and target.graphs.looks.recordings.clear()
            with pytest.raises(NotFiniteError):
                show(target, 9)
            spoil[0] = False
            target.graphs and target.graphs.looks.recordings.clear()
        assert live(one, number, 1) == live(other, number, 1)
    agree(one, other)


def test_a_frame_that_comes_to_nan_as_it_is_recorded_refuses_no_shape(monkeypatch):
    one, other = (session('llava_onevision', 'saddle', 160, graphs=some) for some in (False, True))
    look = type(one.adapter).look

    def blind(self, *args):
        features = look(self, *args)
        features['video'].pooler_output[0, 0].fill_(torch.nan)
        return features

    for number in range(4):
        for target in (one, other):
            with monkeypatch.context() as patch:
                patch.setattr(type(one.adapter), 'look', blind)
                with pytest.raises(NotFiniteError):
                    show(target, number)
    assert other.graphs.passes.recordings and not other.graphs.passes.refused
    assert not other.graphs.looks.refused
    other.graphs.looks.recordings.clear()       # the tower's was made with what it saw
    assert live(one) == live(other)
    agree(one, other)


def test_memory_that_was_never_written_spoils_nothing(monkeypatch):
    allocate = KVLayer._allocate

    def dirty(self, *args):
        allocate(self, *args)
        for buffer in (self.master, self.keys, self.values):
            buffer.fill_(torch.nan)

    monkeypatch.setattr(KVLayer, '_allocate', dirty)
    one, other = (session('llama', 'saddle', 160, graphs=some) for some in (False, True))
    assert live(one) == live(other)
    assert other.graphs.passes.recordings


class Deaf(Rehearsal):
    """Cannot record."""

    def warm(self, call):
        """Fail midway."""
        call()
        raise RuntimeError('operation not permitted when stream is capturing\nmore')


class Wrong(Rehearsal):
    """Repeats something else."""

    def record(self, call):
        """Spoil the outcome."""
        replay, out = super().record(call)

        def wrong():
            replay()
            out.last_hidden_state += 1
        return wrong, out


class Full(Rehearsal):
    """Has no room."""

    def record(self, call):
        """Fail after a part was done."""
        super().record(call)
        raise torch.OutOfMemoryError('CUDA out of memory')


@pytest.mark.parametrize('family', ['llama', 'qwen3_5_text'])
@pytest.mark.parametrize(('recorder', 'why'), [
    (Deaf, 'RuntimeError: operation not permitted when stream is capturing'),
    (Wrong, 'off by'), (Full, 'OutOfMemoryError: CUDA out of memory')])
def test_what_cannot_be_recorded_is_computed_plainly(monkeypatch, family, recorder, why):
    monkeypatch.setattr(graphs, 'recorder', recorder)
    one, other = (session(family, 'saddle', 160, graphs=some) for some in (False, True))
    assert live(one) == live(other)
    agree(one, other)
    passes = other.graphs.passes
    assert not passes.recordings and passes.refused
    assert all(why in reason and '\n' not in reason for reason in passes.refused.values())


def test_shapes_that_come_seldom_are_not_recorded_nor_more_than_there_is_room_for(monkeypatch):
    target = session('llama', 'saddle', 160, graphs=True)
    passes = target.graphs.passes
    for sighting in range(1, graphs.SIGHTINGS + 1):
        assert not passes.recordings
        target.tell(words(target.model, 20, sighting))
    assert len(passes.recordings) == 1
    monkeypatch.setattr(graphs, 'MOST', 3)
    for size in range(5, 15):
        for number in range(graphs.SIGHTINGS):
            target.tell(words(target.model, size, number))
    assert len(passes.recordings) == 3
    twin = session('llama', 'saddle', 160)
    for sighting in range(1, graphs.SIGHTINGS + 1):
        twin.tell(words(target.model, 20, sighting))
    for size in range(5, 15):
        for number in range(graphs.SIGHTINGS):
            twin.tell(words(target.model, size, number))
    agree(target, twin)


def test_the_model_still_serves_others():
    model = load('llama')
    decoder, ids = model.model.get_decoder(), words(load('llama'), 30, 0)
    expected = plain('llama').generate(input_ids=ids[None], max_new_tokens=8, do_sample=False,
                                       attention_mask=torch.ones_like(ids[None]))
    both = [session('llama', row, 160, graphs=True) for row in ('saddle', 'h2o')]
    alone = [live(session('llama', row, 160)) for row in ('saddle', 'h2o')]
    said = [[], []]
    for number in range(5):
        for target, heard in zip(both, said):
            heard += live(target, number, 1)
            assert 'forward' not in vars(decoder)
    assert said == alone
    assert model.model.generate(input_ids=ids[None], max_new_tokens=8, do_sample=False,
                                attention_mask=torch.ones_like(ids[None])).equal(expected)


def test_a_forward_of_someone_elses_is_kept():
    model = load('llama')
    decoder, calls = model.model.get_decoder(), []
    own = decoder.forward

    def hooked(*args, **kwargs):
        calls.append(1)
        return own(*args, **kwargs)

    one, other = (session('llama', 'saddle', 160, graphs=some) for some in (False, True))
    decoder.forward = hooked
    try:
        assert live(one) == live(other)
        assert vars(decoder)['forward'] is hooked and calls
    finally:
        del decoder.forward


@pytest.mark.parametrize('layout', ['lean', 'fused', 'int8'])
def test_other_layouts_are_not_recorded(layout):
    assert session('llama', 'saddle', 160, graphs=True, layout=layout).graphs is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('family', ['llama', 'llava_onevision', 'qwen2_5_vl', 'lfm2'])
def test_on_a_gpu(monkeypatch, family):
    monkeypatch.undo()
    model = load_model(str(folder(family)), device='cuda', dtype='float32')
    one, other = (StreamingSession(
        model, policy('saddle', 160), system_prompt='Be brief.', max_question=48, max_answer=16,
        chunk=40, graphs=some) for some in (False, True))
    assert live(one) == live(other)
    agree(one, other)
    assert other.graphs.passes.recordings and not other.graphs.passes.refused
    if model.adapter.sees:      # on two streams, and on one
        other.observe_many([picture(number) for number in range(9)], range(9))
        monkeypatch.setattr(lookout, 'side_of', lambda device: None)
        one.observe_many([picture(number) for number in range(9)], range(9))
        agree(one, other)


def test_a_device_may_be_named_without_its_number():
    model = replace(load('llama'), device=torch.device('cpu', 0))
    assert model.device != next(model.model.parameters()).device        # as 'cuda' and 'cuda:0'
    target = StreamingSession(
        model, policy('saddle', 160), max_question=48, max_answer=16, graphs=True)
    assert target.graphs is not None


def test_without_a_gpu_nothing_is_recorded(monkeypatch):
    monkeypatch.undo()
    assert session('llama', 'saddle', 160, graphs=True).graphs is None


def test_the_benchmark_of_a_gpu_tells_what_was_recorded(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, 'WINDOW', 4)
    monkeypatch.setattr(sys, 'argv', [
        'gpu.py', '--device', 'cpu', '--tiny', '--dtype', 'float32', '--out', str(tmp_path)])
    gpu.main()
    (row,) = json.loads((tmp_path / 'speed_gpu.json').read_text())['rows']
    assert row['ms'].keys() >= {'token', 'token, without graphs', 'frame, without graphs'}
    assert row['graphs'] == {'passes': '4 shapes recorded', 'looks': '2 shapes recorded'}


def test_the_rehearsal_refuses_what_a_gpu_would():
    """A double that let everything pass would prove nothing."""
    numbers = torch.arange(4.)
    for call in (lambda: numbers.sum().item(), lambda: numbers[numbers > 1],
                 lambda: numbers.nonzero(), lambda: bool(numbers[0]), lambda: torch.tensor([1.]),
                 lambda: numbers.clone().masked_select(numbers > 1)):
        with pytest.raises(RuntimeError, match='would wait'), NoWaiting():
            call()
    total = torch.zeros(4)
    replay, out = Rehearsal(None).record(lambda: total.add_(numbers) * 2)
    assert total.sum() == 0 and out.isnan().all()
    replay()
    numbers += 1
    replay()
    assert total.tolist() == [1, 3, 5, 7] and out.tolist() == [2, 6, 10, 14]
