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

"""The parts of the node on a stage: they work as in the node, step by step, in one thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from math import ceil, inf
from types import MappingProxyType
from typing import Any, Protocol

from infmllm_msgs.msg import CacheStats, Query
from infmllm_ros import images
from infmllm_ros.engine import Frame as EngineFrame
from infmllm_ros.engine import StreamingModel, StreamingSession
from infmllm_ros.node import convert, parameters
from infmllm_ros.node.desk import Desk
from infmllm_ros.node.loading import open_session
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.memory import Memory
from infmllm_ros.node.navigation import NavigationInput
from infmllm_ros.node.qos import Endpoints
from infmllm_ros.node.questions import Outcome, Question
from infmllm_ros.node.reasons import Timekeeper
from infmllm_ros.node.watches import Watches
from infmllm_ros.node.worker import Worker
from infmllm_ros.replay.offline.stage import Stage
from infmllm_ros.replay.sources import ODOMETRY, PATH, TF
import numpy as np

STEP_NS = 1000  # [ns] least that time goes on while the worker waits for its time


class Witness(Protocol):
    """Who is told what happens in a crew."""

    def published(self, topic: str, message: Any) -> None:
        """Take a message of the node."""

    def logged(self, severity: str, text: str) -> None:
        """Take a line of the node's log."""

    def seen(self, frame: Frame, session: StreamingSession) -> None:
        """Take note of a frame that was observed, or repeats its camera's last one."""

    def bad(self, frame: Frame, reason: str) -> None:
        """Take note of an image that cannot be decoded."""

    def failed(self, job: str, error: Exception) -> None:
        """Take note of a job that raised."""

    def forgetting(self) -> None:
        """Take note that the memory is about to be cleared, as time went back."""


