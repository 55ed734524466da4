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

"""The worker, with a session that does what the test says."""

import gc
import threading
import time
import weakref

from infmllm_ros.node.loading import open_session
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.parameters import Settings
from infmllm_ros.node.questions import Status
from infmllm_ros.node.worker import Worker
import numpy as np
import pytest
from stand_ins import ask, hold, Session, TIMEOUT


def test_the_newest_frame_wins(worker, session, listener):
    hold(worker, session, listener)
    for number in range(4):
        worker.offer(Frame(number, 2 + number))
    session.gate.set()
    listener.wait(lambda: 3 in listener.seen)
    assert listener.seen == ['held', 3]
    assert worker.health().total('dropped') == 3


def test_a_question_sees_the_frame_that_waits_and_then_comes_first(worker, session, listener):
    worker.cameras[''].rate = 1e-6  # no frame is due after the first
    hold(worker, session, listener)
    worker.offer(Frame('waiting', 2))
    question = ask(worker)
    session.gate.set()
    assert listener.outcome(question).answer.stamp_ns == 2
    assert [name for name, *_ in session.calls] == ['observe', 'observe', 'ask']
    assert question.seen.message == 'waiting'


def test_frames_wait_for_the_rate_of_their_camera(worker, session, listener):
    worker.cameras[''].rate = 5
    start = time.monotonic()
    for number in range(3):
        worker.offer(Frame(number, number))
        listener.wait(lambda n=number: n in listener.seen)
    assert time.monotonic() - start >= 0.4  # a lower bound: it cannot fail on a slow machine


def test_a_bad_image_is_counted_reported_and_dropped(worker, session, listener):
    worker.offer(Frame(None, 1))
    listener.wait(lambda: listener.bad == ['no pixels'])
    worker.offer(Frame('good', 2))
    listener.wait(lambda: listener.seen == ['good'])
    assert worker.health().total('bad') == 1
    assert not listener.failures


def test_the_worker_survives_a_session_that_raises(worker, session, listener):
    session.error = RuntimeError('out of memory')
    worker.offer(Frame('lost', 1))
    listener.wait(lambda: listener.failures == [('frame', 'out of memory')])
    session.error = None
    worker.offer(Frame('good', 2))
    listener.wait(lambda: listener.seen == ['good'])
    session.error = RuntimeError('out of memory')
    outcome = listener.outcome(ask(worker))
    assert outcome.status == Status.FAILED
    assert 'out of memory' in outcome.message
    session.error = None
    assert listener.outcome(ask(worker)).status == Status.OK
    assert worker.health().failures == 2
    assert 'out of memory' in worker.health().last_failure


def test_a_frame_that_fails_takes_no_question_with_it(worker, session, listener):
    worker.offer(Frame('good', 1))
    listener.wait(lambda: listener.seen)
    worker.offer(Frame('due now', 2))
    listener.wait(lambda: len(listener.seen) == 2)
    worker.cameras[''].rate = 1e-6  # the next one is due never
    original, session.observe = session.observe, None  # any call raises TypeError
    worker.offer(Frame('broken', 3))
    question = ask(worker)
    assert listener.outcome(question).answer.stamp_ns == 2
    assert listener.failures[0][0] == 'frame'
    session.observe = original


def test_reset_forgets_also_the_frame_that_waits(worker, session, listener):
    hold(worker, session, listener)
    worker.offer(Frame('waiting', 2))
    done = worker.reset()
    session.gate.set()
    done.result(TIMEOUT)
    assert session.calls == [('observe', 'held'), ('reset',)]
    assert listener.outcome(ask(worker)).status == Status.NO_FRAME


def test_reset_keeps_the_frame_that_came_after_it(worker, session, listener):
    hold(worker, session, listener)
    done = worker.reset()
    worker.offer(Frame('later', 2))
    session.gate.set()
    done.result(TIMEOUT)
    listener.wait(lambda: 'later' in listener.seen)
    assert session.calls == [('observe', 'held'), ('reset',), ('observe', 'later')]


