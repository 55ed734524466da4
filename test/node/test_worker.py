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

from dataclasses import fields
import gc
import threading
import time
import weakref

from infmllm_ros.engine import Answer, QuestionTooLong, Stats
from infmllm_ros.node.loading import open_session
from infmllm_ros.node.mailbox import Frame, Mailbox
from infmllm_ros.node.parameters import Settings
from infmllm_ros.node.questions import Outcome, Question, Status
from infmllm_ros.node.worker import Worker
import numpy as np
import pytest

TIMEOUT = 20.0
NO_OTHER = {'seen': 0, 'skipped': 0, 'similar': 0, 'bad': 0, 'failed': 0, 'causes': {}}


class Session:
    """Notes what it is told; waits at every step while `gate` is closed, `words` in answers."""

    def __init__(self):
        self.calls = []
        self.gate, self.words = threading.Event(), threading.Event()
        self.gate.set()
        self.words.set()
        self.entered = threading.Event()
        self.error = None
        self.newest = None

    def _step(self, *call):
        self.calls.append(call)
        self.entered.set()
        assert self.gate.wait(TIMEOUT)
        if self.error:
            raise self.error

    def observe(self, image, stamp_ns, camera):
        self._step('observe', image)
        self.newest = stamp_ns

    def ask(self, question, deadline_s, frame=None, **settings):
        if frame and settings.get('remember'):
            self.observe(*frame)
            frame = None
        self._step('ask', question, *([frame] if frame else []))
        return Asking(self, deadline_s)

    def tell(self, text):
        self._step('tell', text)

    def reset(self):
        self._step('reset')
        self.newest = None

    def stats(self):
        return Stats(*[0] * len(fields(Stats)))


class Asking:
    """Says three words, and waits after each."""

    def __init__(self, session, deadline_s):
        self.session, self.cancelled, self.answer = session, False, None
        self.late = deadline_s < 100

    def cancel(self):
        self.cancelled = True

    def choose(self, choices):
        return Answer(choices[1], 'choice', 1, 0.1, 0.2, self.session.newest, '', 1, (0.3, 0.7))

    def __iter__(self):
        said = ''
        for word in ('one ', 'two ', 'three '):
            if self.cancelled:
                break
            said += word
            yield word
            assert self.session.words.wait(TIMEOUT)
        finish = 'cancelled' if self.cancelled else 'deadline' if self.late else 'stop'
        self.answer = Answer(said, finish, 3, 0.1, 0.2,
                             self.session.newest, '')


class Listener:
    """Notes what the worker tells."""

    def __init__(self):
        self.pieces, self.outcomes, self.bad, self.failures = [], {}, [], []
        self.seen, self.before, self.reliefs = [], '', []
        self.news = threading.Condition()

    def _note(self, change):
        with self.news:
            change()
            self.news.notify_all()

    def wait(self, condition):
        with self.news:
            assert self.news.wait_for(condition, TIMEOUT)

    def decode(self, message):
        if message is None:
            raise ValueError('no pixels')
        return message

    def preface(self, question):
        return self.before

    def observed(self, frame, image, session, again=False):
        if not again:
            self._note(lambda: self.seen.append(frame.message))

    def bad_image(self, frame, reason):
        self._note(lambda: self.bad.append(reason))

    def piece(self, question, text):
        self._note(lambda: self.pieces.append(text))

    def answered(self, question, outcome):
        assert question not in self.outcomes
        self._note(lambda: self.outcomes.update({question: outcome}))

    def relieved(self, relief):
        self._note(lambda: self.reliefs.append(relief))

    def failed(self, job, error):
        self._note(lambda: self.failures.append((job, str(error))))

    def outcome(self, question) -> Outcome:
        self.wait(lambda: question in self.outcomes)
        return self.outcomes[question]


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def worker(listener, session):
    """Make an active worker with a session."""
    worker = Worker(listener)
    worker.load(lambda: session).result(TIMEOUT)
    worker.resume()
    yield worker
    session.gate.set()
    session.words.set()
    assert worker.stop(TIMEOUT)


def ask(worker, text='what?', **fields):
    question = Question(text, **fields)
    worker.ask(question)
    return question


