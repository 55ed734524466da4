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

"""Questions at the worker: their order, their ends, and who gives way to whom."""

from infmllm_ros.engine import QuestionTooLong
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.questions import Outcome, Status
import pytest
from stand_ins import ask, hold, TIMEOUT


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
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    session.gate.clear()
    session.entered.clear()
    running = ask(worker)
    assert session.entered.wait(TIMEOUT)
    assert worker.cancel('enough') == 1
    session.gate.set()
    assert listener.outcome(running).status == Status.CANCELLED
    assert not listener.pieces


def test_a_question_that_the_engine_refuses_is_a_bad_query(worker, session, listener):
    worker.offer(Frame('frame', 1))
    listener.wait(lambda: listener.seen)
    session.error = QuestionTooLong('9000 tokens, the limit is 256')
    outcome = listener.outcome(ask(worker))
    assert (outcome.status, outcome.message) == (
        Status.BAD_QUERY, '9000 tokens, the limit is 256')
    assert not listener.failures


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


def test_status_numbers_are_those_of_the_message():
    Message = pytest.importorskip(
        'infmllm_msgs.msg', reason='needs the interface package infmllm_msgs').Answer
    assert {s.name: int(s) for s in Status} == {
        name: getattr(Message, name) for name in Status.__members__}
