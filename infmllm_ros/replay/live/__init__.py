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
A replay over DDS, into a node that runs: its cameras, ``/clock`` and the questions of a plan.

Frames go out in a thread; all else is done in the caller's, which hears the node meanwhile. A
question goes out when the node says to have seen the frames before it, at the latest just before
the next one. With `hold` each frame waits for that, and for the answers to what was asked, so that
none is dropped: the results are then those of an offline replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from math import inf
import threading
import time
from typing import Any

from infmllm_ros.images import decode
from infmllm_ros.node.album import thumbnail
from infmllm_ros.node.convert import nanoseconds
from infmllm_ros.replay.live.deliveries import Deliveries
from infmllm_ros.replay.live.following import Follower
from infmllm_ros.replay.live.meeting import Meeting
from infmllm_ros.replay.plan import Plan, Telling, Turn
from infmllm_ros.replay.player import Player
from infmllm_ros.replay.records import End, Frame, INTERRUPTED, Problem, Record, Run, SENT, Told
from infmllm_ros.replay.records.thumbnails import SIZE, Thumbnails
from infmllm_ros.replay.replayable import Bag, Sink
from infmllm_ros.replay.settings import model_name
from infmllm_ros.replay.sources import COMPRESSED, SECOND, Source
from infmllm_ros.replay.sources import Frame as Image
from infmllm_ros.replay.transport import make_room
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import String

PATIENCE = 120.0  # [s] for an answer, and for a frame to be seen
SETTLE = 10.0  # [s] for what was told, and for the last frame where none is held
SILENCE = 30.0  # [s] without statistics after which the node counts as gone, or 3 of their periods
LINGER = 0.5  # [s] for the evidence of the last answer, which comes behind it
STEP = 0.01  # [s] longest wait for something to hear
CLOCK = 10.0  # [Hz] of /clock between frames


class Ahead:
    """A source that tells of each frame before it is played."""

    def __init__(self, source: Source, coming: Callable[[Image], None]):
        self._source, self._coming = source, coming

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __iter__(self) -> Iterator[Image]:
        for frame in self._source:
            self._coming(frame)
            yield frame