def hold(worker, session, listener):
    """Put the worker in the middle of a frame; open the gate to let it go on."""
    session.gate.clear()
    session.entered.clear()
    worker.offer(Frame('held', 1))
    assert session.entered.wait(TIMEOUT)


def test_mailbox_keeps_the_newest_and_counts_what_it_drops():
    box = Mailbox()
    for number in range(5):
        box.put(Frame(number, number))
    assert box.take().message == 4
    assert box.take() is None
    assert box.counts() == {'received': 5, 'dropped': 4, 'waiting': 1, **NO_OTHER}
    box.put(Frame(5, 5))
    box.clear()
    assert not box.waiting
    assert box.counts() == {'received': 6, 'dropped': 5, 'waiting': 1, **NO_OTHER}


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


def test_the_context_of_the_moment_is_put_before_a_question_that_had_to_wait(
        worker, session, listener):
    listener.before = 'Old. '
    hold(worker, session, listener)
    question = ask(worker, 'where to?')
    listener.before = 'Turn left. '
    session.gate.set()
    listener.outcome(question)
    assert session.calls[-1] == ('ask', 'Turn left. where to?')
    assert (question.context, question.text) == ('Turn left. ', 'where to?')


def test_frames_wait_for_the_rate_of_their_camera(worker, session, listener):
    worker.cameras[''].rate = 5
    start = time.monotonic()
    for number in range(3):
        worker.offer(Frame(number, number))
        listener.wait(lambda n=number: n in listener.seen)
    assert time.monotonic() - start >= 0.4  # a lower bound: it cannot fail on a slow machine


def test_questions_are_answered_in_order(worker, session, listener):
    hold(worker, session, listener)
    questions = [ask(worker, f'question {n}') for n in range(3)]
    session.gate.set()
    for question in questions:
        assert listener.outcome(question).status == Status.OK
    assert [q for name, q in session.calls if name == 'ask'] == [q.text for q in questions]
    assert listener.outcome(questions[0]).answer.text == 'one two three '
    assert listener.pieces[:3] == ['one ', 'two ', 'three ']


def test_choices_are_scored_not_generated(worker, session, listener):
    worker.offer(Frame('frame', 1))
    question = ask(worker, choices=('yes', 'no'))
    outcome = listener.outcome(question)
    assert (outcome.answer.choice, outcome.answer.finish) == (1, 'choice')
    assert not listener.pieces


def test_a_question_whose_deadline_passes_while_it_waits_is_told_before_its_turn(
        worker, session, listener):
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    session.words.clear()
    running = ask(worker, 'running')
    listener.wait(lambda: listener.pieces)
    late, patient = ask(worker, 'late', deadline_s=1e-9), ask(worker, 'patient', deadline_s=1e9)
    session.words.set()
    assert listener.outcome(patient).status == Status.OK
    assert listener.outcome(running).status == Status.OK
    assert list(listener.outcomes) == [late, running, patient]
    outcome = listener.outcome(late)
    assert (outcome.status, outcome.answer) == (Status.EXPIRED, None)
    assert '1e-09 s' in outcome.message
    assert ('ask', 'late') not in session.calls


def test_an_answer_cut_short_by_its_deadline_says_so(worker, session, listener):
    worker.offer(Frame('frame', 1))
    outcome = listener.outcome(ask(worker, deadline_s=60))
    assert outcome.status == Status.EXPIRED
    assert outcome.answer.text and '60 s' in outcome.message


def test_a_question_before_any_frame_is_refused(worker, session, listener):
    outcome = listener.outcome(ask(worker))
    assert outcome.status == Status.NO_FRAME
    assert 'no frame' in outcome.message
    assert session.calls == []


def test_a_full_queue_refuses(worker, session, listener):
    worker.questions.size = 2
    hold(worker, session, listener)
    ask(worker), ask(worker)
    refused = ask(worker, 'one too many')
    assert listener.outcomes[refused].status == Status.BUSY
    assert worker.health().waiting == 2


@pytest.mark.parametrize(('busy', 'statuses'), [
    ('queue', ['OK', 'OK', 'OK', 'BUSY']), ('newest', ['OK', 'REPLACED', 'REPLACED', 'OK']),
    ('interrupt', ['REPLACED', 'REPLACED', 'REPLACED', 'OK']),
    ('reject', ['OK', 'BUSY', 'BUSY', 'BUSY'])])
