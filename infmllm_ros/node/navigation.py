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

"""The navigation context of the node: its topics, its clock, its frames."""

from __future__ import annotations

from dataclasses import fields
import threading
from typing import Any

from geometry_msgs.msg import Point
from infmllm_msgs.msg import Maneuver
from infmllm_ros.navigation import (
    Guidance,
    Guide,
    Odometry,
    PathInput,
    Pose,
    Rules,
    Unusable,
    yaw,
)
from infmllm_ros.node.convert import nanoseconds, time_message
from infmllm_ros.node.qos import Endpoints
from nav_msgs.msg import Odometry as OdometryMessage
from nav_msgs.msg import Path as PathMessage
import numpy as np
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from std_msgs.msg import Header

try:
    import tf2_ros
except ImportError:  # both inputs must then be in one frame
    tf2_ros = None


class NavigationInput:
    """
    Takes in path and odometry while the node is active, and tells what lies ahead.

    Parameters
    ----------
    node : rclpy.node.Node
        Who subscribes and publishes.
    ends : Endpoints
        Makes the subscriptions.
    settings : dict
        The parameters ``nav.*``, by their names without ``nav.``.
    clock : rclpy.clock.Clock
        Of the timer; ages are by the node's own.
    """

    def __init__(self, node: Any, ends: Endpoints, settings: dict[str, Any], clock: Any):
        """Subscribe."""
        self._node, self._ends = node, ends
        self._frames = Frames(node, settings['timeout']) if tf2_ros else None
        rules = Rules(**{f.name: settings[f.name] for f in fields(Rules)})
        self._guide = Guide(rules, settings['timeout'], settings['path_timeout'],
                            self._frames.pose if self._frames else None)
        self._lock = threading.Lock()  # the timer's thread and the worker's both make contexts
        self._what = ''  # kind of the problem that the log has told of
        # A path comes seldom and must not be lost; a planner that latches it needs an override.
        path_qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1,
                              reliability=ReliabilityPolicy.RELIABLE,
                              durability=DurabilityPolicy.VOLATILE)
        odometry_qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1,
                                  reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions = [
            ends.subscription(kind, topic, callback, qos) for kind, topic, callback, qos in (
                (PathMessage, 'path', self._on_path, path_qos),
                (OdometryMessage, 'odom', self._on_odometry, odometry_qos))]
        self._publisher = node.create_publisher(Maneuver, 'maneuver', 10)
        self._timer = node.create_timer(settings['period'], self._on_timer, clock=clock)
        self.reason = ''  # why there is no context now; empty when there is

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_timer(self._timer)
        for subscription in self._subscriptions:
            self._ends.unsubscribe(subscription)
        self._node.destroy_publisher(self._publisher)
        if self._frames is not None:
            self._frames.close()

    def context(self) -> str:
        """Write what to put before a question that is answered now; may be empty."""
        with self._lock:
            guidance = self._guidance()
        return guidance.text if guidance else ''

    def _guidance(self) -> Guidance | None:
        """Make the context; the log tells once why there is none, and once that it is back."""
        try:
            guidance = self._guide.guidance(self._node.get_clock().now().nanoseconds)
        except Unusable as error:
            self.reason, what = str(error), error.what
            if what != self._what:
                self._node.get_logger().warning(f'no navigation context: {error}')
            self._what = what
            return None
        if self._what:
            self._node.get_logger().info('navigation context: path and odometry are usable')
        self._what = self.reason = ''
        return guidance

    def _on_path(self, message: PathMessage) -> None:
        points = np.array([(p.pose.position.x, p.pose.position.y) for p in message.poses])
        self._guide.follow(PathInput(points, message.header.frame_id.lstrip('/'),
                                     self._stamp(message.header)))

    def _on_odometry(self, message: OdometryMessage) -> None:
        self._guide.move(odometry(message, self._stamp(message.header)))

    def _stamp(self, header: Header) -> int:
        """Read a stamp; one that nobody filled in counts as now."""
        return nanoseconds(header.stamp) or self._node.get_clock().now().nanoseconds

    def _on_timer(self) -> None:
        with self._lock:
            guidance = self._guidance()
        if guidance is not None:
            self._publisher.publish(maneuver_message(guidance))


class Frames:
    """
    Frames of tf2: where one lies in another.

    Parameters
    ----------
    node : rclpy.node.Node
        Who listens to tf.
    timeout : float
        [s] Oldest transform to use; one that never changes has no age.
    """

    def __init__(self, node: Any, timeout: float):
        """Listen."""
        self._timeout = timeout
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def close(self) -> None:
        """Listen no longer."""
        self._listener.unregister()

    def pose(self, target: str, source: str, now_ns: int) -> Pose:
        """
        Find the pose of one frame in another, by the latest transform.

        Raises
        ------
        Unusable
            tf knows no way between them, or only an old one.
        """
        try:
            found = self._buffer.lookup_transform(target, source, Time())
        except tf2_ros.TransformException as error:
            raise Unusable('other frame', (
                f"the path is in '{target}', the odometry in '{source}', and tf has no way from "
                f"one to the other ({' '.join(str(error).split())}): publish it, or both in one "
                'frame')) from None
        stamp, age = nanoseconds(found.header.stamp), 0.0
        if stamp:
            age = (now_ns - stamp) / 1e9
        if age > self._timeout:
            raise Unusable('stale transform', (
                f"that from '{source}' to '{target}' is {age:.1f} s old, the most is "
                f'{self._timeout}: check the localization, or raise nav.timeout'))
        move, turn = found.transform.translation, found.transform.rotation
        return Pose(move.x, move.y, yaw(turn.x, turn.y, turn.z, turn.w))


def odometry(message: OdometryMessage, stamp_ns: int) -> Odometry | Unusable:
    """Read an odometry message; one with numbers that make no sense is of no use."""
    place, turn = message.pose.pose.position, message.pose.pose.orientation
    speed = message.twist.twist.linear
    try:
        pose = Pose(place.x, place.y, yaw(turn.x, turn.y, turn.z, turn.w))
        numbers = np.array([place.x, place.y, speed.x, speed.y])
        if not np.isfinite(numbers).all():
            raise ValueError(f'position and speed are {numbers.tolist()}: send finite numbers')
    except ValueError as error:
        return Unusable('bad odometry', str(error))
    return Odometry(pose, float(np.hypot(speed.x, speed.y)), message.header.frame_id.lstrip('/'),
                    message.child_frame_id, stamp_ns)


def maneuver_message(guidance: Guidance) -> Maneuver:
    """Make the message of a navigation context."""
    path, odometry = guidance.maneuvers, guidance.odometry
    return Maneuver(
        header=Header(stamp=time_message(odometry.stamp_ns), frame_id=odometry.ego),
        action=int(path.action), distance=path.distance,
        time=-1.0 if guidance.time is None else guidance.time,
        next_action=int(path.next_action), next_distance=path.next_distance,
        supplementary=guidance.supplementary, summary=guidance.summary, text=guidance.text,
        points=[Point(x=float(x), y=float(y)) for x, y in guidance.points])
