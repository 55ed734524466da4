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

"""Nothing is lost without a word: each frame has one fate, each question one reply."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from infmllm_ros.engine import ContextFull
from infmllm_ros.node import relief
from infmllm_ros.node import worker as worker_module
from infmllm_ros.node.mailbox import FATES, Frame, Mailbox
from infmllm_ros.node.questions import BUSY, Question
from infmllm_ros.node.worker import Worker
import pytest
from stand_ins import Listener, Session
import torch

FAILURES = {'vision': torch.OutOfMemoryError('CUDA out of memory'), 'full': ContextFull('full'),
            'bug': KeyError('bug')}
FRAMES = ['good', 'repeats', 'bad', *FAILURES]
STEPS = st.lists(st.one_of(
    st.tuples(st.just('offer'), st.sampled_from('ab'), st.sampled_from(FRAMES)),
    st.tuples(st.just('ask'), st.sampled_from(['', 'a']), st.sampled_from(['good', *FAILURES])),
    st.tuples(st.just('busy'), st.sampled_from(BUSY)),
    st.tuples(st.sampled_from(['work', 'cancel', 'reset', 'pause', 'resume', 'give_up']))),
    max_size=40)


class Faulty(Session):
    """Fails, or finds a frame to repeat the last one, as the frame or question says."""

    def __init__(self):
        super().__init__()
        self.fates = Counter()
        self.skipped = 0

    def observe(self, image, stamp_ns, camera):
        if image in FAILURES:
            self.fates[camera, 'failed'] += 1
            raise FAILURES[image]
        self.skipped += image == 'repeats'
        self.fates[camera, 'skipped' if image == 'repeats' else 'seen'] += 1
        super().observe(image, stamp_ns, camera)

    def ask(self, question, **settings):
        if question in FAILURES:
            raise FAILURES[question]
        return super().ask(question, **{'frame': None, **settings})

    def reset(self):
        self.skipped = 0
        super().reset()

    def stats(self):
        return replace(super().stats(), frames_skipped=self.skipped)


class Counting(Listener):
    """Counts the ends of each question, and the bad images."""

    def __init__(self):
        super().__init__()
        self.ends = Counter()

    def decode(self, message):
        return super().decode(None if message == 'bad' else message)

    def answered(self, question, outcome):
        self.ends[question] += 1

    def bad_image(self, frame, reason):
        self.bad.append(frame.camera)


@pytest.fixture(scope='module', autouse=True)
def uncollected():
    """Have no garbage collected, which takes most of the time and nothing here needs."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((relief, 'relieve'), (worker_module, 'release')):
            patch.setattr(module, name, lambda *whole: None)
        yield


@given(STEPS)
def test_each_frame_has_one_fate_and_each_question_one_reply(steps):
    listener, session = Counting(), Faulty()
    worker = Worker(listener, queue_size=2, cameras=['a', 'b'], thread=False)
    worker.load(lambda: session)
    worker.run_pending()
    worker.resume()
    offered, asked = Counter(), []
    for name, *values in steps:
        if name == 'offer':
            offered[values[0]] += 1
            worker.offer(Frame(values[1], sum(offered.values()), camera=values[0]))
        elif name == 'ask':
            asked.append(Question(values[1], camera=values[0]))
            worker.ask(asked[-1])
        elif name == 'busy':
            worker.questions.busy, = values
        elif name == 'work':
            worker.run_pending()
        else:
            getattr(worker, name)(*['no reason'] * (name in ('cancel', 'give_up')))
        health = worker.health()
        for tally in health.cameras:
            fates = {fate: getattr(tally, fate) for fate in FATES}
            assert tally.received == offered[tally.name] == sum(fates.values()) + tally.waiting
            assert tally.waiting in (0, 1)
            assert sum(tally.causes.values()) == fates['failed']
            known = {fate: session.fates[tally.name, fate]
                     for fate in ('seen', 'skipped', 'failed')}
            assert known.items() <= fates.items()
            assert fates['bad'] == listener.bad.count(tally.name)
        assert len(asked) == sum(listener.ends.values()) + health.waiting
    worker.stop(0)
    assert listener.ends == Counter(asked)


@pytest.mark.parametrize('failure', FAILURES)
def test_failed_frames_are_counted_by_their_cause(failure):
    worker = Worker(Listener(), thread=False)
    worker.load(Faulty)
    worker.run_pending()
    worker.resume()
    for stamp in range(3):
        worker.offer(Frame(failure, stamp))
        worker.run_pending()
    tally, = worker.health().cameras
    assert tally.causes == {type(FAILURES[failure]).__name__: 3}
    assert worker.health().failures == 3


def test_a_frame_is_settled_once():
    worker = Worker(Listener(), thread=False)
    box = worker.cameras[''].mailbox
    box.put(Frame('image', 1))
    frame = box.take()
    assert box.counts()['waiting'] == 1
    assert box.settle(None, 'failed', 'hung')
    assert not box.settle(frame, 'seen')
    box.put(Frame('image', 1))
    again = box.take()
    assert not box.settle(frame, 'seen'), 'one that is like another is not the other'
    assert box.settle(again, 'dropped')
    assert box.counts()['failed'] == 1 and box.counts()['seen'] == box.counts()['waiting'] == 0


def test_mailbox_keeps_the_newest_and_counts_what_it_drops():
    none = {'seen': 0, 'skipped': 0, 'similar': 0, 'bad': 0, 'failed': 0, 'causes': {}}
    box = Mailbox()
    for number in range(5):
        box.put(Frame(number, number))
    assert box.take().message == 4
    assert box.take() is None
    assert box.counts() == {'received': 5, 'dropped': 4, 'waiting': 1, **none}
    box.put(Frame(5, 5))
    box.clear()
    assert not box.waiting
    assert box.counts() == {'received': 6, 'dropped': 5, 'waiting': 1, **none}
