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

"""Several cameras, one model: whose turn it is, and what a question looks at."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from infmllm_ros.node.cameras import Camera, Cameras
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.questions import Status
from infmllm_ros.node.worker import Worker
import numpy as np
import pytest
from stand_ins import ask, grey, show, TIMEOUT, Watches

RATES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0, 30.0]), min_size=1, max_size=5)


def looks(rates, seconds_each, count):
    """Let a model that takes so long a frame look at cameras that always have one waiting."""
    cameras, now, turns = Cameras([f'camera_{n}' for n in range(len(rates))]), 100.0, []
    for camera, rate in zip(cameras, rates, strict=True):
        camera.rate = rate
    while len(turns) < count:
        for camera in cameras:
            camera.mailbox.put(Frame(None, 0, camera=camera.name))
        chosen = cameras.next(now)
        if isinstance(chosen, Camera):
            chosen.take(now)
            turns.append((now, chosen.name))
            now += seconds_each
        else:
            assert chosen > 0
            now += chosen + 1e-9
    return turns


def wanted(rates):
    """Say how much each camera wants: one without a rate as much as the fastest with one."""
    fastest = max(rates) or 1.0
    return [rate or fastest for rate in rates]


@given(RATES, st.floats(0.01, 2.0))
def test_no_camera_starves(rates, seconds_each):
    turns, wants = looks(rates, seconds_each, 120), wanted(rates)
    for number, want in enumerate(wants):
        name = f'camera_{number}'
        times = [now for now, who in turns if who == name]
        gaps = np.diff([turns[0][0], *times, turns[-1][0]])
        share = sum(wants) / want * seconds_each  # [s] its turn comes when the model is the limit
        assert gaps.max() <= max(1 / want, share) + 2 * len(rates) * seconds_each


@given(RATES, st.floats(0.01, 2.0))
def test_no_camera_is_looked_at_more_often_than_it_wants(rates, seconds_each):
    turns = looks(rates, seconds_each, 100)
    for number, rate in enumerate(rates):
        times = [now for now, name in turns if name == f'camera_{number}']
        if rate:
            assert all(gap >= 1 / rate - 1e-6 for gap in np.diff(times))


@pytest.mark.parametrize(('rates', 'shares'), [
    ((0, 0), (1 / 2, 1 / 2)), ((0, 0, 0), (1 / 3, 1 / 3, 1 / 3)), ((2, 6), (1 / 4, 3 / 4)),
    ((10, 0), (1 / 2, 1 / 2)), ((1, 2, 5), (1 / 8, 1 / 4, 5 / 8))])
def test_a_slow_model_is_shared_about_in_proportion_to_the_rates(rates, shares):
    found = Counter(name for _, name in looks(rates, 1.0, 240))
    for number, share in enumerate(shares):
        assert found[f'camera_{number}'] / 240 == pytest.approx(share, abs=0.1)


def test_a_camera_that_was_away_goes_first():
    cameras = Cameras(['busy', 'rare'])
    for now in (1.0, 2.0):
        cameras['busy'].mailbox.put(Frame(None, 0))
        assert cameras.next(now) is cameras['busy']
        cameras['busy'].take(now)
    for camera in cameras:
        camera.mailbox.put(Frame(None, 0))
    assert cameras.next(3.0) is cameras['rare']
    cameras.clear()
    assert cameras.next(3.0) is None


@pytest.fixture
def worker(session, listener):
    """Make an active worker with two cameras."""
    worker = Worker(listener, cameras=('front', 'left'))
    worker.load(lambda: session).result(TIMEOUT)
    worker.resume()
    yield worker
    assert worker.stop(TIMEOUT)


def test_a_question_is_answered_from_the_newest_frame_of_its_camera(worker, session, listener):
    show(worker, listener, 'left', 5)
    show(worker, listener, 'front', 3)
    answers = [ask(worker, camera=camera) for camera in ('front', 'left', 'front', '')]
    for question in answers:
        assert listener.outcome(question).status == Status.OK
    assert [(q.seen.camera, q.seen.stamp_ns) for q in answers] == [
        ('front', 3), ('left', 5), ('front', 3), ('left', 5)]
    # The frame asked about comes last: with the question where others came after it.
    assert session.calls == [('observe', 5), ('observe', 3), ('ask', 'what?'),
                             ('ask', 'what?', (5, 5, 'left')), ('ask', 'what?'), ('ask', 'what?')]


def test_a_frame_shown_again_stays_with_a_question_that_stays(worker, session, listener):
    show(worker, listener, 'left', 5)
    show(worker, listener, 'front', 3)
    for _ in range(2):
        question = ask(worker, camera='left', settings={'remember': True})
        assert listener.outcome(question).status == Status.OK
    assert session.calls == [('observe', 5), ('observe', 3), ('observe', 5), ('ask', 'what?'),
                             ('ask', 'what?')]
    assert listener.seen == [5, 3]  # not counted again
    assert worker.health().newest.camera == 'left'


def test_after_time_went_back_the_newest_frame_is_of_the_new_time(worker, listener):
    # the left camera stops when the bag begins anew, and its stamps are larger
    frames = [Frame('old', 900, camera='left'), Frame('new', 100, camera='front', lap=1)]
    for frame in frames:
        worker.offer(frame)
        listener.wait(lambda frame=frame: frame.message in listener.seen)
    late = Frame('late', 901, camera='left')  # sent before, came after
    worker.offer(late)
    listener.wait(lambda: 'late' in listener.seen)
    seen = [listener.outcome(question) and question.seen
            for question in (ask(worker), ask(worker, camera='left'))]
    assert seen == [frames[1], late]


def test_a_question_looks_at_the_waiting_frame_of_its_camera_alone(worker, session, listener):
    for camera in worker.cameras:
        camera.rate = 1e-6  # no frame is due after the first
    show(worker, listener, 'front', 1)
    show(worker, listener, 'left', 2)
    for camera, stamp in (('front', 3), ('left', 4)):
        worker.offer(Frame(stamp, stamp, camera=camera))
    question = ask(worker, camera='left')
    assert listener.outcome(question).status == Status.OK
    assert (question.seen.stamp_ns, listener.seen) == (4, [1, 2, 4])
    everywhere = ask(worker)
    assert listener.outcome(everywhere).status == Status.OK
    assert (everywhere.seen.stamp_ns, listener.seen) == (4, [1, 2, 4, 3])


def test_a_watch_looks_at_the_newest_frame_of_its_camera(worker, session, listener):
    watches = worker._watches = Watches()
    show(worker, listener, 'front', 1)
    show(worker, listener, 'left', 2)
    assert worker.wait_idle(TIMEOUT)
    watches.camera, watches.due = 'front', 2
    show(worker, listener, 'left', 3)
    listener.wait(lambda: not watches.due)
    assert worker.wait_idle(TIMEOUT)
    asked = ('watch', 1, (1, 1, 'front'))  # shown again, as frames of the other camera are newer
    assert session.calls == [('observe', 1), ('observe', 2), asked, ('observe', 3), asked]


def test_watches_and_cameras_take_turns(worker, session, listener):
    watches = worker._watches = Watches()
    show(worker, listener, 'front', 1)
    session.gate.clear()
    session.entered.clear()
    worker.offer(Frame(2, 2, camera='left'))
    assert session.entered.wait(TIMEOUT)
    watches.due = 5
    for camera, stamp in (('left', 4), ('front', 3)):
        worker.offer(Frame(stamp, stamp, camera=camera))
    session.gate.set()
    listener.wait(lambda: len(listener.seen) == 4)
    listener.wait(lambda: not watches.due)
    assert worker.wait_idle(TIMEOUT)
    assert [name for name, *_ in session.calls] == [
        'observe', 'observe', 'watch', 'observe', 'watch', 'observe', *['watch'] * 3]
    assert listener.seen == [1, 2, 3, 4]  # front waited for longer


def test_a_reset_keeps_the_frames_that_came_after_it(worker, session, listener):
    show(worker, listener, 'front', 1)
    session.gate.clear()
    session.entered.clear()
    worker.offer(Frame(2, 2, camera='left'))
    assert session.entered.wait(TIMEOUT)
    worker.offer(Frame('old', 3, camera='front'))
    done = worker.reset()
    worker.offer(Frame('new', 1, camera='front'))
    session.gate.set()
    done.result(TIMEOUT)
    listener.wait(lambda: 'new' in listener.seen)
    assert listener.seen == [1, 2, 'new']
    assert listener.outcome(ask(worker, camera='left')).status == Status.NO_FRAME


def test_a_memory_put_in_place_stands_for_what_its_camera_showed(worker, session, listener):
    show(worker, listener, 'front', 1)
    saved = Frame(None, 9, camera='left')
    worker.use('load', lambda session: worker.recall(saved)).result(TIMEOUT)
    answers = [ask(worker, camera=camera) for camera in ('left', '', 'front')]
    assert [listener.outcome(question).status for question in answers] == [
        Status.OK, Status.OK, Status.NO_FRAME]
    assert [question.seen for question in answers] == [saved, saved, None]
    show(worker, listener, 'front', 2)  # a clock that was set back counts for nothing
    answers = [ask(worker, camera=camera) for camera in ('left', '')]
    assert [listener.outcome(question).status for question in answers] == [Status.OK] * 2
    assert [question.seen.stamp_ns for question in answers] == [9, 2]
    assert [call for call in session.calls if 'observe' in call] == [
        ('observe', 1), ('observe', 2)]
    assert all(len(call) == 2 for call in session.calls)  # nothing to show again: it has no pixels


def test_a_camera_that_has_shown_nothing_yet_is_named(worker, session, listener):
    show(worker, listener, 'front', 1)
    outcome = listener.outcome(ask(worker, camera='left'))
    assert outcome.status == Status.NO_FRAME
    assert "'left'" in outcome.message
    worker.reset().result(TIMEOUT)
    assert listener.outcome(ask(worker, camera='front')).status == Status.NO_FRAME


def test_every_frame_of_every_camera_is_counted_once(worker, session, listener):
    worker.cameras['front'].gate.min_change = 0.1
    show(worker, listener, 'front', 1, 100)
    worker.offer(Frame(grey(101), 2, camera='front'))
    listener.wait(lambda: worker.cameras['front'].tally().similar)
    show(worker, listener, 'left', 3, 101)
    show(worker, listener, 'left', 4, 101)  # its gate is open
    worker.offer(Frame(None, 5, camera='left'))
    listener.wait(lambda: listener.bad)
    session.gate.clear()
    session.entered.clear()
    worker.offer(Frame(grey(0), 6, camera='left'))
    assert session.entered.wait(TIMEOUT)
    for stamp in (7, 8):
        worker.offer(Frame(grey(200), stamp, camera='front'))
    session.gate.set()
    listener.wait(lambda: len(listener.seen) == 5)
    front, left = worker.health().cameras
    assert (front.received, front.seen, front.dropped, front.similar, front.bad) == (4, 2, 1, 1, 0)
    assert (left.received, left.seen, left.dropped, left.similar, left.bad) == (4, 3, 0, 0, 1)
    assert (front.newest.stamp_ns, left.newest.stamp_ns) == (8, 6)
    assert worker.health().total('seen') == 5


def test_a_question_sees_a_frame_that_the_gate_would_keep_out(worker, session, listener):
    front = worker.cameras['front']
    front.gate.min_change, front.rate = 0.5, 1e-6
    show(worker, listener, 'front', 1, 100)
    worker.offer(Frame(grey(101), 2, camera='front'))
    question = ask(worker, camera='front')
    assert listener.outcome(question).status == Status.OK
    assert question.seen.stamp_ns == 2


def test_a_frame_that_cannot_be_shown_again_takes_no_question_with_it(worker, session, listener):
    show(worker, listener, 'front', 1)
    show(worker, listener, 'left', 2)
    listener.decode = None  # any call raises TypeError
    question = ask(worker, camera='front')
    assert listener.outcome(question).status == Status.OK
    assert question.seen.stamp_ns == 1
    assert listener.failures[0][0] == 'frame'
