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
A replay without DDS: frames of a source go straight to the engine, as fast as it takes them.

The parts of the node do the work (`infmllm_ros.replay.offline.crew`), on the time of the source,
so that a run can be repeated to the letter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
import importlib.metadata
from pathlib import Path
import time
from types import MappingProxyType
from typing import Any

from infmllm_ros.engine import EngineError, StreamingModel
from infmllm_ros.node.convert import nanoseconds
from infmllm_ros.node.desk import one_line
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.option import ParameterError
from infmllm_ros.replay import records, settings
from infmllm_ros.replay.hearing import query
from infmllm_ros.replay.offline.crew import Crew
from infmllm_ros.replay.offline.recorder import Recorder
from infmllm_ros.replay.plan import Plan, Telling, Turn
from infmllm_ros.replay.records import INTERRUPTED
from infmllm_ros.replay.records.thumbnails import SIZE, Thumbnails
from infmllm_ros.replay.replayable import Bag, Sink
from infmllm_ros.replay.sources import COMPRESSED, GUIDES, SECOND, Source, SourceError
from infmllm_ros.replay.sources import Frame as SourceFrame
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

FRAME_ID = 'camera'  # of frames that have none


class Offline:
    """
    One run.

    Parameters
    ----------
    source : Source
    plan : Plan
        What to tell and to ask.
    given : mapping
        Parameters of the node, by name, that were given; the others have their defaults. Without
        a model it is the bundled one.
    model : StreamingModel, optional
        The one that the parameters name, if it is loaded already.
    progress : callable
        Takes a line about how far loading is.
    remap : mapping of str to str
        Other names for the topics of the node, such as its ``path`` and ``odom``.
    heed : callable
        Called now and then; KeyboardInterrupt from it ends the run.

    Attributes
    ----------
    model : StreamingModel
        For other runs.
    cameras : list of str
        Of the node.

    Raises
    ------
    ParameterError
        A parameter that does not exist or is wrong; cameras that the source does not have.
    EngineError
        The model, the policy or the budget is refused.
    """

    def __init__(self, source: Source, plan: Plan, given: Mapping[str, Any],
                 model: StreamingModel | None = None,
                 progress: Callable[[str], None] = lambda text: None,
                 remap: Mapping[str, str] = MappingProxyType({}),
                 heed: Callable[[], None] = lambda: None):
        """Check all, and load the model."""
        def loading(text: str) -> None:
            heed()
            progress(text)

        self._source, self._plan, self._heed = source, plan, heed
        own = {'memory.thumbnail_size': SIZE} | dict(given)
        self._values = settings.complete(own, source.cameras)
        self._names = _names(source.cameras, self._values['cameras'])
        self._recorder = Recorder(source.count)
        self._crew = self._recorder.crew = Crew(
            self._values, self._recorder, model, loading, remap)
        self.model, self.cameras = self._crew.session.model, list(self._values['cameras'])

    def close(self) -> None:
        """Free the memory."""
        self._crew.close()

    def replay(self, sinks: Iterable[Sink] = (), *, bags: Iterable[Bag] = (),
               thumbnails: Thumbnails | None = None, save_memory: str | Path | None = None,
               on_frame: Callable[[int], None] = lambda count: None) -> records.End:
        """
        Replay, once; see `infmllm_ros.replay.replayable.Replayable`.

        Parameters
        ----------
        sinks, bags, thumbnails, on_frame
            As there.
        save_memory : str or Path, optional
            File for the memory as it is at the end.
        """
        recorder, self._agenda = self._recorder, self._plan.agenda()
        self._begin_ns, self._number = 0, -1
        recorder.open(self._run(), sinks, bags, thumbnails)
        start = time.monotonic()
        problem = self._play(on_frame)
        try:
            self._finish(problem)
            if save_memory is not None:
                self._crew.save(save_memory)
        except (EngineError, OSError) as error:
            problem = problem or one_line(error)
        except KeyboardInterrupt:
            problem = INTERRUPTED
        if problem:
            recorder.problem(problem)
        end = recorder.ledger.end(dict(recorder.fates), problem, time.monotonic() - start,
                                  (recorder.now - self._begin_ns) / SECOND)
        recorder.write(end)
        return end

    def _run(self) -> records.Run:
        session, values = self._crew.session, self._values
        apart = ('model', 'policy', 'budget_tokens', 'cameras')
        versions = {name: importlib.metadata.version(name)
                    for name in ('infmllm_ros', 'torch', 'transformers')}
        return records.Run(
            self._source.name, 'offline', settings.model_name(values), values['policy'],
            session.stats().budget, list(values['cameras']),
            {name: value for name, value in settings.changed(values).items()
             if name not in apart}, self._plan.name,
            measured={'started': datetime.now(timezone.utc).isoformat(timespec='seconds'),
                      'versions': versions, 'device': str(session.model.device)})

    # The course of the run.

    def _play(self, on_frame: Callable[[int], None]) -> str:
        """Go through the source; returns why that ended early, if it did."""
        try:
            self._source.also = self._crew.inputs
            for frame in self._source:
                self._heed()
                self._reach(frame.time_ns)
                if frame.msgtype in GUIDES:
                    self._guide(frame)
                    continue
                if self._number < 0:
                    self._begin_ns = frame.time_ns
                self._number += 1
                self._take(frame)
                for item in self._agenda.after(self._number):
                    self._do(item)
                on_frame(self._number + 1)
                if self._recorder.stopped:
                    return self._recorder.stopped
        except SourceError as error:
            return str(error)
        except KeyboardInterrupt:
            return INTERRUPTED
        return self._source.problem

    def _reach(self, time_ns: int) -> None:
        """Let time go on to a moment, and do what is due before."""
        if not self._crew.started:
            self._crew.start(time_ns)
        if self._number >= 0:
            for item in self._agenda.before((time_ns - self._begin_ns) / SECOND):
                self._crew.advance(self._begin_ns + round(item.at * SECOND))
                self._do(item)
        self._crew.advance(time_ns)
        self._recorder.settle()  # frames that waited for their camera's rate

    def _guide(self, frame: SourceFrame) -> None:
        """Hand in a message that says where the path leads."""
        try:
            self._crew.stage.deliver(frame.topic, frame.raw)
        except Exception as error:  # whatever broken bytes make it raise
            self._recorder.problem(f'{frame.topic}: not a {frame.msgtype}: {one_line(error)}')

    def _finish(self, problem: str) -> None:
        """Ask what is left, and settle what waits."""
        if not self._crew.started:
            self._crew.start(0)
        if problem != INTERRUPTED:
            elapsed = (self._recorder.now - self._begin_ns) / SECOND
            due, left_out = self._agenda.end(elapsed, not problem)
            for item in due:
                self._do(item)
            for text in left_out:
                self._recorder.problem(text)
        self._recorder.close()

    def _take(self, frame: SourceFrame) -> None:
        """Hand a frame to the model."""
        camera, recorder = self._names[frame.camera], self._recorder
        stamp_ns, frame_id, message = frame.time_ns, FRAME_ID, frame.image
        if frame.raw is not None:
            kind = CompressedImage if frame.msgtype == COMPRESSED else Image
            try:
                message = deserialize_message(frame.raw, kind)
            except Exception as error:  # whatever broken bytes make it raise
                recorder.coming(camera, self._number, stamp_ns)
                recorder.fate(camera, records.BAD, f'not a {frame.msgtype}: {one_line(error)}')
                return
            stamp_ns, frame_id = nanoseconds(message.header.stamp), message.header.frame_id
        recorder.coming(camera, self._number, stamp_ns)
        self._crew.offer(Frame(message, stamp_ns, frame_id, camera))
        recorder.settle()

    def _do(self, item: Telling | Turn) -> None:
        """Tell or ask what is due."""
        recorder = self._recorder
        if isinstance(item, Turn):
            recorder.asking(item)
            self._crew.ask(query(item.entry, item.id))
        elif self._crew.tell(item.text):
            recorder.write(records.Told(recorder.now, item.text))
        recorder.settle()


def _names(cameras: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """
    Find which of the node's cameras each camera of a source is.

    Raises
    ------
    ParameterError
        There is none of that name.
    """
    if len(cameras) == len(names) == 1:
        return {cameras[0]: names[0]}
    for camera in cameras:
        if camera not in names:
            raise ParameterError(
                f'camera {camera!r} of the source is none of parameter cameras, which names '
                f'{", ".join(map(repr, names))}: name the topics as --cameras NAME=TOPIC, or '
                'leave the parameter out')
    return {camera: camera for camera in cameras}
