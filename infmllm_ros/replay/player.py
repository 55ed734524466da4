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
Play a video or a bag as cameras: ``python -m infmllm_ros.replay.player [PATH] [--rate 1.0]``.

Frames go out at the times of the source, divided by the rate. The publishers are reliable with a
short queue, so that they serve reliable and best-effort subscribers alike and never wait for one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
import sys
import threading
import time

from infmllm_ros.replay.sources import (
    camera_topics,
    cdr,
    COMPRESSED,
    Frame,
    IMAGE,
    open_source,
    SECOND,
    Source,
    SourceError,
)
from infmllm_ros.replay.transport import make_room
import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

STAMPS = ('source', 'now')
DEPTH = 10  # [messages] a slow reliable subscriber may lag


@dataclass
class Played:
    """What was sent; lateness is the time from when a frame was due to when it was sent."""

    frames: int = 0
    late_sum_ns: int = 0
    late_max_ns: int = 0
    seconds: float = 0.0  # [s] from the first frame to the last
    acknowledged: bool = True  # by every reliable subscriber, soon after the last frame

    def __str__(self) -> str:
        late = self.late_sum_ns / max(1, self.frames)
        return (f'{self.frames} frames in {self.seconds:.1f} s, late by {late / 1e6:.1f} ms on '
                f'average, {self.late_max_ns / 1e6:.1f} ms at most')


