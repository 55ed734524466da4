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

"""A memory outlives its process; a torn or foreign file is refused (invariant 7)."""

import json
from pathlib import Path
import random
import subprocess
import sys

from infmllm_ros.engine import load_model, MemoryFileError, persist, StreamingSession
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from zoo import folder, holders, load, POLICIES, session, show, words

FAMILIES = ('smolvlm', 'qwen2_5_vl', 'llama', 'gemma3', 'lfm2_vl', 'qwen3_5_text')

REVIVE = """
import json, sys
import torch
from infmllm_ros.engine import load_model, StreamingSession
torch.set_num_threads(1)
out = []
for folder, path in json.loads(sys.argv[1]):
    model = load_model(folder, device='cpu', dtype='float32')
    session = StreamingSession.load(path, model)
    layers = [n for n, layer in enumerate(session.cache.layers) if hasattr(layer, 'slots')]
    kept = [session.kept(layer).tolist() for layer in layers]
    answer = session.answer('Where is the cup?', max_tokens=8)
    session.tell(torch.arange(40, 70))
    out.append([kept, answer.text, answer.stamp_ns, [list(vars(e).values()) for e in
                answer.evidence], session.kept(0).tolist(), session.stats().frames_seen,
                session.stats().tokens_seen])
print('REVIVED' + json.dumps(out))
"""


def lived(family, row):
    """Start a session and let it live past a few evictions."""
    target = session(family, row, 900 if row == 'full' else 160, remember=False)
    for number in range(5):
        if load(family).adapter.sees:
            show(target, number)
        target.tell(words(load(family), 25, number))
    return target


def test_a_new_process_remembers_and_answers_alike(tmp_path):
    import torch
    work, expected = [], []
    for family in FAMILIES:
        for row in POLICIES:
            target = lived(family, row)
            path = tmp_path / f'{family}-{row}.memory'
            target.save(path)
            work.append((str(folder(family)), str(path)))
            kept = [target.kept(layer).tolist() for layer in holders(target)]
            answer = target.answer('Where is the cup?', max_tokens=8)
            target.tell(torch.arange(40, 70))  # the policy's own scores must have come along
            expected.append([kept, answer.text, answer.stamp_ns,
                             [list(vars(e).values()) for e in answer.evidence],
                             target.kept(0).tolist(), target.stats().frames_seen,
                             target.stats().tokens_seen])
    child = subprocess.run([sys.executable, '-c', REVIVE, json.dumps(work)],
                           capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout.split('REVIVED')[1])
    for (_, path), one, other in zip(work, found, json.loads(json.dumps(expected))):
        evidence, own = one.pop(3), other.pop(3)
        assert one == other, path
        assert [e[:3] for e in evidence] == [e[:3] for e in own]


def test_the_newest_frame_is_known_after_all_frames_are_forgotten(tmp_path):
    model = load('llava_onevision')
    target = session('llava_onevision', 'streaming_llm', 84, max_question=16, chunk=64)
    for number in range(5):
        show(target, number)
    for number in range(4):
        target.tell(words(model, 60, number))
    assert target.stats().frames_retained == 0 and target.newest.ordinal == 4
    target.save(tmp_path / 'memory')
    revived = StreamingSession.load(tmp_path / 'memory', model)
    assert revived.newest == target.newest
    assert revived.answer('Where?', max_tokens=2).stamp_ns == 4 * 10**9


def refusal(path, model):
    """Load what must not load; return the one line that says why."""
    with pytest.raises(MemoryFileError) as refused:
        StreamingSession.load(path, model)
    assert '\n' not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize('share', [0.0, 0.3, 0.99])
def test_a_torn_file_is_refused(share, tmp_path):
    path = tmp_path / 'memory'
    lived('smolvlm', 'saddle').save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(len(whole) * share)])
    assert 'memory' in refusal(path, load('smolvlm'))


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / 'noise').write_bytes(bytes(range(256)) * 40)
    assert 'noise' in refusal(tmp_path / 'noise', load('llama'))
    assert 'absent' in refusal(tmp_path / 'absent', load('llama'))


@pytest.mark.parametrize('other', ['qwen2', 'qwen3', 'smolvlm'])
def test_the_memory_of_another_model_is_refused(other, tmp_path):
    lived('llama', 'saddle').save(tmp_path / 'memory')
    refusal(tmp_path / 'memory', load(other))


