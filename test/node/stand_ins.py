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

"""What the parts of the node are tested with: a session and a listener that note all, a node."""

from dataclasses import fields
import threading
import time

from infmllm_ros.engine import Answer, Stats
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.options import TABLE
from infmllm_ros.node.questions import Outcome, Question
import numpy as np

TIMEOUT = 100.0  # [s] for anything, on a busy machine


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
        """Wait for what is told here, or comes about without a word."""
        end = time.monotonic() + TIMEOUT
        with self.news:
            while not condition():
                assert time.monotonic() < end
                self.news.wait(0.01)

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


class Watches:
    """Watches of which `due` says how many are due."""

    due = told = 0
    camera = ''

    def due_in(self):
        return 0.0 if self.due else float('inf')

    def run(self, session, show, heard):
        self.due -= 1
        seen, again = show(self.camera)
        session._step('watch', seen.message, *([again] if again else []))
        self.told += heard()


class Node:
    """As much of a node as `check` and `snapshot` use."""

    def __init__(self, **values):
        self.values = {name: option.default for name, option in TABLE.items()}
        self.values.update({name.replace('__', '.'): value for name, value in values.items()})

    def get_parameter(self, name):
        return type('Parameter', (), {'value': self.values[name]})


def ask(worker, text='what?', **fields):
    """Hand a question to the worker."""
    question = Question(text, **fields)
    worker.ask(question)
    return question


def hold(worker, session, listener):
    """Put the worker in the middle of a frame; open the gate to let it go on."""
    session.gate.clear()
    session.entered.clear()
    worker.offer(Frame('held', 1))
    assert session.entered.wait(TIMEOUT)


def names(session):
    """Name what a session was told to do."""
    return [name for name, *_ in session.calls]


def show(worker, listener, camera, stamp, level=None):
    """Have the model see a frame; what it shows is its stamp or a level of grey."""
    message = stamp if level is None else grey(level)
    worker.offer(Frame(message, stamp, camera=camera))
    listener.wait(lambda: any(seen is message for seen in listener.seen))


def grey(level, size=(48, 64)):
    return np.full((*size, 3), level, np.uint8)
