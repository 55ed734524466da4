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
Hold a robot back while a watch says so, or says nothing: ``python examples/slow_down.py``.

Passes ``cmd_vel_in`` on as ``cmd_vel``, at most as fast as the last answer of the watch allows. An
answer holds it back at once; it takes `hold` answers in a row to let it go. When the answers fail
or grow old, the robot stops. A help, no safety device: keep those that you have.
"""

from dataclasses import dataclass
import sys

from geometry_msgs.msg import Twist, TwistStamped
from infmllm_msgs.msg import Answer
import rclpy
from rclpy.node import Node
from rclpy.time import Time


@dataclass
class Limit:
    """
    What a watch allows.

    Parameters
    ----------
    stop_on, slow_on : list of str
        Choices at which to stop and to slow down.
    slow_speed : float
        [m/s]
    timeout : float
        [s] how old the frame may be that the last answer saw.
    hold : int
        [answers] in a row that must allow more before more is allowed.
    """

    stop_on: list[str]
    slow_on: list[str]
    slow_speed: float
    timeout: float
    hold: int
    _speed: float = 0.0  # [m/s] until the first answer, nothing is allowed
    _stamp: float = -float('inf')
    _better: int = 0

    def answered(self, choice: str, stamp: float) -> None:
        """Take in an answer about a frame of that time [s]."""
        speed = (0.0 if choice in self.stop_on else
                 self.slow_speed if choice in self.slow_on else float('inf'))
        self._stamp = stamp
        self._better = self._better + 1 if speed > self._speed else 0
        if speed < self._speed or self._better >= self.hold:
            self._speed, self._better = speed, 0

    def speed(self, now: float) -> float:
        """Say how fast the robot may go at a time [s], in m/s."""
        return self._speed if now - self._stamp <= self.timeout else 0.0


class SlowDown(Node):
    """The node between whoever drives and the wheels."""

    def __init__(self):
        """Read the parameters and listen."""
        super().__init__('slow_down')

        def value(name, default):
            return self.declare_parameter(name, default).value

        self._limit = Limit(
            list(value('stop_on', ['red'])), list(value('slow_on', ['yellow'])),
            value('slow_speed', 0.2), value('timeout', 2.0), value('hold', 2))
        self._stamped = value('stamped', False)  # Nav2: enable_stamped_cmd_vel
        self._kind = TwistStamped if self._stamped else Twist
        self._out = self.create_publisher(self._kind, 'cmd_vel', 10)
        self.create_subscription(self._kind, 'cmd_vel_in', self._on_command, 10)
        topic = f'watch/{value("watch", "traffic_light")}'
        self.create_subscription(Answer, topic, self._on_answer, 10)
        self._said = None

    def _on_answer(self, answer: Answer) -> None:
        if answer.status == Answer.OK:  # one that failed leaves the last to grow old
            self._limit.answered(answer.text, Time.from_msg(answer.header.stamp).nanoseconds / 1e9)
        if self._allowed() == 0:
            self._out.publish(self._kind())  # now, not with the next command

    def _allowed(self) -> float:
        allowed = self._limit.speed(self.get_clock().now().nanoseconds / 1e9)
        if allowed != self._said:
            self._said = allowed
            self.get_logger().info(f'at most {allowed:g} m/s')
        return allowed

    def _on_command(self, message: Twist | TwistStamped) -> None:
        twist = message.twist if self._stamped else message
        allowed = self._allowed()
        wanted = (twist.linear.x ** 2 + twist.linear.y ** 2) ** 0.5
        share = 0.0 if allowed == 0 else min(1.0, allowed / wanted) if wanted else 1.0
        for part in (twist.linear, twist.angular):  # both, so that the curve stays the same
            part.x, part.y, part.z = share * part.x, share * part.y, share * part.z
        self._out.publish(message)


def main() -> None:
    """Run until interrupted."""
    rclpy.init()
    try:
        node = SlowDown()
        while rclpy.ok():  # in steps, as a signal may wake rclpy just before it ends the context
            rclpy.spin_once(node, timeout_sec=1.0)
    except KeyboardInterrupt:
        pass
    except Exception:
        if rclpy.ok():  # else a signal came, in rclpy's own steps maybe
            raise
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
