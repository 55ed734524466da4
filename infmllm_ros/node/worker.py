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
camera whose turn it is. Before a question it observes the frames that wait, of the camera that the
question is about or of all, so that an answer has seen at least the newest frame that had arrived
when the question came. After a frame comes a watch, if one is due. Nothing here knows ROS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from math import inf
import threading
import time
from typing import Any

from infmllm_ros.engine import EngineError, fit_budget, QuestionError, Stats, StreamingSession
from infmllm_ros.node.cameras import Camera, Cameras, Tally
from infmllm_ros.node.listener import Listener, Shown, Watching
from infmllm_ros.node.loading import release
from infmllm_ros.node.mailbox import BAD, FAILED, Frame, SEEN, SIMILAR, SKIPPED
from infmllm_ros.node.questions import Ended, expired, Outcome, Question, Status, Waiting


@dataclass(frozen=True)
class Health:
    """What the worker is doing, at one moment."""

    alive: bool
    job: str  # '' = nothing
    busy_s: float  # [s] how long it has been at this job
    waiting: int  # questions
    failures: int  # jobs that raised, since the start
    last_failure: str
    since_failure_s: float  # [s]; infinite when none
    cameras: tuple[Tally, ...]
    stats: Stats | None  # of the memory after the last job
    newest: Frame | None  # the last frame observed

    def total(self, count: str) -> int:
        """Add up a count of `Tally` over all cameras."""
        return sum(getattr(camera, count) for camera in self.cameras)


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
        self._commands: deque[tuple[str, Callable[[], Any], Future]] = deque()
        self.questions = Waiting(queue_size)
        self._question: Question | None = None  # at work
        self._asking: Any = None  # its running answer
        self._active = False
        self._stopping = False
        self._job = ''
        self._since = clock()  # of the job, or of being idle
        self._newest: Frame | None = None  # observed
        self._watched = False  # whether a watch was asked since
        self._stats: Stats | None = None
        self._failures = 0
        self._last_failure = ('', -float('inf'))
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
            self._note(None)
        return self._command('load', job)

    def reset(self) -> Future:
        """Forget all that was seen, after the job that runs now; frames that wait as well."""
        self.cameras.clear()

        def job() -> None:
            self.cameras.forget()
            self._session.reset()
            self._note(None)
        return self._command('reset', job)

    def misfit(self, budget: int) -> str:
        """Say why the memory cannot get by with another budget, in tokens; empty if it can."""
        try:
            fit_budget(self._session, budget)
        except EngineError as error:
            return str(error)
        return ''

    def use(self, name: str, job: Callable[[StreamingSession], Any]) -> Future:
        """Have a job done with the session, between others; the future ends with its result."""
        def run() -> Any:
            result = job(self._session)
            self._note(self._newest)
            return result
        return self._command(name, run)

    def set_budget(self, budget: int) -> Future:
        """Change the memory's budget, after the job that runs now."""
        return self.use('budget', lambda session: session.set_budget(budget))

    def recall(self, newest: Frame | None) -> None:
        """Take note of the newest frame of a memory that was put in place, within its job."""
        self.cameras.forget(newest)
        with self._wake:
            self._newest = newest

    def tell(self, text: str) -> Future | None:
        """
        Put a text into the memory, before the next frame or question; None when too many wait.

        The future ends with `None` or the error.
        """
        with self._wake:
            if sum(name == 'tell' for name, _, _ in self._commands) >= self.questions.size:
                return None
            return self.use('tell', lambda session: session.tell(text))

    def offer(self, frame: Frame) -> None:
        """Hand in a frame; it replaces one of its camera that still waits."""
        self.cameras[frame.camera].mailbox.put(frame)
        with self._wake:
            self._wake.notify()

    def ask(self, question: Question) -> None:
        """Hand in a question; what happens when the model is busy, `questions.busy` says."""
        with self._wake:
            ended = self.questions.put(question, self._question)
            self._heed()
            self._wake.notify()
        self._tell(ended)

    def cancel(self, reason: str, only: Question | None = None) -> int:
        """Stop the running answer and drop the waiting ones, or `only` one; returns how many."""
        outcome = Outcome(Status.CANCELLED, reason)
        with self._wake:
            ended = self.questions.drop(
                lambda question: outcome if only in (None, question) else None)
            running = self._question if only in (None, self._question) else None
            if running is not None:
                running.ending = running.ending or outcome
            self._heed()
        self._tell(ended)
        return len(ended) + (running is not None)

    def _heed(self) -> None:
        """Stop the running answer, if its question was told to end; holds the lock."""
        if self._asking is not None and self._question.ending is not None:
            self._asking.cancel()

    def _expire(self) -> None:
        """Answer those whose deadline has passed while they waited."""
        with self._wake:
            ended = self.questions.drop(expired)
        self._tell(ended)

    def _tell(self, ended: Ended) -> None:
        """Tell how questions ended, each once."""
        for question, outcome in ended:
            if question.close():
                self._listener.answered(question, outcome)

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
        with self._wake:
            now = self._clock()
            return Health(
                alive=self._thread is None or self._thread.is_alive(), job=self._job,
                busy_s=now - self._since if self._job else 0.0, waiting=len(self.questions),
                failures=self._failures, last_failure=self._last_failure[0],
                since_failure_s=now - self._last_failure[1],
                cameras=tuple(camera.tally() for camera in self.cameras),
                stats=self._stats, newest=self._newest)

    def run_pending(self) -> float:
        """
        Do all that there is to do now, in the caller's thread: for a worker without its own.

        Returns
        -------
        float
            [s] On the worker's clock, until there may be something to do without a call from
            outside; infinite if nothing waits for its time.
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

    def _command(self, name: str, job: Callable[[], Any]) -> Future:
        future: Future = Future()
        with self._wake:
            self._commands.append((name, job, future))
            self._wake.notify()
        return future

    def _run(self) -> None:
        while True:
            with self._wake:
                self._set_job('')
                job = self._next()
            if job is None:
                break
            self._do(job)
            job = None  # it may hold the session
        for _, _, future in self._commands:
            future.set_exception(RuntimeError('the node was cleaned up first'))
        self.cancel('the node was cleaned up')  # those that came after the pause
        self._session = None
        release()

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            self._fail(self._job, error)

    def _set_job(self, name: str) -> None:
        self._job = name
        self._since = self._clock()
        if not name:
            self._question = self._asking = None
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
            name, job, future = self._commands.popleft()
            self._set_job(name)
            return lambda: self._obey(job, future), 0.0
        if not self._active or self._session is None:
            return None, inf
        if self.questions:
            self._question = question = self.questions.take()
            self._set_job('question')
            return lambda: self._answer(question), 0.0
        camera = self.cameras.next(self._clock())
        frame_in = 0.0 if isinstance(camera, Camera) else inf if camera is None else camera
        watch_in = self._watches.due_in() if self._watches and self._newest else inf
        # frames and watches take turns, so that neither holds up the other
        if watch_in <= 0 and not (self._watched and frame_in <= 0):
            self._set_job('watch')
            return self._watch, 0.0
        if frame_in <= 0:
            self._set_job('frame')
            return lambda: self._observe(camera), 0.0
        return None, min(frame_in, watch_in)

    def _obey(self, job: Callable[[], Any], future: Future) -> None:
        try:
            result = job()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _observe(self, camera: Camera, force: bool = False) -> None:
        """Look at a camera's waiting frame, if its gate admits it or in any case."""
        now = self._clock()
        frame = camera.take(now)
        if frame is None:
            return
        try:
            self._see(camera, frame, now, force)
        except BaseException as error:
            camera.mailbox.settle(frame, FAILED, type(error).__name__)
            raise

    def _see(self, camera: Camera, frame: Frame, now: float, force: bool) -> None:
        settle = partial(camera.mailbox.settle, frame)
        try:
            image = self._listener.decode(frame.message)
        except ValueError as error:
            settle(BAD)
            self._listener.bad_image(frame, str(error))
            return
        if not camera.gate.admits(image, now, force):
            settle(SIMILAR)
            return
        skipped = self._stats.frames_skipped
        try:
            self._session.observe(image, frame.stamp_ns, frame.camera)
        except BaseException:
            camera.gate.forget()
            raise
        self._watched = False
        camera.newest = frame
        self._note(frame)
        settle(SKIPPED if self._stats.frames_skipped > skipped else SEEN)
        self._listener.observed(frame, image, self._session)

    def _watch(self) -> None:
        self._watched = True
        self._watches.run(self._session, self._show)
        self._note(self._newest)

    def _look(self, name: str) -> Shown:
        """Look at what the named camera, or any if '', shows now; see `_show`."""
        for camera in self.cameras.about(name):
            try:
                self._observe(camera, force=True)
            except Exception as error:  # a frame that fails takes no question with it
                self._fail('frame', error)
        return self._show(name)

    def _show(self, name: str) -> Shown:
        """Find the named camera's newest frame, to be shown again if others came after it."""
        newest = self.cameras.newest(name)
        if name and newest and newest is not self._newest and newest.message is not None:
            try:
                image = self._listener.decode(newest.message)
                return newest, (image, newest.stamp_ns, newest.camera)
            except Exception as error:  # a frame that fails takes no question with it
                self._fail('frame', error)
        return newest, None

    def _note(self, newest: Frame | None) -> None:
        stats = self._session.stats()
        with self._wake:
            self._newest, self._stats = newest, stats

    def _answer(self, question: Question) -> None:
        try:
            question.seen, again = self._look(question.camera)
            question.context = self._listener.preface(question)
            outcome = self._outcome(question, again)
        except QuestionError as error:
            note = '; navigation context is counted' if question.context else ''
            outcome = Outcome(Status.BAD_QUERY, f'{error}{note}')
        except Exception as error:
            self._fail('question', error)
            outcome = Outcome(Status.FAILED, f'{type(error).__name__}: {error}')
        with self._wake:  # who asks again at once finds the model free
            self._question = self._asking = None
        self._tell([(question, outcome)])
        self._note(self._newest)

    def _outcome(self, question: Question, again: tuple[Any, int, str] | None) -> Outcome:
        if question.seen is None:
            of = f' of camera {question.camera!r}' if question.camera else ''
            return Outcome(Status.NO_FRAME, f'no frame{of} has been seen yet: check that the '
                           'camera publishes on the image topic, then ask again')
        late = expired(question)
        if late is not None:
            return late
        asking = self._session.ask(
            question.context + question.text, deadline_s=max(0.0, question.left_s),
            frame=again, **question.settings)
        if again and question.settings.get('remember'):  # then it is in the memory once more
            self._listener.observed(question.seen, again[0], self._session, again=True)
            self._newest = question.seen
        with self._wake:
            self._asking = asking
            self._heed()
        if question.choices:
            answer = asking.choose(question.choices)
        else:
            for text in asking:
                if not question.closed:
                    self._listener.piece(question, text)
                self._expire()
            answer = asking.answer
        if answer.finish == 'cancelled':
            return replace(question.ending, answer=answer)
        if answer.finish == 'deadline':
            return Outcome(
                Status.EXPIRED, f'cut short by its deadline of {question.deadline_s:g} s: allow '
                'more time, or ask for less', answer)
        return Outcome(Status.OK, answer.problem or '', answer)

    def _fail(self, job: str, error: Exception) -> None:
        with self._wake:
            self._failures += 1
            self._last_failure = (f'{job}: {type(error).__name__}: {error}', self._clock())
        self._listener.failed(job, error)
