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
Play a video or a bag as a camera: ``python -m infmllm_ros.replay.player [PATH] [--rate 1.0]``.

Frames go out at the times of the source, divided by the rate.  The publisher is reliable with a
short queue, so that it serves reliable and best-effort subscribers alike and never waits for one.
"""
from __future__ import annotations

import argparse
import array
from collections.abc import Callable
from dataclasses import dataclass
import io
import struct
import sys
import threading
import time

from infmllm_ros.replay.sources import COMPRESSED, Frame, open_source, SECOND, Source, SourceError
from infmllm_ros.replay.transport import make_room
import numpy as np
from PIL import Image as PillowImage
import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage, Image

#: Source time (a bag's own stamps; of pixels, counted from the start) or the clock at sending.
STAMPS = ('source', 'now')
JPEG_QUALITY = 90
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
        Whose clock stamps the frames.
    source : Source
        What to play.  The messages of a bag go out as they are.
    topic : str
        Where to; jpegs go to ``<topic>/compressed``, as image_transport has it.
    rate : float
        Speed, 1 is the source's own.
    compressed : bool
        Send pixels as jpeg; a bag's topic must be of that type already.
    stamps : str
        One of ``STAMPS``.
    frame_id : str
        Of the messages that are made here.

    Raises
    ------
    SourceError
        A rate that is not above 0; raw messages that would have to be compressed.

    """

    def __init__(self, node: Node, source: Source, *, topic: str = 'image', rate: float = 1.0,
                 compressed: bool = False, stamps: str = 'source', frame_id: str = 'camera'):
        if not rate > 0:
            raise SourceError(f'rate {rate:g}: give one above 0 (1 is the speed of the source)')
        bag = getattr(source, 'topic', None)
        if compressed and bag and source.msgtype != COMPRESSED:
            raise SourceError(f'{bag}: the raw images of a bag are sent as they are: leave out '
                              '--compressed')
        self.compressed = compressed or source.msgtype == COMPRESSED
        self._node, self._source, self._rate = node, source, rate
        self._now, self._frame_id = stamps == 'now', frame_id
        self._stopped = threading.Event()
        self.publisher = node.create_publisher(
            CompressedImage if self.compressed else Image,
            topic + '/compressed' * self.compressed,
            QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE))

    def wait_for_subscriber(self, timeout_s: float = 30.0) -> bool:
        """Return whether somebody subscribes within the time; discovery can take seconds."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self._running():
            if self.publisher.get_subscription_count():
                return True
            self._stopped.wait(0.05)
        return False

    def play(self, on_frame: Callable[[int, int], None] | None = None) -> Played:
        """
        Publish all frames, each when it is due, until the end, `stop` or the shutdown of ROS.

        `on_frame` is called with (number of frames sent, stamp [ns] of the newest) after each.
        A frame that is late is sent at once: none is left out.
        """
        played = Played()
        begin = first = 0
        anchor = self._node.get_clock().now().nanoseconds
        for frame in self._source:
            if not played.frames:
                begin, first = time.monotonic_ns(), frame.time_ns
            due = begin + int((frame.time_ns - first) / self._rate)
            while self._running() and (gap := due - time.monotonic_ns()) > 0:
                self._stopped.wait(min(gap / SECOND, 0.2))
            if not self._running():
                break
            elapsed = 0 if self._now else frame.time_ns - first
            start = self._node.get_clock().now().nanoseconds if self._now else anchor
            stamp = self._publish(frame, start + elapsed)
            late = max(0, time.monotonic_ns() - due)
            played.frames += 1
            played.late_sum_ns += late
            played.late_max_ns = max(played.late_max_ns, late)
            played.seconds = (time.monotonic_ns() - begin) / SECOND
            if on_frame is not None:
                on_frame(played.frames, stamp)
        if self._running():
            played.acknowledged = self.publisher.wait_for_all_acked(Duration(seconds=5))
        return played

    def stop(self) -> None:
        """End `play` before its next frame; from any thread."""
        self._stopped.set()

    def _running(self) -> bool:
        return self._node.context.ok() and not self._stopped.is_set()

    def _publish(self, frame: Frame, stamp_ns: int) -> int:
        """Send a frame and return its stamp [ns]."""
        if frame.raw is None:
            self.publisher.publish(self._message(frame.image, stamp_ns))
            return stamp_ns
        raw = restamped(frame.raw, stamp_ns) if self._now else frame.raw
        self.publisher.publish(raw)
        return stamp_of(raw)

    def _message(self, image: np.ndarray, stamp_ns: int) -> Image | CompressedImage:
        """Return the message of pixels ``[H, W, 3]``."""
        if self.compressed:
            file = io.BytesIO()
            PillowImage.fromarray(image).save(file, 'jpeg', quality=JPEG_QUALITY)
            message, data = CompressedImage(format='jpeg'), file.getvalue()
        else:
            height, width, channels = image.shape
            message = Image(height=height, width=width, encoding='rgb8', step=width * channels)
            data = memoryview(np.ascontiguousarray(image)).cast('B')
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
        message.header.frame_id = self._frame_id
        message.data = array.array('B')  # what rclpy takes without a copy, element by element
        message.data.frombytes(data)
        return message


def _stamp_format(raw: bytes) -> str:
    """Return how the header's stamp lies in a serialized message, behind 4 bytes that say so."""
    return '<iI' if raw[1] & 1 else '>iI'


def stamp_of(raw: bytes) -> int:
    """Return the stamp [ns] of a serialized message that begins with a header."""
    sec, nanosec = struct.unpack_from(_stamp_format(raw), raw, 4)
    return sec * SECOND + nanosec


def restamped(raw: bytes, stamp_ns: int) -> bytes:
    """Return a serialized message that begins with a header, with another stamp [ns]."""
    return raw[:4] + struct.pack(_stamp_format(raw), *divmod(stamp_ns, SECOND)) + raw[12:]


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m infmllm_ros.replay.player',
        description='Play a video or a bag as a camera.')
    parser.add_argument('path', nargs='?', help='avi, mp4, .mcap, .db3 or a bag folder; '
                        'default: a rendered drive')
    parser.add_argument('--bag-topic', help="which of a bag's image topics to play")
    parser.add_argument('--topic', default='image', help='where to publish (default: image; '
                        'jpegs go to TOPIC/compressed)')
    parser.add_argument('--rate', type=float, default=1.0, help='speed (default: 1)')
    parser.add_argument('--compressed', action='store_true', help='send pixels as jpeg')
    parser.add_argument('--stamps', choices=STAMPS, default='source',
                        help="source time (a bag's own stamps) or the clock at sending")
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
        player = Player(node, open_source(arguments.path, arguments.bag_topic),
                        topic=arguments.topic, rate=arguments.rate,
                        compressed=arguments.compressed, stamps=arguments.stamps,
                        frame_id=arguments.frame_id)
        if not player.wait_for_subscriber(arguments.wait):
            if rclpy.ok():
                node.get_logger().error(f'nobody subscribed to {player.publisher.topic_name} '
                                        f'within {arguments.wait:g} s')
                return 3
            return 0
        node.get_logger().info(f'{player.publisher.topic_name}: {player.play()}')
    except SourceError as error:
        node.get_logger().error(str(error))
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
