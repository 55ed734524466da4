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

"""Where questions and texts come in as messages, and answers go out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Any

from infmllm_msgs.msg import Answer, AnswerChunk, Query
from infmllm_ros.engine import EngineError
from infmllm_ros.node import convert
from infmllm_ros.node.listener import Listener
from infmllm_ros.node.option import ParameterError
from infmllm_ros.node.qos import Endpoints
from infmllm_ros.node.questions import Outcome, Question, Status
from infmllm_ros.node.reasons import Timekeeper
from infmllm_ros.node.worker import Worker
from std_msgs.msg import String

DEPTH = 1000  # [messages] a burst of so many loses neither a question nor a reply


def one_line(error: BaseException) -> str:
    """Write an exception on one line; its type is named where the text is not the project's."""
    text = ' '.join(str(error).split())
    known = isinstance(error, (EngineError, ParameterError))
    return text if known else f'{type(error).__name__}: {text}'


class Desk:
    """
    Refuses what cannot be answered, hands the rest to the worker, and publishes what comes of it.

    Parameters
    ----------
    node : rclpy.node.Node
        Whose parameters, log and topics count.
    ends : Endpoints
        Makes the topics.
    timekeeper : Timekeeper
        Knows how old an answer is.
    listener : Listener
        Its `answered` hears of each question that comes to an end, the refused ones as well; it
        passes the worker's calls on to `piece` and `answered` here.
    worker : callable
        Gives the worker; None, having told why, when what is named is not taken now.
    """

    def __init__(self, node: Any, ends: Endpoints, timekeeper: Timekeeper, listener: Listener,
                 worker: Callable[[str], Worker | None]):
        """Open the topics."""
        self._node, self._time, self._listener = node, timekeeper, listener
        self._publish, self._worker = ends.publish, worker
        self._counting = Lock()
        self._queries = 0
        self._answered = [0] * len(Status)
        self._answers = ends.publisher(Answer, 'answer', DEPTH)
        self._texts = ends.publisher(String, 'answer_text', DEPTH)
        self._chunks = ends.publisher(AnswerChunk, 'answer_stream', DEPTH)
        ends.subscription(String, 'query', self._on_query, DEPTH)
        ends.subscription(Query, 'query_request', self._on_query_request, DEPTH)
        ends.subscription(String, 'tell', self._on_tell, DEPTH)

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    # In.

    def _on_query(self, message: String) -> None:
        self.ask(Query(question=message.data))

    def _on_query_request(self, message: Query) -> None:
        self.ask(message)

    def _on_tell(self, message: String) -> None:
        self.tell(message.data)

    def tell(self, text: str) -> Future | None:
        """Put a text into the memory; None, having told why, if it is refused."""
        worker = self._worker('text to remember')
        if worker is None:
            return None
        limit = self._value('max_query_chars')
        if not text.strip():
            refusal = 'it is empty: send some text'
        elif len(text) > limit:
            refusal = (f'it has {len(text)} characters, the most is {limit}: shorten it, or raise '
                       'max_query_chars')
        else:
            job = worker.tell(text)
            if job is not None:
                self.report(job, 'text not remembered')
                return job
            refusal = (f'{worker.questions.size} texts wait already, the limit of '
                       'query_queue_size: send it again later')
        self._node.get_logger().warning(f'text not remembered: {refusal}')
        return None

    def report(self, job: Future, failure: str) -> None:
        """Say when a job of the worker fails."""
        def done(job: Future) -> None:  # in the worker's thread
            error = job.exception()
            if error is not None:
                self._node.get_logger().error(f'{failure}: {one_line(error)}')

        job.add_done_callback(done)

    def ask(self, query: Query, expect: Callable[[Question], None] | None = None) -> None:
        """Put a query to the worker; `expect` is told the question made of it before that."""
        worker = self._worker('question')
        if worker is None:
            return
        with self._counting:
            self._queries += 1
        question = Question(query.question, query.id or f'query-{self._queries}',
                            tuple(query.choices), camera=query.camera,
                            deadline_s=query.deadline or float('inf'))
        if expect is not None:
            expect(question)
        refusal = self._refusal(query)
        if refusal:
            self._listener.answered(question, Outcome(Status.BAD_QUERY, refusal))
            return
        question.settings = {
            'remember': convert.remember(query.memory, self._value('remember')),
            'max_tokens': query.max_tokens or None, 'temperature': self._value('temperature'),
            'seed': self._value('seed'), 'schema': query.schema}
        worker.ask(question)

    def _refusal(self, query: Query) -> str:
        if not query.question.strip():
            return 'the question is empty: send some text'
        if len(query.id) > convert.MAX_ID:
            return (f'the id has {len(query.id)} characters, the most is {convert.MAX_ID}: '
                    'shorten it')
        size = len(query.question) + len(query.schema) + sum(map(len, query.choices))
        limit = self._value('max_query_chars')
        if size > limit:
            return (f'the question has {size} characters, the most is {limit}: shorten it, or '
                    'raise max_query_chars')
        most = self._value('max_answer_tokens')
        if query.max_tokens > most:
            return (f'max_tokens is {query.max_tokens}, the most is {most}: lower it, or raise '
                    'max_answer_tokens')
        if not query.deadline >= 0:
            return (f'deadline is {query.deadline} s, but must be 0 or more: it is the time that '
                    'the answer may take, 0 = any')
        cameras = self._value('cameras')
        if query.camera and query.camera not in cameras:
            return (f'camera is {query.camera[:40]!r}, but the cameras are '
                    f'{", ".join(map(repr, cameras))}: name one of them, or none for all')
        if convert.remember(query.memory, False) is None:
            return f'memory is {query.memory}, but must be 0, 1 or 2: use the MEMORY_ constants'
        return ''

    def counts(self) -> tuple[int, list[int]]:
        """Count the questions that came, and those of them that ended, by `Status`."""
        with self._counting:
            return self._queries, list(self._answered)

    # Out; in the worker's thread, `answered` in others as well.

    def piece(self, question: Question, text: str) -> AnswerChunk:
        """Publish a piece of an answer."""
        chunk = convert.chunk_message(question, text, last=False)
        self._publish(self._chunks, chunk)
        question.pieces += 1
        return chunk

    def answered(self, question: Question, outcome: Outcome) -> Answer:
        """Publish the end of a question."""
        with self._counting:
            self._answered[outcome.status] += 1
        if outcome.message:
            line = f'question {question.id[:40]}: {outcome.status.name}: {outcome.message}'
            if outcome.status in (Status.CANCELLED, Status.REPLACED):
                self._node.get_logger().info(line)
            else:
                self._node.get_logger().warning(line)
        answer = outcome.answer
        rest = answer.text if answer is not None and answer.finish == 'choice' else ''
        self._publish(self._chunks, convert.chunk_message(question, rest, last=True))
        self._publish(self._texts, String(data=answer.text if answer else ''))
        message = convert.answer_message(question, outcome, self._value('max_query_chars'))
        if question.seen is not None:
            message.age = self._time.age(question.seen.stamp_ns)
            self._time.answered(message.age)
        self._publish(self._answers, message)
        return message