class Player:
    """
    Publishes the frames of a source.

    Parameters
    ----------
    node : rclpy.node.Node
        Whose clock stamps the frames, unless there is a `clock`.
    source : Source
        What to play. Serialized messages go out as they are.
    topic : str
        Where to, with one camera; several publish on ``<camera>/image``. Jpegs go to
        ``<topic>/compressed``, as image_transport has it.
    rate : float
        Speed, 1 is the source's own.
    compressed : bool
        Send pixels as jpeg; a bag's topics must be of that type already.
    stamps : str
        One of ``STAMPS``.
    frame_id : str
        Of the messages that are made here.
    clock : float, optional
        [Hz] how often the source's time goes out on ``/clock``, for nodes with ``use_sim_time``;
        it goes out with each frame anyway, before it, and is what stamps frames without a stamp.

    Attributes
    ----------
    publishers : dict of str to rclpy.publisher.Publisher
        Of each camera.

    Raises
    ------
    SourceError
        A rate or a clock that is not above 0; raw messages that would have to be compressed.
    """

    def __init__(self, node: Node, source: Source, *, topic: str = 'image', rate: float = 1.0,
                 compressed: bool = False, stamps: str = 'source', frame_id: str = 'camera',
                 clock: float | None = None):
        if not rate > 0:
            raise SourceError(f'rate {rate:g}: give one above 0 (1 is the speed of the source)')
        if clock is not None and not clock > 0:
            raise SourceError(f'clock {clock:g} Hz: give one above 0')
        if compressed and source.stamped and IMAGE in source.msgtypes.values():
            raise SourceError(f'{source.name}: the raw images of a bag are sent as they are: '
                              'leave out --compressed')
        self._node, self._source, self._rate = node, source, rate
        self._now, self._frame_id = stamps == 'now', frame_id
        self._stopped = threading.Event()
        self.publishers = {
            camera: self._publisher(topic if len(source.cameras) == 1 else f'{camera}/image',
                                    compressed or kind == COMPRESSED)
            for camera, kind in source.msgtypes.items()}
        self._clock = None if clock is None else node.create_publisher(Clock, '/clock', DEPTH)
        self._period = 0.2 if clock is None else 1 / clock  # [s]

    def _publisher(self, topic: str, compressed: bool) -> Publisher:
        return self._node.create_publisher(
            CompressedImage if compressed else Image, topic + '/compressed' * compressed,
            QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE))

    @property
    def heard(self) -> bool:
        """Whether somebody subscribes to each camera."""
        return all(p.get_subscription_count() for p in self.publishers.values())

    def wait_for_subscriber(self, timeout_s: float = 30.0) -> bool:
        """Return whether all cameras have one within the time; discovery can take seconds."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self._running():
            if self.heard:
                return True
            self._stopped.wait(0.05)
        return False

    def play(self, on_frame: Callable[[int, int], None] | None = None,
             before: Callable[[Frame], None] | None = None) -> Played:
        """
        Publish all frames, each when it is due, until the end, `stop` or the shutdown of ROS.

        `before` is called with a frame when it is due; as long as that takes, the source's time
        stands still. `on_frame` is called with (number of frames sent, stamp [ns] of the newest)
        after each. A frame that is late is sent at once: none is left out.
        """
        played = Played()
        begin = first = held = 0
        anchor = self._node.get_clock().now().nanoseconds
        for frame in self._source:
            if not played.frames:
                begin, first = time.monotonic_ns(), frame.time_ns
            due = begin + held + int((frame.time_ns - first) / self._rate)
            while self._running() and (gap := due - time.monotonic_ns()) > 0:
                if played.frames:
                    self.tick(frame.time_ns - int(gap * self._rate))
                self._stopped.wait(min(gap / SECOND, self._period))
            if before is not None and self._running():
                called = time.monotonic_ns()
                before(frame)
                held += (took := time.monotonic_ns() - called)
                due += took
            if not self._running():
                break
            self.tick(frame.time_ns)
            stamp = self._publish(frame, anchor + frame.time_ns - first)
            late = max(0, time.monotonic_ns() - due)
            played.frames += 1
            played.late_sum_ns += late
            played.late_max_ns = max(played.late_max_ns, late)
            played.seconds = (time.monotonic_ns() - begin) / SECOND
            if on_frame is not None:
                on_frame(played.frames, stamp)
        if self._running():
            played.acknowledged = all(p.wait_for_all_acked(Duration(seconds=5))
                                      for p in self.publishers.values())
        return played

    def stop(self) -> None:
        """End `play` before its next frame; from any thread."""
        self._stopped.set()

    def _running(self) -> bool:
        return self._node.context.ok() and not self._stopped.is_set()

    def tick(self, time_ns: int) -> None:
        """Publish the source's time."""
        if self._clock is not None:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(time_ns, SECOND)
            self._clock.publish(message)

    def _publish(self, frame: Frame, anchored_ns: int) -> int:
        """Send a frame and return its stamp [ns]."""
        if self._clock is not None:
            stamp_ns = frame.time_ns
        else:
            stamp_ns = self._node.get_clock().now().nanoseconds if self._now else anchored_ns
        publisher = self.publishers[frame.camera]
        if frame.raw is None:
            raw = cdr.image(stamp_ns, self._frame_id, frame.image) \
                if publisher.msg_type is Image else \
                cdr.compressed(stamp_ns, self._frame_id, 'jpeg', cdr.jpeg(frame.image))
        elif self._source.stamped and not self._now:
            raw = frame.raw
        else:
            raw = cdr.restamped(frame.raw, stamp_ns)
        publisher.publish(raw)
        return cdr.stamp_of(raw)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m infmllm_ros.replay.player',
        description='Play a video or a bag as a camera, or several.')
    parser.add_argument('path', nargs='?', help='avi, mp4, .mcap, .db3, a bag folder or a folder '
                        'of images; default: a rendered drive')
    topics = parser.add_mutually_exclusive_group()
    topics.add_argument('--bag-topic', help="which of a bag's image topics to play")
    topics.add_argument('--cameras', nargs='+', default=[], metavar='NAME=TOPIC',
                        help='which of them, as cameras; several are published on NAME/image')
    parser.add_argument('--fps', type=float, help='of images without stamps (default: 10)')
    parser.add_argument('--topic', default='image', help='where to publish one camera (default: '
                        'image; jpegs go to TOPIC/compressed)')
    parser.add_argument('--rate', type=float, default=1.0, help='speed (default: 1)')
    parser.add_argument('--compressed', action='store_true', help='send pixels as jpeg')
    parser.add_argument('--stamps', choices=STAMPS, default='source',
                        help="source time (a bag's own stamps) or the clock at sending")
    parser.add_argument('--clock', type=float, metavar='HZ', help="publish the source's time on "
                        '/clock, that often and with each frame')
    parser.add_argument('--frame-id', default='camera', help='frame of the camera, for a video')
    parser.add_argument('--wait', type=float, default=30.0, metavar='SECONDS',
                        help='how long to wait for a subscriber (default: 30)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Play and report; return 0, or 2 on an input that cannot be played, 3 if nobody listens."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _arguments(remove_ros_args(['player', *argv])[1:])
    make_room()
    rclpy.init(args=argv)
    node = rclpy.create_node('player')
    try:
        words = arguments.cameras or filter(None, [arguments.bag_topic])
        source = open_source(arguments.path, camera_topics(words), arguments.fps)
        player = Player(node, source, topic=arguments.topic, rate=arguments.rate,
                        compressed=arguments.compressed, stamps=arguments.stamps,
                        frame_id=arguments.frame_id, clock=arguments.clock)
        topics = ', '.join(p.topic_name for p in player.publishers.values())
        if not player.wait_for_subscriber(arguments.wait):
            if rclpy.ok():
                node.get_logger().error(f'nobody subscribed to {topics} within '
                                        f'{arguments.wait:g} s')
                return 3
            return 0
        node.get_logger().info(f'{topics}: {player.play()}')
        if source.problem:
            node.get_logger().warning(source.problem)
    except SourceError as error:
        node.get_logger().error(str(error))
        return 2
    except KeyboardInterrupt:
        pass
    except Exception:
        if rclpy.ok():  # else a signal came, in rclpy's own steps maybe
            raise
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
