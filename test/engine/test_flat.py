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

"""Nothing grows with the length of the stream (invariant 8)."""

import gc
from pathlib import Path

import pytest
import torch
import zoo
from zoo import load, POLICIES, session, show, SIGHTED, words

STATUS = Path('/proc/self/statm')


@pytest.fixture(autouse=True)
def _young():
    """Let the collector look at what the test makes alone: the rest is a million objects."""
    gc.freeze()
    yield
    gc.unfreeze()


def living_tensors() -> int:
    """Count the tensors that are alive."""
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize(('family', 'row'), [
    (SIGHTED[number % len(SIGHTED)], row) for number, row in enumerate(POLICIES)
    if row != 'full'])
def test_two_hundred_frames_leave_nothing_behind(family, row):
    model = load(family)
    target = session(family, row, 160, remember=True)

    def live(start, stop):
        for number in range(start, stop):
            show(target, number)
            if number % 10 == 0:
                target.tell(words(model, 20, number))
                target.answer('Where is the cup?', max_tokens=4, remember=number % 20 == 0)

    live(0, 60)
    capacity, buffers = target.stats().capacity, zoo.buffers(target)
    alive, sizes = living_tensors(), held(target)
    live(60, 240)
    assert (target.stats().capacity, zoo.buffers(target)) == (capacity, buffers)
    assert living_tensors() <= alive + 4
    grown = {path: (sizes.get(path), size) for path, size in held(target).items()
             if path != 'session.frames' and size > sizes.get(path, 0) + 100}
    assert not grown, 'a container of the session grew with the stream'
    assert target.frames_seen == target.stats().frames_seen == 240
    assert target.stats().frames_retained < 160
    assert target.newest.ordinal == 239


def held(thing, path: str = 'session', met: set | None = None) -> dict[str, int]:
    """Measure every container and tensor that a session holds: entries, by where it is kept."""
    met = set() if met is None else met
    if id(thing) in met or isinstance(thing, (torch.nn.Module, type)):
        return {}
    met.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return {path: thing.numel()}
    if isinstance(thing, dict):
        inside, size = list(thing.items()), len(thing)
    elif hasattr(thing, '__len__') and hasattr(thing, '__iter__') and not isinstance(thing, str):
        inside, size = list(enumerate(thing)), len(thing)
    elif type(thing).__module__.startswith('infmllm_ros'):
        inside, size = list(getattr(thing, '__dict__', {}).items()), 0
    else:
        return {}
    found = {path: size}
    if len(inside) <= 2000:
        for name, part in inside:
            found.update(held(part, f'{path}.{name}', met))
    return found


@pytest.mark.skipif(not STATUS.exists(), reason='resident memory is read from /proc')
def test_resident_memory_stays(monkeypatch):
    model = load('smolvlm')
    target = session('smolvlm', 'saddle', 160)

    def resident():
        return int(STATUS.read_text().split()[1]) * 4096

    def live(start, stop):
        for number in range(start, stop):
            show(target, number % 7)
            if number % 10 == 0:
                target.tell(words(model, 20, number))
                target.answer('Where is the cup?', max_tokens=4)

    live(0, 150)
    before = resident()
    live(150, 450)
    assert resident() - before < 4 * 2**20
    assert len(target.frames) < 450, 'what is no longer held is not looked up for ever'
