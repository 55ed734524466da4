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

"""The question at work and those that wait: one reply to each. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from threading import Condition
from typing import Any

from infmllm_ros.engine import QuestionError, StreamingSession
from infmllm_ros.node.listener import Listener
from infmllm_ros.node.looking import Looking
from infmllm_ros.node.questions import Ended, expired, Outcome, Question, Status, Waiting


class Answering:
    """
    Answers questions, and sees to it that each is told its end, once.

    Parameters
    ----------
    listener : Listener
        Hears of pieces and ends.
    waiting : Waiting
        The questions that wait.
    lock : threading.Condition
        Guards them, and what is known of the one at work.
    looking : Looking
        Has the session observe what waits before a question.
    failed : callable
        Hears of an exception that the answer of a question was lost by.
    relieve : callable
        Makes room after memory ran out; returns what was done, empty if it did not.

    Attributes
    ----------
    spoke : float
        [s] On the clock of `looking`, when the last piece of an answer came.
    """

    def __init__(self, listener: Listener, waiting: Waiting, lock: Condition, looking: Looking,
                 failed: Callable[[str, Exception], None], relieve: Callable[[], str]):
        """Start without a question."""
        self.listener = listener
        self._waiting, self._lock, self._looking = waiting, lock, looking
        self._failed, self._relieve = failed, relieve
        self.spoke = -inf
        self._question: Question | None = None  # at work
        self._asking: Any = None  # its running answer

    # From any thread.

    def put(self, question: Question) -> None:
        """Take a question; when the model is busy, the busy policy says who gives way."""
        with self._lock:
            ended = self._waiting.put(question, self._question)
            self._heed()
        self._tell(ended)

    def cancel(self, reason: str, only: Question | None = None) -> int:
        """Stop the running answer and drop the waiting ones, or `only` one; returns how many."""
        outcome = Outcome(Status.CANCELLED, reason)
        with self._lock:
            ended = self._waiting.drop(
                lambda question: outcome if only in (None, question) else None)
            running = self._question if only in (None, self._question) else None
            if running is not None:
                running.ending = running.ending or outcome
            self._heed()
        self._tell(ended)
        return len(ended) + (running is not None)

    def expire(self) -> None:
        """Answer those whose deadline has passed while they waited."""
        with self._lock:
            ended = self._waiting.drop(expired)
        self._tell(ended)

    def give_up(self, reason: str) -> None:
        """Answer all as FAILED, also the one at work, whatever still comes of it."""
        outcome = Outcome(Status.FAILED, f'{reason}: ask again later')
        with self._lock:
            ended = self._waiting.drop(lambda _: outcome)
            if self._question is not None:
                ended.append((self._question, outcome))
                self._question.ending = self._question.ending or outcome
                self._heed()
        self._tell(ended)

    def _heed(self) -> None:
        """Stop the running answer, if its question was told to end; holds the lock."""
        if self._asking is not None and self._question.ending is not None:
            self._asking.cancel()

    def _tell(self, ended: Ended) -> None:
        """Tell how questions ended, each once."""
        for question, outcome in ended:
            if question.close():
                self.listener.answered(question, outcome)

    # In the worker's thread.

    def take(self) -> Question:
        """Take the oldest question to work; holds the lock."""
        self._question = self._waiting.take()
        return self._question

    def leave(self) -> None:
        """Have none at work; holds the lock."""
        self._question = self._asking = None

    def answer(self, session: StreamingSession, question: Question) -> None:
        """Answer the question at work."""
        outcome = Outcome(Status.FAILED, 'the node failed: its log says more')
        try:
            outcome = self._reply(session, question)
            relief = self._relieve()
            if relief and outcome.status == Status.FAILED:
                outcome = Outcome(Status.FAILED, relief)
            self._looking.note(session, self._looking.newest)
        finally:
            with self._lock:  # who asks again at once finds the model free
                self.leave()
            self._tell([(question, outcome)])

    def _reply(self, session: StreamingSession, question: Question) -> Outcome:
        try:
            question.seen, again = self._looking.look(session, question.camera)
            question.context = self.listener.preface(question)
            return self._outcome(session, question, again)
        except QuestionError as error:
            note = '; navigation context is counted' if question.context else ''
            return Outcome(Status.BAD_QUERY, f'{error}{note}')
        except Exception as error:
            self._failed('question', error)
            return Outcome(Status.FAILED, f'{type(error).__name__}: {error}')

    def _outcome(self, session: StreamingSession, question: Question,
                 again: tuple[Any, int, str] | None) -> Outcome:
        if question.seen is None:
            of = f' of camera {question.camera!r}' if question.camera else ''
            return Outcome(Status.NO_FRAME, f'no frame{of} has been seen yet: check that the '
                           'camera publishes on the image topic, then ask again')
        late = expired(question)
        if late is not None:
            return late
        asking = session.ask(
            question.context + question.text, deadline_s=max(0.0, question.left_s),
            frame=again, **question.settings)
        if again and question.settings.get('remember'):  # then it is in the memory once more
            self.listener.observed(question.seen, again[0], session, again=True)
            self._looking.note(session, question.seen)
        with self._lock:
            self._asking = asking
            self._heed()
        if question.choices:
            answer = asking.choose(question.choices)
        else:
            for text in asking:
                self.spoke = self._looking.clock()
                if not question.closed:
                    self.listener.piece(question, text)
                self.expire()
            answer = asking.answer
        if answer.finish == 'cancelled':
            return replace(question.ending, answer=answer)
        if answer.finish == 'deadline':
            return Outcome(
                Status.EXPIRED, f'cut short by its deadline of {question.deadline_s:g} s: allow '
                'more time, or ask for less', answer)
        return Outcome(Status.OK, answer.problem or '', answer)
