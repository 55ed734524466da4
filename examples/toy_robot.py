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
A robot that drives through rendered scenes: ``python examples/toy_robot.py``.

Its camera shows a drive that the bundled model knows. It wants to go at 1 m/s (``cmd_vel_in``) and
does what comes back (``cmd_vel``); what the light really shows and how fast it went is printed.
"""

import argparse
import array
import sys
import time

from geometry_msgs.msg import Twist
from infmllm_ros.bundled.scenes import Episode
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

WISH = 1.0  # [m/s]
PATIENCE = 60.0  # [s] for a node that looks at the images
SILENT = 1.0  # [s] without a command, after which it stops by itself


class ToyRobot:
    """A camera, wheels, and a driver with one wish."""

    def __init__(self, node: Node, seed: int):
        """Publish camera and wish, listen to commands."""
        self.node, self.episode = node, Episode('drive', seed, keys=0)
        self.images = node.create_publisher(Image, 'image', 1)
        self.wishes = node.create_publisher(Twist, 'cmd_vel_in', 1)
        node.create_subscription(Twist, 'cmd_vel', self._on_command, 10)
        self._speed, self._heard, self.way = 0.0, -float('inf'), 0.0

    def _on_command(self, command: Twist) -> None:
        self._speed, self._heard = command.linear.x, time.monotonic()

    @property
    def speed(self) -> float:
        """Say how fast the wheels turn, in m/s."""
        return self._speed if time.monotonic() - self._heard < SILENT else 0.0

    def see(self) -> str:
        """Take a picture; return the colour of the light in it."""
        step = next(self.episode)
        height, width, _ = step.frame.shape
        data = array.array('B', np.ascontiguousarray(step.frame).tobytes())
        message = Image(height=height, width=width, encoding='rgb8', step=3 * width, data=data)
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.header.frame_id = 'toy_camera'
        self.images.publish(message)
        return step.truth['light']

    def drive(self, seconds: float) -> None:
        """Wish and roll for a while."""
        wish, end = Twist(), time.monotonic() + seconds
        wish.linear.x = WISH
        while (now := time.monotonic()) < end:
            self.wishes.publish(wish)
            rclpy.spin_once(self.node, timeout_sec=0.05)
            self.way += self.speed * (time.monotonic() - now)


def main() -> int:
    """Drive; 0 if anybody looked at the images."""
    parser = argparse.ArgumentParser(description='Drive through rendered scenes.')
    parser.add_argument('--frames', type=int, default=40, help='how long (40)')
    parser.add_argument('--period', type=float, default=0.5, help='[s] between two frames (0.5)')
    parser.add_argument('--seed', type=int, default=1, help='which drive (1)')
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    node = rclpy.create_node('toy_robot')
    try:
        robot, end = ToyRobot(node, arguments.seed), time.monotonic() + PATIENCE
        while not robot.images.get_subscription_count():
            rclpy.spin_once(node, timeout_sec=0.1)
            if time.monotonic() > end:
                print('nobody looks at the images: is the node active?', file=sys.stderr)
                return 1
        for number in range(arguments.frames):
            light = robot.see()
            robot.drive(arguments.period)
            print(f'{number:3}  light {light:7} {robot.speed:4.1f} m/s  {robot.way:5.1f} m',
                  flush=True)
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