def test_who_gives_way_when_the_model_is_busy(worker, session, listener, busy, statuses):
    worker.questions.size, worker.questions.busy = 2, busy
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    session.words.clear()
    questions = [ask(worker, 'running')]
    listener.wait(lambda: listener.pieces)
    questions += [ask(worker, f'question {n}') for n in range(3)]
    session.words.set()
    outcomes = [listener.outcome(question) for question in questions]
    assert [outcome.status.name for outcome in outcomes] == statuses
    assert all(busy in outcome.message or outcome.status in (Status.OK, Status.BUSY)
               for outcome in outcomes)
    if busy == 'interrupt':
        assert outcomes[0].answer.text == 'one '
    assert listener.outcome(ask(worker)).status == Status.OK


def test_cancel_ends_the_running_answer_and_all_that_wait(worker, session, listener):
    worker.offer(Frame('frame', 1))
    session.words.clear()
    running = ask(worker)
    listener.wait(lambda: listener.pieces == ['one '])
    waiting = [ask(worker), ask(worker)]
    assert worker.cancel('enough') == 3
    session.words.set()
    for question in waiting:
        assert listener.outcome(question) == Outcome(Status.CANCELLED, 'enough')
    outcome = listener.outcome(running)
    assert outcome.status == Status.CANCELLED
    assert (outcome.answer.text, outcome.answer.finish) == ('one ', 'cancelled')
    assert listener.outcome(ask(worker)).status == Status.OK


def test_cancel_reaches_a_question_before_its_first_word(worker, session, listener):
    hold(worker, session, listener)
    running = ask(worker)
    session.entered.clear()
    session.gate.set()
    session.gate.clear()
    assert worker.cancel('enough') == 1
    session.gate.set()
    assert listener.outcome(running).status == Status.CANCELLED
    assert not listener.pieces


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


def test_a_question_that_the_engine_refuses_is_a_bad_query(worker, session, listener):
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    session.error = QuestionTooLong('9000 tokens, the limit is 256')
    outcome = listener.outcome(ask(worker))
    assert (outcome.status, outcome.message) == (
        Status.BAD_QUERY, '9000 tokens, the limit is 256')
    assert not listener.failures


class Watches:
    """Watches of which `due` says how many are due."""

    due = 0
    camera = ''

    def due_in(self):
        return 0.0 if self.due else float('inf')

    def run(self, session, show):
        self.due -= 1
        seen, again = show(self.camera)
        session._step('watch', seen.message, *([again] if again else []))


@pytest.fixture
def watches(worker, session):
    worker._watches = Watches()
    return worker._watches


def names(session):
    return [name for name, *_ in session.calls]


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


@pytest.mark.parametrize('busy', ['queue', 'newest', 'interrupt', 'reject'])
def test_a_question_waits_for_the_running_watch_only(worker, watches, session, listener, busy):
    worker.questions.busy = busy
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    assert worker.wait_idle(TIMEOUT)
    session.gate.clear()
    session.entered.clear()
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
    worker.load(lambda: open_session(settings, print)).result(60)
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


def test_status_numbers_are_those_of_the_message():
    Message = pytest.importorskip(
        'infmllm_msgs.msg', reason='needs the interface package infmllm_msgs').Answer
    assert {s.name: int(s) for s in Status} == {
        name: getattr(Message, name) for name in Status.__members__}


def test_a_told_text_comes_before_the_next_question_and_too_many_are_refused(
        worker, session, listener):
    session.gate.clear()
    worker.offer(Frame('image', 1))
    assert session.entered.wait(TIMEOUT)  # the worker is at the frame
    question = ask(worker, 'what')
    jobs = [worker.tell(f'text {i}') for i in range(worker.questions.size)]
    assert all(jobs) and worker.tell('one more') is None
    session.gate.set()
    assert jobs[-1].result(TIMEOUT) is None
    listener.wait(lambda: question in listener.outcomes)
    said = [call for call in session.calls if call[0] != 'observe']
    assert said == [*(('tell', f'text {i}') for i in range(len(jobs))), ('ask', 'what')]
    session.error = ValueError('too long')
    with pytest.raises(ValueError, match='too long'):
        worker.tell('x').result(TIMEOUT)


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