def test_pause_keeps_the_memory_and_takes_nothing(worker, session, listener):
    worker.offer(Frame('frame', 7))
    listener.wait(lambda: listener.seen)
    worker.pause()
    assert worker.wait_idle(TIMEOUT)
    worker.offer(Frame('unseen', 8))
    question = ask(worker)
    worker.cancel('still paused')
    assert listener.outcome(question).status == Status.CANCELLED
    worker.cameras.clear()
    worker.resume()
    assert listener.outcome(ask(worker)).answer.stamp_ns == 7
    assert listener.seen == ['frame']


def test_a_load_that_fails_tells_why_and_can_be_tried_again(listener, session):
    worker = Worker(listener)

    def refuse():
        raise ValueError('no such model')

    with pytest.raises(ValueError, match='no such model'):
        worker.load(refuse).result(TIMEOUT)
    worker.load(lambda: session).result(TIMEOUT)
    worker.resume()
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    assert worker.stop(TIMEOUT)


def test_stop_frees_the_session(listener):
    worker = Worker(listener)
    worker.load(Session).result(TIMEOUT)
    worker.resume()
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    alive = weakref.ref(worker._session)
    assert worker.stop(TIMEOUT)
    gc.collect()
    assert alive() is None


def test_stop_frees_a_real_model(listener, tiny):
    settings = Settings(model=tiny, budget_tokens=256, max_question_tokens=96)
    worker = Worker(listener)
    worker.load(lambda: open_session(settings, print)).result(TIMEOUT)
    worker.resume()
    worker.offer(Frame(np.zeros((32, 32, 3), np.uint8), 1))
    listener.wait(lambda: listener.seen)
    assert listener.outcome(ask(worker, settings={'max_tokens': 2})).status == Status.OK
    listener.outcomes.clear()
    alive = [weakref.ref(worker._session), weakref.ref(worker._session.model.model)]
    assert worker.stop(TIMEOUT)
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_stop_does_not_wait_for_ever(worker, session, listener):
    hold(worker, session, listener)
    assert not worker.stop(0.05)
    assert worker.health().job == 'frame'
    pending = worker.reset()
    session.gate.set()
    assert worker.stop(TIMEOUT)
    with pytest.raises(RuntimeError, match='cleaned up'):
        pending.result(TIMEOUT)


def test_without_a_thread_the_work_is_done_by_the_caller_on_a_clock_of_its_own(session, listener):
    now = [100.0]
    worker = Worker(listener, clock=lambda: now[0], thread=False)
    before = threading.active_count()
    loaded = worker.load(lambda: session)
    assert not loaded.done()
    worker.run_pending()
    assert loaded.result(0) is None
    worker.resume()
    camera, = worker.cameras
    camera.rate = 2.0
    worker.offer(Frame('a', 1))
    assert worker.run_pending() == float('inf')
    now[0] += 0.125
    worker.offer(Frame('b', 2))
    assert worker.run_pending() == 0.375, 'half a second after the first'
    assert listener.seen == ['a']
    now[0] += 0.375
    question = ask(worker)
    assert question not in listener.outcomes
    worker.run_pending()
    assert listener.seen == ['a', 'b']
    assert listener.outcomes[question].status == Status.OK
    worker.offer(Frame(None, 3))
    now[0] += 1
    worker.run_pending()
    assert listener.bad == ['no pixels']
    assert threading.active_count() == before
    late = worker.reset()
    assert worker.stop(0)
    assert 'cleaned up' in str(late.exception(0))


def test_what_needs_a_memory_says_so_where_there_is_none(listener):
    worker = Worker(listener)
    assert 'no memory' in worker.misfit(64)
    for job in (worker.reset(), worker.tell('a text'), worker.set_budget(64)):
        with pytest.raises(RuntimeError, match='there is no memory: clean the node up'):
            job.result(TIMEOUT)
    assert worker.stop(TIMEOUT)