class Crew:
    """
    A worker with its desk, watches, navigation and memory, on the time of a source.

    Parameters
    ----------
    values : mapping
        All parameters of the node, by name.
    witness : Witness
    model : StreamingModel, optional
        That of the parameters, if it is loaded already.
    progress : callable
        Takes a line about how far loading is.
    remap : mapping of str to str
        Other names for topics.

    Attributes
    ----------
    session : StreamingSession
    settings : Settings
        The parameters.
    started : bool

    Raises
    ------
    ParameterError
        A value that the table does not allow, or a file of watches that is wrong.
    EngineError
        The model, the policy or the budget is refused.
    """

    session: StreamingSession

    def __init__(self, values: Mapping[str, Any], witness: Witness,
                 model: StreamingModel | None = None,
                 progress: Callable[[str], None] = lambda text: None,
                 remap: Mapping[str, str] = MappingProxyType({})):
        """Check the parameters, and load the model."""
        self._witness, self._begin_ns, self.started = witness, 0, False
        self.stage = stage = Stage(values, witness.published, witness.logged, remap)
        parameters.check(stage)
        self.settings = parameters.snapshot(stage)
        ends = self._ends = Endpoints(stage)
        self._time = Timekeeper(stage, self._forget)
        self._desk = Desk(stage, ends, self._time, self, lambda _: self.worker)
        self._stats = ends.publisher(CacheStats, 'cache_stats', 10)
        self._memory = Memory(stage, ends, lambda: self.worker, stage.clock)
        self._watches = Watches(stage, self.settings, ends.publish, self._ahead)
        settings = self._watches.guide(self.settings)
        self.worker = Worker(
            self, cameras=settings.cameras, watches=self._watches, thread=False,
            clock=lambda: (stage.clock.now_ns - self._begin_ns) / 1e9)
        parameters.apply(stage, self.worker, self._watches)
        self._navigation: NavigationInput | None = None
        self._delay = inf  # [s] until the worker has to look again
        self._age_ms = 0.0
        self._news = False  # whether statistics are to be published

        def load() -> StreamingSession:
            self.session = self._watches.try_out(open_session(settings, progress, model))
            return self.session

        try:
            self._wait(self.worker.load(load))
            self._memory.configure(settings.memory_fields, self.worker.run_pending)
        except BaseException:
            self.close()
            raise

    @property
    def inputs(self) -> dict[str, str]:
        """Topics that it listens to, with their types: where the path leads, if that is told."""
        if not self.settings.nav_fields['enabled']:
            return {}
        name = self.stage.resolve_topic_name
        return {name('path'): PATH, name('odom'): ODOMETRY, '/tf': TF, '/tf_static': TF}

    def start(self, now_ns: int) -> None:
        """Begin at a time of the source; returns with all inputs there."""
        self.started = True
        self._begin_ns = self.stage.clock.now_ns = now_ns
        if self.settings.nav_fields['enabled']:
            self._navigation = NavigationInput(
                self.stage, self._ends, self.settings.nav_fields, self.stage.clock)
        self._watches.restart()
        self.worker.resume()

    def close(self) -> None:
        """Free the memory; the model stays with those who hold it."""
        self.worker.stop(0.0)
        self.session = None

    # Each of these returns when all is done that there is to do at its time.

    def advance(self, now_ns: int) -> None:
        """Let time go on to a moment."""
        clock = self.stage.clock
        while (due := clock.now_ns + max(STEP_NS, ceil(min(self._delay, 1e9) * 1e9))) <= now_ns:
            self.stage.advance(due)
            self._work()
        self.stage.advance(now_ns)

    def offer(self, frame: Frame) -> None:
        """Hand in a frame; it waits if the rate of its camera says so."""
        self.worker.offer(self._time.frame(frame))
        self._work()

    def ask(self, query: Query) -> None:
        """Put a query; the answer is published."""
        self._desk.ask(query)
        self._work()

    def tell(self, text: str) -> bool:
        """Put a text into the memory; False, with a line in the log, if that fails."""
        job = self._desk.tell(text)
        self._work()
        return job is not None and job.exception() is None

    def save(self, path: Any) -> None:
        """
        Write the memory to a file.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        self._wait(self.worker.use('save memory', lambda session: session.save(path)))

    def waits(self, camera: str) -> bool:
        """Tell whether a frame of the camera waits for its time."""
        return self.worker.cameras[camera].mailbox.waiting

    def fate(self, camera: str) -> str:
        """Say what became of the last frame of the camera that the worker took."""
        return self.worker.cameras[camera].mailbox.last

    def thumbnail(self, frame: EngineFrame) -> bytes | None:
        """Give the picture of a retained frame as a jpeg; None if there is none."""
        return self._memory.thumbnail(frame)

    def _work(self) -> None:
        self._delay = self.worker.run_pending()
        if self._news:
            self._news = False
            self._stats.publish(convert.stats_message(
                self.worker.health(), self.settings.policy, self._age_ms, self._desk.counts()))

    def _wait(self, job: Future) -> None:
        self.worker.run_pending()
        job.result(0)

    def _forget(self) -> None:
        self._witness.forgetting()
        self._desk.report(self.worker.reset(), 'memory not cleared')

    # What the worker tells.

    def decode(self, message: Any) -> np.ndarray:
        """Give the pixels of an image message, or those of a source that has no messages."""
        return message if isinstance(message, np.ndarray) else images.decode(message)

    def observed(self, frame: Frame, image: np.ndarray, session: StreamingSession,
                 again: bool = False) -> None:
        """Take note of a frame that the model has seen."""
        self._memory.observed(image, session)
        if not again:
            self._age_ms = 1e3 * self._time.age(frame.stamp_ns)
            self._watches.observed(frame)
            self._news = True
            self._witness.seen(frame, session)

    def _ahead(self) -> str:
        return self._navigation.context() if self._navigation else ''

    def preface(self, question: Question) -> str:
        """Tell where the path leads, and which of several cameras is meant."""
        return self._ahead() + parameters.about_camera(self.stage, question.camera)

    def bad_image(self, frame: Frame, reason: str) -> None:
        """Pass on that an image was dropped."""
        self._witness.bad(frame, reason)

    def piece(self, question: Question, text: str) -> None:
        """Publish a piece of an answer."""
        self._desk.piece(question, text)

    def answered(self, question: Question, outcome: Outcome) -> None:
        """Publish the end of a question."""
        self._desk.answered(question, outcome)
        if outcome.answer is not None:
            self._memory.answered(question.text, outcome.answer)

    def failed(self, job: str, error: Exception) -> None:
        """Pass on that a job raised."""
        self._witness.failed(job, error)

    def relieved(self, relief: str) -> None:
        """Pass on what was done after memory ran out."""
        self._witness.logged('warning', relief)
