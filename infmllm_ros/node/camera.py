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

"""One camera of the node: its subscription, its counters, and why nothing comes from it."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

from infmllm_ros.node.convert import nanoseconds
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.qos import Endpoints
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image


class CameraInput:
    """
    Subscribes to one camera while the node is active, and watches that images come.

    Parameters
    ----------
    node : rclpy.node.Node
        Who subscribes.
    ends : Endpoints
        Makes the subscription.
    name : str
        The camera's name; may be empty.
    topic : str
        Of its raw images.
    transport : str
        'raw' or 'compressed'.
    offer : callable
        Takes each Frame as it comes; must return at once.
    """

    def __init__(self, node: Any, ends: Endpoints, name: str, topic: str, transport: str,
                 offer: Callable[[Frame], None]):
        """Subscribe."""
        self._node, self._ends = node, ends
        self.name = name
        self._base = topic
        self._offer = offer
        self._last = self._start = time.monotonic()  # [s] of the last image; of the subscription
        self._silent = False
        self.bad_image = ('', -float('inf'))  # why the last one was dropped, and when [s]
        # As image_transport does: the compressed topic lies under the raw one's resolved name.
        raw = node.resolve_topic_name(topic)
        compressed = transport == 'compressed'
        self.topic = raw + '/compressed' if compressed else raw
        self._type = CompressedImage if compressed else Image
        self.received = 0
        self._subscription = ends.subscription(
            self._type, self.topic, self._on_image,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))

    def close(self) -> None:
        """Unsubscribe."""
        self._ends.unsubscribe(self._subscription)

    @property
    def mismatch(self) -> str:
        """Name what of the quality of service a publisher does not match; empty when all do."""
        return self._ends.problem(self._subscription)

    @property
    def age(self) -> float:
        """Time since the last image, or since the subscription when none came, in seconds."""
        return time.monotonic() - self._last

    @property
    def rate(self) -> float:
        """Mean rate of images since the subscription, in Hz."""
        return self.received / max(time.monotonic() - self._start, 1e-3)

    def watch(self, timeout: float) -> str:
        """
        Say why no image comes, and what to do; empty when images come.

        Warns in the log once when they stop, and says once when they are back.
        """
        silent = self.age > timeout
        reason = self._reason() if silent else ''
        if silent and not self._silent and not self.mismatch:  # that was said already
            self._node.get_logger().warning(reason)
        elif self._silent and not silent:
            self._node.get_logger().info(f'images come again on {self.topic}')
        self._silent = silent
        return reason

    def _reason(self) -> str:
        head = f'no image on {self.topic} for {self.age:.1f} s: '
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if not publishers:
            return head + ('nobody publishes there: start the camera, or remap the topic with '
                           f'-r {self._base}:=CAMERA_TOPIC')
        if self.mismatch:
            return head + self.mismatch
        kind = f'sensor_msgs/msg/{self._type.__name__}'
        types = sorted({p.topic_type for p in publishers})
        if kind not in types:
            return head + (f'it carries {", ".join(types)}, not {kind}: set image_transport to '
                           'raw or compressed to match')
        return head + (f'publishers: {len(publishers)}, but nothing arrives: is the camera '
                       'running? Large raw images can be lost in shared memory: use '
                       'image_transport compressed, or a larger segment at the camera')

    def _on_image(self, message: Any) -> None:
        self._last = time.monotonic()
        self.received += 1
        self._offer(Frame(message, nanoseconds(message.header.stamp), message.header.frame_id,
                          self.name))