def test_the_memory_of_other_weights_is_refused(tmp_path):
    from infmllm_ros.bundled.tiny import make_tiny
    lived('llama', 'saddle').save(tmp_path / 'memory')
    make_tiny('llama', tmp_path / 'other', seed=1)
    refusal(tmp_path / 'memory', load_model(
        str(tmp_path / 'other'), device='cpu', dtype='float32'))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'memory'
    target = lived('llama', 'saddle')
    target.save(path)
    target.save(path)  # over itself
    assert [file.name for file in tmp_path.iterdir()] == ['memory']
    with pytest.raises((OSError, MemoryFileError)):
        target.save(tmp_path / 'no' / 'such' / 'folder' / 'memory')
    assert StreamingSession.load(path, load('llama')).kept(0).equal(target.kept(0))


@pytest.mark.parametrize('family', FAMILIES)
def test_a_memory_is_put_in_the_place_of_another(family, tmp_path):
    one = lived(family, 'saddle')
    one.save(tmp_path / 'memory', {'camera frame': b'\x00lens\xff', 'none': b''})
    expected = one.answer('Where is the cup?', max_tokens=8)
    other = session(family, 'saddle', 160, remember=False)
    other.tell(words(load(family), 90, 7))
    buffers = other.cache.nbytes()
    assert other.restore(tmp_path / 'memory') == {'camera frame': b'\x00lens\xff', 'none': b''}
    answer = other.answer('Where is the cup?', max_tokens=8)
    assert answer.token_ids == expected.token_ids and answer.stamp_ns == expected.stamp_ns
    assert other.stats().frames_seen == one.stats().frames_seen
    assert other.cache.nbytes() == buffers
    for target in (one, other):     # and goes on alike
        target.tell(words(load(family), 60, 8))
    assert all(other.kept(n).equal(one.kept(n)) for n in holders(one))


def contents(target):
    """Everything that a session's next answer depends on."""
    return {name: view.clone() for name, view in persist._views(target).items()}


@pytest.mark.parametrize(('row', 'budget', 'options', 'named'), [
    ('streaming_llm', 160, {}, "policy 'saddle'"),
    ('saddle', 120, {}, 'budget 160'),
    ('saddle', 160, {'system_prompt': 'Watch the door.'}, "system_prompt 'Be brief.'"),
])
def test_a_memory_of_another_kind_leaves_this_one_as_it_was(row, budget, options, named, tmp_path):
    lived('smolvlm', 'saddle').save(tmp_path / 'memory')
    target = session('smolvlm', row, budget, **options)
    show(target, 9)
    before = contents(target)
    with pytest.raises(MemoryFileError, match=named):
        target.restore(tmp_path / 'memory')
    after = contents(target)
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert target.newest.ordinal == 0 and target.stats().frames_seen == 1


def test_a_memory_of_a_smaller_budget_is_taken_and_may_grow(tmp_path):
    small = lived('smolvlm', 'saddle')
    small.set_budget(120)
    small.save(tmp_path / 'memory')
    target = session('smolvlm', 'saddle', 160)
    target.restore(tmp_path / 'memory')
    assert target.kept(0).equal(small.kept(0))
    show(target, 99)
    assert 120 < target.stats().tokens <= target.stats().budget == 160


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    path, model = tmp_path / 'memory', load('llama')
    lived('llama', 'saddle').save(path, {'note': b'a note'})
    whole = bytearray(path.read_bytes())
    dice = random.Random(0)
    header = int.from_bytes(whole[:8], 'little')
    places = [dice.randrange(header) for _ in range(30)] + [
        dice.randrange(header, len(whole)) for _ in range(30)]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)])
                         + whole[place + 1:])
        refusal(path, model)


def test_a_file_that_says_more_than_a_memory_needs_changes_nothing_else(tmp_path):
    """A forged counter is no way to write into a session."""
    path, model = tmp_path / 'memory', load('llama')
    target = lived('llama', 'saddle')
    target.save(path)
    with safe_open(path, 'pt') as file:
        header = json.loads(file.metadata()['infmllm'])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    header['counters']['model'] = None
    header = json.dumps(header)
    save_file(tensors, path, {'infmllm': header, 'digest': persist._digest(header, tensors)})
    assert StreamingSession.load(path, model).model is model
