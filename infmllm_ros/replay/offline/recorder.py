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

"""What happens in a replay without DDS, as records, messages and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from infmllm_msgs.msg import Answer, CacheStats, WatchEvent
from infmllm_ros.engine import ContextFull, holdings, StreamingSession
from infmllm_ros.engine import Frame as EngineFrame
from infmllm_ros.node.convert import nanoseconds
from infmllm_ros.node.desk import one_line
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.replay import records
from infmllm_ros.replay.hearing import event_record, Ledger, stats_record
from infmllm_ros.replay.offline.crew import Crew
from infmllm_ros.replay.plan import Turn
from infmllm_ros.replay.records.thumbnails import Thumbnails
from infmllm_ros.replay.replayable import Bag, Sink
from rclpy.serialization import deserialize_message, serialize_message

MEMORIES = 200  # about so many records of what the memory holds


class Recorder:
    """
    Writes down what a crew tells of one run.

    Parameters
    ----------
    count : int or None
        Number of frames to come, where it is known.

    Attributes
    ----------
    crew : Crew or None
        Who tells.
    fates : Counter
        How many frames of each fate.
    ledger : Ledger
        Of the questions.
    stopped : str
        Why there is no use in going on; empty if there is.
    """

    def __init__(self, count: int | None = None):
        """Keep what comes until there is somebody to take it."""
        self.crew: Crew | None = None
        self.fates, self.ledger = Counter[str](), Ledger()
        self.stopped = ''
        self._count = count
        self._sinks: tuple[Sink, ...] = ()
        self._bags: tuple[Bag, ...] = ()
        self._thumbnails: Thumbnails | None = None
        self._early: list[records.Record] = []
        self._waiting: dict[str, tuple[int, int]] = {}  # by camera: number and stamp of a frame
        self._number = self._skipped = self._next_memory = 0
        self._reason = ''  # why the model failed at a frame, the last time

    def open(self, run: records.Run, sinks: Iterable[Sink], bags: Iterable[Bag],  # noqa: A003
             thumbnails: Thumbnails | None) -> None:
        """Begin a run, with those who take what is written."""
        self._sinks, self._bags, self._thumbnails = tuple(sinks), tuple(bags), thumbnails
        if self._bags:
            self.crew.stage.wanted.add(self.crew.stage.resolve_topic_name('evidence_image'))
        early, self._early = self._early, []
        for record in (run, *early):
            self.write(record)

    @property
    def now(self) -> int:
        """Time of the source, in nanoseconds; 0 before it begins."""
        return self.crew.stage.clock.now_ns if self.crew else 0

    def write(self, record: records.Record) -> None:
        """Hand a record to all sinks."""
        if not self._sinks:
            self._early.append(record)
        for sink in self._sinks:
            sink.write(record)

    def problem(self, text: str) -> None:
        """Write down something that went wrong."""
        self.write(records.Problem(self.now, text))

    def asking(self, turn: Turn) -> None:
        """Take note of a question that is about to be asked."""
        self.ledger.open[turn.id] = turn, self.now

    def coming(self, camera: str, number: int, stamp_ns: int) -> None:
        """Take note of a frame that is about to be handed in."""
        if camera in self._waiting:
            self.fate(camera, records.DROPPED)
        self._waiting[camera] = number, stamp_ns
        self._number = number

    def fate(self, camera: str, fate: str, reason: str = '') -> None:
        """Write down what became of the frame of a camera that came last."""
        number, stamp_ns = self._waiting.pop(camera)
        self.fates[fate] += 1
        self.write(records.Frame(number, stamp_ns, camera, fate, reason))

    def settle(self) -> None:
        """Say what became of frames that the model did not look at, and that do not wait."""
        for camera in [name for name in self._waiting if not self.crew.waits(name)]:
            fate = self.crew.fate(camera)
            self.fate(camera, fate, self._reason if fate == records.FAILED else '')

    def close(self) -> None:
        """End a run: nothing is looked at any more."""
        for camera in list(self._waiting):
            self.fate(camera, records.DROPPED)
        self.remember()

    def remember(self) -> None:
        """Write down what the memory holds."""
        session = self.crew.session
        self.write(records.Memory(session.newest.stamp_ns if session.newest else 0, [
            [held.frame.stamp_ns, held.frame.camera, round(held.tokens, 3)]
            for held in holdings(session)]))

    # What the crew tells.

    def published(self, topic: str, message: Any) -> None:
        """Pass a message on, and write down what it says."""
        if isinstance(message, (Answer, CacheStats, WatchEvent)):
            # As a subscriber has it: numbers are rounded on the way.
            message = deserialize_message(serialize_message(message), type(message))
        if isinstance(message, CacheStats):
            self.write(stats_record(message))
        elif isinstance(message, WatchEvent):
            self.write(event_record(message))
        elif isinstance(message, Answer):
            self._keep_evidence(message)
            self.write(self.ledger.answer(message, self.now, '/watch/' in topic))
        for bag in self._bags:
            bag.publish(topic, self.now, message)

    def _keep_evidence(self, message: Answer) -> None:
        for e in message.evidence if self._thumbnails else ():
            stamp_ns = nanoseconds(e.stamp)
            jpeg = self.crew.thumbnail(EngineFrame(e.frame, stamp_ns, e.camera))
            if jpeg is not None:
                self._thumbnails.keep(e.camera, stamp_ns, jpeg)

    def logged(self, severity: str, text: str) -> None:
        """Write down what went wrong."""
        if severity in ('warning', 'error', 'fatal'):
            self.problem(text)

    def seen(self, frame: Frame, session: StreamingSession) -> None:
        """Write down what became of a frame, and now and then what the memory holds."""
        skipped = session.frames_skipped > self._skipped
        self._skipped = session.frames_skipped
        self.fate(frame.camera, records.SKIPPED if skipped else records.SEEN)
        if skipped:
            return
        if self._thumbnails is not None:
            jpeg = self.crew.thumbnail(session.newest)
            if jpeg is not None:
                self._thumbnails.pass_by(frame.camera, frame.stamp_ns, jpeg)
        if self._number >= self._next_memory:
            self._next_memory = self._number + max(1, (self._count or self._number) // MEMORIES)
            self.remember()

    def bad(self, frame: Frame, reason: str) -> None:
        """Write down that an image cannot be decoded."""
        self.fate(frame.camera, records.BAD, reason)

    def failed(self, job: str, error: Exception) -> None:
        """Write down what failed; stop where all that follows would fail as well."""
        reason = one_line(error)
        self.problem(f'{job} failed: {reason}')
        if job == 'frame':
            self._reason = reason
            if isinstance(error, ContextFull):
                self.stopped = reason

    def forgetting(self) -> None:
        """Write down that frames which wait will not be looked at."""
        for camera, (number, _) in list(self._waiting.items()):
            if number != self._number:
                self.fate(camera, records.DROPPED)
