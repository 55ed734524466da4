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

"""Watches at the worker: when their turn comes, and what comes before."""

from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.questions import Status
import pytest
from stand_ins import ask, hold, names, TIMEOUT, Watches


@pytest.fixture
def watches(worker, session):
    worker._watches = Watches()
    return worker._watches


def test_frames_and_watches_take_turns_and_then_the_watches_go_on(
        worker, watches, session, listener):
    hold(worker, session, listener)
    watches.due = 4
    worker.offer(Frame('next', 2))
    session.gate.set()
    listener.wait(lambda: listener.seen == ['held', 'next'])
    assert worker.wait_idle(TIMEOUT)
    assert session.calls == [('observe', 'held'), ('watch', 'held'), ('observe', 'next'),
                             *[('watch', 'next')] * 3]


def see_then_hold(worker, session, listener):
    """Have a frame seen, and whatever comes next held at the gate."""
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    assert worker.wait_idle(TIMEOUT)
    session.gate.clear()
    session.entered.clear()


@pytest.mark.parametrize('busy', ['queue', 'newest', 'interrupt', 'reject'])
def test_a_question_waits_for_the_running_watch_only(worker, watches, session, listener, busy):
    worker.questions.busy = busy
    see_then_hold(worker, session, listener)
    watches.due = 3
    worker.offer(Frame('next', 2))
    assert session.entered.wait(TIMEOUT)
    assert names(session) == ['observe', 'watch']
    question = ask(worker)
    session.gate.set()
    assert listener.outcome(question).status == Status.OK
    assert names(session)[:4] == ['observe', 'watch', 'observe', 'ask']
    assert worker.wait_idle(TIMEOUT)
    assert names(session)[4:] == ['watch', 'watch']
    assert watches.told == 3


def test_a_watch_that_fails_is_reported_and_stops_nothing(worker, watches, session, listener):
    worker.offer(Frame('good', 1))
    listener.wait(lambda: listener.seen)
    assert worker.wait_idle(TIMEOUT)
    session.error = RuntimeError('out of memory')
    watches.due = 1
    worker.offer(Frame('next', 2))
    listener.wait(lambda: listener.failures)
    assert listener.failures[0] == ('watch', 'out of memory')
    session.error = None
    assert listener.outcome(ask(worker)).status == Status.OK


def test_no_watch_runs_without_a_frame_nor_while_paused(worker, watches, session, listener):
    watches.due = 1
    assert listener.outcome(ask(worker)).status == Status.NO_FRAME
    assert worker.wait_idle(TIMEOUT)
    watches.due = 0
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    worker.pause()
    watches.due = 1
    worker.reset().result(TIMEOUT)
    assert names(session) == ['observe', 'reset']
    worker.resume()  # what was seen is forgotten
    assert listener.outcome(ask(worker)).status == Status.NO_FRAME
    assert 'watch' not in names(session)


def test_a_watch_that_hung_is_not_heard_of_when_another_worker_has_gone_on(
        worker, watches, session, listener):
    see_then_hold(worker, session, listener)
    watches.due = 1
    worker.resume()
    assert session.entered.wait(TIMEOUT)
    heir = worker.succeeded('it hangs')
    session.gate.set()
    assert worker.stop(TIMEOUT) and heir.stop(TIMEOUT)
    assert names(session)[-1] == 'watch' and watches.told == 0