class Live:
    """
    One replay into a running node, which is met first.

    Parameters
    ----------
    source : Source
        What to play.
    plan : Plan
        What to tell and to ask.
    rate : float
        Speed, 1 is the source's own.
    hold : bool
        Whether a frame waits until those before it were seen, and what was asked is answered.
    namespace : str
        That the node is in.
    patience : float
        [s] For an answer, beyond the question's own deadline.
    heed : callable
        Called often; KeyboardInterrupt from it ends the run.

    Attributes
    ----------
    cameras : list of str
        Names that the source gives them.

    Raises
    ------
    LiveError
        No node was found, or it cannot take the frames.
    """

    def __init__(self, source: Source, plan: Plan, *, rate: float = 1.0, hold: bool = False,
                 namespace: str = '', patience: float = PATIENCE,
                 heed: Callable[[], None] = lambda: None):
        self._source, self._plan, self._rate, self._hold = source, plan, rate, hold
        self._patience, self._heed, self.cameras = patience, heed, source.cameras
        self._sinks: tuple[Sink, ...] = ()
        self._bags: tuple[Bag, ...] = ()
        self._thumbnails: Thumbnails | None = None
        self._agenda = plan.agenda()
        self._due: deque[Telling | Turn] = deque()
        self._hurry = False  # the next frame is due: no more waiting
        self._told: tuple[int, float] | None = None  # tokens seen before, [s] when
        self._ended = False
        self._problem = ''  # why the run ends early
        self._failure = ''  # of the thread that plays, which alone writes it
        self._begin = self._time_ns = 0  # [ns] of the source: first frame, newest frame
        self._next: Image | None = None  # about to be sent
        self._played: deque[tuple[Frame, bytes | None]] = deque()  # not written yet
        self._next_picture = 0  # [ns]
        self._number = 0  # of frames sent
        self._context = Context()
        make_room()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('replay', namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._tell = self._node.create_publisher(String, 'tell', 100)
        self._follower = Follower(
            self._node, self._write, self._publish, lambda: self._time_ns, patience)
        try:
            self._meet()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _meet(self) -> None:
        """Find the node and have it discover this one."""
        follower = self._follower
        meeting = Meeting(self._node, follower, self._spin)
        meeting.active()
        self._player = Player(
            self._node, Ahead(self._source, self._coming), rate=self._rate, clock=CLOCK,
            topic=meeting.topic(self._source))
        model, sim_time, period = meeting.parameters('model', 'use_sim_time', 'stats_period')
        meeting.heard(*self._player.publishers.values(), follower.questions, self._tell)
        self._model, self._sim_time = model.string_value, sim_time.bool_value
        self._silence = max(SILENCE, 3 * period.double_value)

    def replay(self, sinks: Iterable[Sink] = (), *, bags: Iterable[Bag] = (),
               thumbnails: Thumbnails | None = None,
               on_frame: Callable[[int], None] = lambda count: None) -> End:
        """Replay, once; see `infmllm_ros.replay.replayable.Replayable`."""
        self._sinks, self._bags, self._thumbnails = tuple(sinks), tuple(bags), thumbnails
        self._done, start = on_frame, time.monotonic()
        self._begin_run()
        thread = threading.Thread(target=self._play)
        thread.start()
        try:
            while thread.is_alive() and not self._problem:
                self._step()
            if not (self._problem or self._failure):
                self._finish()
        except KeyboardInterrupt:
            self._problem = INTERRUPTED
        finally:
            self._ended = True
            self._player.stop()
            thread.join()
        self._write_played()
        self._follower.give_up()
        problem = self._problem or self._failure or self._source.problem
        if problem:
            self._say(problem)
        end = self._follower.ledger.end({SENT: self._number}, problem, time.monotonic() - start,
                                        (self._time_ns - self._begin) / SECOND)
        self._write(end)
        return end

    def _begin_run(self) -> None:
        follower = self._follower
        now = time.monotonic()
        self._spin(lambda: follower.heard > now, self._silence)  # counts that are not old
        self._deliveries = Deliveries(self.cameras, follower.stats, self._patience)
        self._write(Run(
            self._source.name, 'live', model_name({'model': self._model}), follower.stats.policy,
            follower.stats.budget, self.cameras, questions=self._plan.name,
            measured={'started': datetime.now(timezone.utc).isoformat(timespec='seconds')}))
        follower.begin()
        if follower.stats.frames_seen:
            self._say(f'{follower.name} remembers {follower.stats.frames_seen:,} frames from '
                      'before: call its service reset first for answers that can be repeated')
        if not self._sim_time:
            self._say(f'{follower.name} does not follow /clock: set use_sim_time, or its watches '
                      'and ages go by its own clock')

    # In the thread that plays.

    def _play(self) -> None:
        try:
            self._player.play(self._on_frame, self._wait)
        except Exception as error:
            self._failure = f'{type(error).__name__}: {error}'

    def _coming(self, frame: Image) -> None:
        """Note what is due before a frame."""
        if self._number:
            self._due.extend(self._agenda.after(self._number - 1))
        else:
            self._begin = frame.time_ns
        self._due.extend(self._agenda.before((frame.time_ns - self._begin) / SECOND))
        self._next = frame

    def _wait(self, frame: Image) -> None:
        """Wait for what comes before a frame that is due."""
        if not self._number:
            self._set_clock(frame)
        self._hurry = not self._hold
        while not self._ended and (self._due or self._hold and self._busy()):
            time.sleep(STEP / 4)
        self._hurry = False

    def _set_clock(self, frame: Image) -> None:
        """Have the node's time go back, if it must, before the first frame: it may forget then."""
        self._player.tick(frame.time_ns)
        end = time.monotonic() + SETTLE
        for _ in range(2):
            heard = self._follower.heard
            while not self._ended and self._follower.heard == heard and time.monotonic() < end:
                time.sleep(STEP)

    def _on_frame(self, number: int, stamp_ns: int) -> None:
        """Note a frame that was sent."""
        camera = self._next.camera
        self._number, self._time_ns = number, self._next.time_ns
        self._deliveries.send(camera)
        jpeg = None
        if self._thumbnails is not None and self._time_ns >= self._next_picture:
            self._next_picture = self._time_ns + SECOND
            jpeg = picture(self._next)
        self._played.append((Frame(number - 1, stamp_ns, camera, SENT), jpeg))

    # In the caller's thread.

    def _spin(self, condition: Callable[[], Any], timeout: float) -> Any:
        """Hear the node until a condition holds; returns its value."""
        end = time.monotonic() + timeout
        while True:
            self._heed()
            self._executor.spin_once(timeout_sec=STEP)
            self._follower.look()
            value = condition()
            if value or time.monotonic() >= end:
                return value

    def _step(self) -> None:
        """Hear the node, and ask what is due."""
        self._spin(lambda: True, 0.0)
        self._write_played()
        self._problem = self._gone()
        self._settle()
        if self._due and (self._hurry or not (self._busy() if self._hold else self._behind())):
            self._do(self._due.popleft())

    def _finish(self) -> None:
        """Ask what comes at the end, and wait for all answers and the last statistics."""
        if self._number:
            self._due.extend(self._agenda.after(self._number - 1))
        due, left_out = self._agenda.end(
            (self._time_ns - self._begin) / SECOND, not self._source.problem)
        self._due.extend(due)
        for text in left_out:
            self._say(text)
        end = time.monotonic() + SETTLE
        while not self._problem and (self._due or self._busy()):
            self._hurry = not self._hold and time.monotonic() > end
            if self._hurry and not (self._due or self._follower.ledger.open):
                break
            self._step()
        end = time.monotonic() + LINGER
        self._spin(lambda: time.monotonic() > end and self._follower.heard > end - LINGER, SETTLE)
        dropped = self._deliveries.dropped(self._follower.stats)
        if dropped:
            self._say(f'{dropped} frames were dropped by the node, which was busy: an offline '
                      'replay sees them; --hold waits for it, a lower --rate gives it time')

    def _do(self, item: Telling | Turn) -> None:
        at = self._time_ns if item.at in (None, inf) else self._begin + round(item.at * SECOND)
        if isinstance(item, Turn):
            self._follower.ask(item, at)
            return
        self._write(Told(at, item.text))
        self._told = self._follower.stats.tokens_seen, time.monotonic()
        self._tell.publish(String(data=item.text))

    def _busy(self) -> bool:
        """Tell whether the node is not at an end with what it was given."""
        return bool(self._behind() or self._follower.ledger.open)

    def _behind(self) -> bool:
        """Tell whether the node has still to see a frame, or to remember a text."""
        return self._told is not None or self._deliveries.behind(self._follower.stats)

    def _settle(self) -> None:
        """Give up waiting for what does not come."""
        heard = self._follower.heard
        if self._told is not None:
            tokens, when = self._told
            if self._follower.stats.tokens_seen > tokens:
                self._told = None
            elif heard > when + SETTLE:
                self._told = None
                self._say('a text was not remembered: see the log of the node')
        for line in self._deliveries.give_up(self._follower.stats, heard):
            self._say(line)

    def _gone(self) -> str:
        """Say what has become of the node, if it is not there any more."""
        follower = self._follower
        silent = time.monotonic() - follower.heard
        after = f'after frame {self._number:,}'
        if silent > 1.0 and not self._node.count_publishers(follower.stats_topic):
            return f'{follower.name} has gone {after}: see its log'
        if silent > 2.0 and follower.status_heard > follower.heard and follower.state != 'active':
            return f'{follower.name} is {follower.state} {after}: activate it and replay again'
        if silent > self._silence:
            return f'{follower.name} has said nothing for {silent:.0f} s {after}: see its log'
        return ''

    def _write_played(self) -> None:
        while self._played:
            frame, jpeg = self._played.popleft()
            self._write(frame)
            if jpeg is not None:
                self._thumbnails.pass_by(frame.camera, frame.stamp_ns, jpeg)
            self._done(frame.number + 1)

    def _say(self, text: str) -> None:
        self._write(Problem(self._time_ns, text))

    def _write(self, record: Record) -> None:
        for sink in self._sinks:
            sink.write(record)

    def _publish(self, topic: str, time_ns: int, message: Any) -> None:
        for bag in self._bags:
            bag.publish(topic, time_ns, message)
        if self._thumbnails is not None and isinstance(message, CompressedImage):  # evidence
            self._thumbnails.keep(message.header.frame_id, nanoseconds(message.header.stamp),
                                  bytes(message.data))


def picture(frame: Image) -> bytes | None:
    """Make a thumbnail of a frame; None if it cannot be decoded."""
    image = frame.image
    try:
        if image is None:
            kind = CompressedImage if frame.msgtype == COMPRESSED else ImageMessage
            image = decode(deserialize_message(frame.raw, kind))
    except Exception:  # whatever broken bytes make it raise: the node will say so
        return None
    return thumbnail(image, SIZE)
