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
The one thread that owns the model.

Callbacks of the node only store: a frame in its camera's mailbox, a question in a bounded queue.
The worker takes what waits, in this order: a reset, the oldest question, the newest frame of the
camera whose turn it is. Before a question it observes the frames that wait, so that an answer has
seen the newest that had come. After a frame comes a watch, if one is due. Nothing here knows ROS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from math import inf
from pathlib import Path
import sys
import threading
import time
from typing import Any

from infmllm_ros.engine import EngineError, fit_budget, StreamingSession
from infmllm_ros.node.answering import Answering
from infmllm_ros.node.cameras import Camera, Cameras
from infmllm_ros.node.commands import Commands
from infmllm_ros.node.health import Health
from infmllm_ros.node.listener import Deaf, Listener, Watching
from infmllm_ros.node.loading import release
from infmllm_ros.node.looking import Looking
from infmllm_ros.node.mailbox import FAILED, Frame
from infmllm_ros.node.questions import Question, Waiting
from infmllm_ros.node.relief import out_of_memory, Relief

NO_MEMORY = 'there is no memory: clean the node up and configure it again'


class Worker:
    """
    A thread that loads a session, feeds it frames and asks it questions.

    Parameters
    ----------
    listener : Listener
        Who hears of frames, answers and failures.
    queue_size : int
        How many questions, or texts to remember, may wait.
    cameras : sequence of str
        The names of all.
    watches : Watching, optional
        What to ask when nobody else does.
    clock : callable
        Tells the time that frames and their rates are measured in [s]; never goes back.
    thread : bool
        False: there is no thread, the work is done in `run_pending`.
    """

    def __init__(self, listener: Listener, queue_size: int = 8, cameras: Sequence[str] = ('',),
                 watches: Watching | None = None, clock: Callable[[], float] = time.monotonic,
                 thread: bool = True):
        """Start the thread, paused and without a session."""
        self._clock = clock
        self.cameras = Cameras(cameras)
        self._watches = watches
        self._listener = listener
        self._session: StreamingSession | None = None
        self._wake = threading.Condition()  # guards all below
        self._commands = Commands(self._wake, self._check_memory)
        self.questions = Waiting(queue_size)
        self._active = False
        self._stopping = False
        self._job = ''
        self._since = clock()  # of the job, or of being idle
        self._looking = Looking(listener, self.cameras, clock, self._fail)
        self._answering = Answering(listener, self.questions, self._wake, self._looking,
                                    self._fail, self._relieve)
        self._failures = 0
        self._last_failure = ('', -float('inf'))
        self.relief = Relief()
        self._short = False  # of memory, since the last relief
        # A daemon, as a forward pass cannot be interrupted: the process may have to go before.
        self._thread: threading.Thread | None = None
        if thread:
            self._thread = threading.Thread(target=self._run, name='infmllm_worker', daemon=True)
            self._thread.start()

    # From any thread. Each returns at once, but for `wait_idle` and `stop`.

    def load(self, build: Callable[[], StreamingSession]) -> Future:
        """Make the session in the worker's thread; the future ends with `None` or the error."""
        def job() -> None:
            self._session = build()
            self._looking.note(self._session, None)
        return self._commands.put('load', job)

    def reset(self) -> Future:
        """Forget all that was seen, after the job that runs now; frames that wait as well."""
        self.cameras.clear()

        def job(session: StreamingSession) -> None:
            session.reset()
            self.recall(None)
        return self.use('reset', job)

    def misfit(self, budget: int) -> str:
        """Say why the memory cannot get by with another budget, in tokens; empty if it can."""
        if self._session is None:
            return NO_MEMORY
        try:
            fit_budget(self._session, budget)
        except EngineError as error:
            return str(error)
        return ''

    def use(self, name: str, job: Callable[[StreamingSession], Any]) -> Future:
        """Have a job done with the session, between others; the future ends with its result."""
        def run() -> Any:
            if self._session is None:
                raise RuntimeError(NO_MEMORY)
            result = job(self._session)
            self._note()
            return result
        return self._commands.put(name, run)

    def set_budget(self, budget: int) -> Future:
        """Change the memory's budget, after the job that runs now."""
        return self.use('budget', lambda session: session.set_budget(budget))

    def recall(self, newest: Frame | None) -> None:
        """Take note of the newest frame of a memory that was put in place, within its job."""
        self.cameras.forget(newest)
        self._looking.note(self._session, newest)

    def tell(self, text: str) -> Future | None:
        """
        Put a text into the memory, before the next frame or question; None when too many wait.

        The future ends with `None` or the error.
        """
        with self._wake:
            if self._commands.count('tell') >= self.questions.size:
                return None
            return self.use('tell', lambda session: session.tell(text))

    def offer(self, frame: Frame) -> None:
        """Hand in a frame; it replaces one of its camera that still waits."""
        self.cameras[frame.camera].mailbox.put(frame)
        with self._wake:
            self._wake.notify()

    def ask(self, question: Question) -> None:
        """Hand in a question; what happens when the model is busy, `questions.busy` says."""
        self._answering.put(question)
        with self._wake:
            self._wake.notify()

    def cancel(self, reason: str, only: Question | None = None) -> int:
        """Stop the running answer and drop the waiting ones, or `only` one; returns how many."""
        return self._answering.cancel(reason, only)

    def expire(self) -> None:
        """Answer those whose deadline has passed while they waited."""
        self._answering.expire()

    def give_up(self, reason: str) -> None:
        """Answer all questions as FAILED, and the running job's caller, whatever comes of it."""
        self._commands.give_up(reason)
        self._answering.give_up(reason)

    def succeeded(self, reason: str) -> Worker:
        """
        Give up on the running job for good: return another worker, paused and without a session.

        It has the cameras and counters of this one, whose thread ends when its job does, and is
        not heard of any more.
        """
        self.give_up(reason)
        heir = Worker(self._listener, self.questions.size, (), self._watches, self._clock)
        self.abandon()
        with self._wake:
            heir.questions.busy, heir.relief = self.questions.busy, self.relief
            heir.cameras = heir._looking.cameras = self.cameras
            heir._looking.memory = None, self._looking.memory[1]
            heir._failures = self._failures + 1
            heir._last_failure = reason, self._clock()
        for camera in self.cameras:
            camera.mailbox.settle(None, FAILED, 'hung')
        self.cameras.forget()
        self._commands.drop(reason)
        return heir

    def abandon(self) -> None:
        """Be heard of no more, once its questions were given up: the thread ends with its job."""
        with self._wake:
            self._stopping = self._looking.closed = True
            self._listener = self._looking.listener = self._answering.listener = Deaf()

    @property
    def session(self) -> StreamingSession | None:
        """Give what the worker works with: to its own thread, or when that is given up."""
        return self._session

    def where(self) -> str:
        """Say at which line of code the thread is."""
        frame = sys._current_frames().get(self._thread.ident) if self._thread else None
        code = frame.f_code if frame else None
        return f'{Path(code.co_filename).name}:{frame.f_lineno}, {code.co_name}' if code else ''

    def resume(self) -> None:
        """Take frames and questions."""
        with self._wake:
            self._active = True
            self._wake.notify()

    def pause(self) -> None:
        """Take no more frames and questions; the memory stays. What waits is dropped."""
        with self._wake:
            self._active = False
        self.cameras.clear()
        self.cancel('the node was deactivated')

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no job runs; False when one still does after `timeout` seconds."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._job, timeout)

    def stop(self, timeout: float) -> bool:
        """End the thread and free the model; False when a job still runs after `timeout` s."""
        self.pause()
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is None:
            self._run()
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def health(self) -> Health:
        """Say what the worker is doing."""
        newest, stats = self._looking.memory
        with self._wake:
            now = self._clock()
            return Health(
                alive=self._thread is None or self._thread.is_alive(), job=self._job,
                busy_s=now - self._since if self._job else 0.0,
                quiet_s=now - max(self._since, self._answering.spoke) if self._job else 0.0,
                waiting=len(self.questions),
                failures=self._failures, last_failure=self._last_failure[0],
                since_failure_s=now - self._last_failure[1], exhausted=self.relief.times,
                cameras=tuple(camera.tally() for camera in self.cameras),
                newest=newest, stats=stats)

    def run_pending(self) -> float:
        """
        Do all that there is to do now, in the caller's thread: for a worker without its own.

        Returns
        -------
        float
            [s] On the worker's clock, until something's time comes; infinite if nothing waits.
        """
        while True:
            with self._wake:
                self._set_job('')
                job, delay = self._due()
            if job is None:
                return delay
            self._do(job)
            job = None  # it may hold the session

    # In the worker's thread.

    def _run(self) -> None:
        while True:
            with self._wake:
                self._set_job('')
                job = self._next()
            if job is None:
                break
            self._do(job)
            job = None  # it may hold the session
        self._commands.drop('the node was cleaned up first')
        self.cancel('the node was cleaned up')  # those that came after the pause
        self._session = None
        release()

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            self._fail(self._job, error)
        self._relieve()

    def _set_job(self, name: str) -> None:
        self._job = name
        self._since = self._clock()
        if not name:
            self._commands.leave()
            self._answering.leave()
            self._wake.notify_all()  # `wait_idle`

    def _next(self) -> Callable[[], None] | None:
        """Wait for something to do; holds the lock. None = the thread shall end."""
        while not self._stopping:
            job, delay = self._due()
            if job is not None:
                return job
            self._wake.wait(None if delay == inf else delay)
        return None

    def _due(self) -> tuple[Callable[[], None] | None, float]:
        """Take what is to be done now, or tell when to look again [s]; holds the lock."""
        if self._commands:
            name, job = self._commands.take()
            self._set_job(name)
            return job, 0.0
        if not self._active or self._session is None:
            return None, inf
        if self.questions:
            self._set_job('question')
            return partial(self._answering.answer, self._session, self._answering.take()), 0.0
        camera = self.cameras.next(self._clock())
        frame_in = 0.0 if isinstance(camera, Camera) else inf if camera is None else camera
        watch_in = self._watches.due_in() if self._watches and self._looking.newest else inf
        # frames and watches take turns, so that neither holds up the other
        if watch_in <= 0 and (self._looking.fresh or frame_in > 0):
            self._set_job('watch')
            return self._watch, 0.0
        if frame_in <= 0:
            self._set_job('frame')
            return partial(self._looking.observe, self._session, camera), 0.0
        return None, min(frame_in, watch_in)

    def _watch(self) -> None:
        self._looking.fresh = False
        self._watches.run(self._session, self._looking.show, lambda: not self._looking.closed)
        self._note()

    def _note(self) -> None:
        self._looking.note(self._session, self._looking.newest)

    def _fail(self, job: str, error: Exception) -> None:
        with self._wake:
            self._failures += 1
            self._last_failure = (f'{job}: {type(error).__name__}: {error}', self._clock())
        self._check_memory(error)
        self._listener.failed(job, error)

    def _check_memory(self, error: Exception) -> None:
        self._short |= out_of_memory(error)

    def _relieve(self) -> str:
        """Make room if memory ran out; what is left of the failed pass is freed by then."""
        if not self._short:
            return ''
        self._short = False
        try:
            relief = self.relief.give(self._session)
        except Exception as error:  # memory ran out again
            relief = f'out of memory, also while the budget was lowered: {error}'
        if self._session is not None:
            self._note()
        with self._wake:
            self._last_failure = relief, self._clock()
        self._listener.relieved(relief)
        return relief
