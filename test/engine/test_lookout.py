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

"""A backlog's next frames pass the vision tower while the last ones are read, on a side stream."""

from contextlib import contextmanager

from backlogs import memory, shots
from infmllm_ros.engine import lookout, StreamingSession
import pytest
import torch
from zoo import session, SIGHTED


@pytest.fixture
def events(monkeypatch):
    """Stand in for a GPU's side stream; list what is done, and where."""
    done = []

    class Side:
        inside = False

        @contextmanager
        def at_work(self):
            Side.inside = True
            try:
                yield
            finally:
                Side.inside = False

        def join(self):
            done.append('join')

    look, feed = lookout.Lookout._look, StreamingSession.feed

    def seen(self, number):
        chunks = look(self, number)
        done.append(('look', len(chunks), Side.inside))
        return chunks

    def fed(self, chunk, role, **options):
        done.append('begin')
        out = feed(self, chunk, role, **options)
        done.append('end')
        return out

    monkeypatch.setattr(lookout.Lookout, '_look', seen)
    monkeypatch.setattr(StreamingSession, 'feed', fed)
    monkeypatch.setattr(lookout, 'side_of', lambda device: Side())
    return done


def test_frames_are_looked_at_while_those_before_them_are_read(events):
    target = session('llava_onevision', 'saddle', 160, chunk=25)
    size = target.adapter.frame_tokens
    each = 25 // size
    events.clear()
    target.observe_many(*shots(2 * each + 1))
    assert events == [
        ('look', each, False),
        'begin', ('look', each, True), 'end', 'join',
        'begin', ('look', 1, True), 'end', 'join',
        'begin', 'end']
    assert each > 1


@pytest.mark.parametrize('family', SIGHTED)
def test_the_memory_is_the_same(monkeypatch, family, request):
    plain, ahead = (session(family, 'saddle', 200, chunk=90) for _ in range(2))
    taken = shots(9)
    plain.observe_many(*taken)
    request.getfixturevalue('events')
    ahead.observe_many(*taken)
    assert memory(plain) == memory(ahead)
    for one, other in zip(plain.cache.full, ahead.cache.full):
        assert one.plain(slice(0, 50)).equal(other.plain(slice(0, 50)))


def test_a_failed_look_ahead_takes_nothing_from_the_pass_at_work(events, monkeypatch):
    target, twin = (session('smolvlm', 'saddle', 400, chunk=60) for _ in range(2))
    images, stamps, cameras = shots(6)
    look = lookout.Lookout._look

    def fail(self, number):
        if number == 1:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return look(self, number)

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(lookout.Lookout, '_look', fail)
        target.observe_many(images, stamps, cameras)
    entered = target.stats().frames_seen
    assert entered == 3
    twin.observe_many(images[:entered], stamps[:entered], cameras[:entered])
    assert memory(target) == memory(twin)
    target.observe_many(images, [stamp + 10 ** 10 for stamp in stamps], cameras)


def test_on_a_processor_there_is_nothing_beside():
    assert lookout.side_of(torch.device('cpu')) is None
