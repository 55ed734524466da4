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

"""
Questions that wait: how many may, and which give way when another comes.

Nothing here knows ROS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
import threading
import time
from typing import Any

from infmllm_ros.engine import Answer
from infmllm_ros.node.mailbox import Frame

# What becomes of a question that comes while another is answered, or waits.
BUSY = ('queue', 'newest', 'interrupt', 'reject')


class Status(IntEnum):
    """How a question ended; the numbers are those of infmllm_msgs/Answer."""

    OK = 0
    CANCELLED = 1
    NO_FRAME = 2
    BAD_QUERY = 3
    BUSY = 4
    FAILED = 5
    REPLACED = 6
    EXPIRED = 7


@dataclass(eq=False)
class Question:
    """
    A question and how far its answer is.

    Parameters
    ----------
    text : str
        The question.
    id : str
        The asker's name for it.
    choices : tuple of str
        Answers to choose from; empty = free text.
    settings : dict
        Keyword arguments for the session: ``max_tokens``, ``remember``, ``temperature``, ``seed``.
    camera : str
        Which one it is about; empty = all.
    deadline_s : float
        [s] By when, after it arrived, the answer must be there.
    """

    text: str
    id: str = ''  # noqa: A003
    choices: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    context: str = ''  # what the listener put before it, when its turn came
    camera: str = ''
    deadline_s: float = float('inf')
    arrived: float = field(default_factory=time.monotonic)  # [s]
    ending: Outcome | None = None  # why its running answer shall stop
    pieces: int = 0  # of its answer, sent so far
    seen: Frame | None = None  # the newest frame that the answer sees
    _closed: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def close(self) -> bool:
        """Take the right to tell how it ended, in any thread: True the first time only."""
        return self._closed.acquire(blocking=False)

    @property
    def closed(self) -> bool:
        """Whether its end has been told: nothing more is said of it."""
        return self._closed.locked()

    @property
    def latency(self) -> float:
        """Time since it arrived, in seconds."""
        return time.monotonic() - self.arrived

    @property
    def left_s(self) -> float:
        """Time that is left to answer it, in seconds."""
        return self.deadline_s - self.latency


@dataclass(frozen=True)
class Outcome:
    """How a question ended: the engine's answer, or none and a message that says why."""

    status: Status
    message: str = ''
    answer: Answer | None = None


def expired(question: Question) -> Outcome | None:
    """Say that a question's deadline passed before its turn came; None if it has time."""
    if question.left_s > 0:
        return None
    return Outcome(Status.EXPIRED, f'its deadline of {question.deadline_s:g} s passed while the '
                   'model was busy: allow more time, or set busy to interrupt')


Ended = list[tuple[Question, Outcome]]


class Waiting:
    """
    The questions that wait, oldest first. For one thread at a time.

    Parameters
    ----------
    size : int
        How many may wait under the busy policy 'queue'.
    busy : str
        One of `BUSY`. 'queue': all wait for their turn, one too many is refused; 'newest': the
        new one takes the place of those that wait; 'interrupt': and of the one that is answered;
        'reject': the new one is refused unless the model is free.
    """

    def __init__(self, size: int, busy: str = 'queue'):
        """Start empty."""
        self.size, self.busy = size, busy
        self._questions: deque[Question] = deque()

    def __len__(self) -> int:
        """Tell how many wait."""
        return len(self._questions)

    def put(self, question: Question, running: Question | None) -> Ended:
        """
        Take a question, or refuse it; returns those that end without an answer.

        `running` is the one that is answered now; it is marked if it shall stop.
        """
        if self.busy == 'reject' and (running or self._questions):
            return [(question, Outcome(
                Status.BUSY, 'another question is being answered, and busy is reject: ask again '
                'later, or set busy to queue'))]
        ended = []
        if self.busy in ('newest', 'interrupt'):
            replaced = Outcome(Status.REPLACED, f'a newer question came, and busy is {self.busy}: '
                               'ask again, or set busy to queue')
            ended = self.drop(lambda _: replaced)
            if self.busy == 'interrupt' and running is not None:
                running.ending = running.ending or replaced
        elif len(self._questions) >= self.size:
            return [(question, Outcome(
                Status.BUSY, f'{self.size} questions wait already, the limit of query_queue_size: '
                'ask again later, or cancel'))]
        self._questions.append(question)
        return ended

    def take(self) -> Question:
        """Take the oldest out."""
        return self._questions.popleft()

    def drop(self, ending: Callable[[Question], Outcome | None]) -> Ended:
        """Take out those for which `ending` knows how they end."""
        ended = {q: outcome for q in self._questions if (outcome := ending(q))}
        if ended:
            self._questions = deque(q for q in self._questions if q not in ended)
        return list(ended.items())
