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

"""Why not all is as it should be with time and pace: once in the log, always in diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from infmllm_ros.node.cameras import Tally
from infmllm_ros.node.diagnostics import OK, status, titles_of, WARN
from infmllm_ros.node.health import Health
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.pace import PaceMeter, PERIOD, Stamps
from infmllm_ros.node.parameters import of_camera
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration


class Notices:
    """
    Logs a problem once when it begins, and once when it is over.

    Parameters
    ----------
    logger : rclpy.impl.rcutils_logger.RcutilsLogger
    """

    def __init__(self, logger: Any):
        """Start without a problem."""
        self._logger = logger
        self._standing: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Tell whether the log holds this problem as one that goes on."""
        return name in self._standing

    def tell(self, name: str, problem: str, over: str) -> None:
        """Say what the problem is now, empty for none, and how it reads when it is over."""
        if problem and name not in self._standing:
            self._standing.add(name)
            self._logger.warning(problem)
        elif not problem and name in self._standing:
            self._standing.remove(name)
            self._logger.info(over)


class Timekeeper:
    """
    Notices when time goes back, by the stamps of frames and by the node's clock.

    Parameters
    ----------
    node : rclpy.node.Node
        Whose clock and parameters count.
    forget : callable
        Clears the memory, if there is one.
    """

    def __init__(self, node: Any, forget: Callable[[], None]):
        """Listen to the clock."""
        self._node, self._forget = node, forget
        self._stamps = Stamps()
        self._notices = Notices(node.get_logger())
        self._start = time.monotonic()
        self._rewinds = 0
        self._last = ('', -float('inf'))  # what was said of the last one, and when
        # when stamps told of one that the clock has not, and how far they went back [s]
        self._by_stamps = (-float('inf'), 0.0)
        self._answer_age = ''
        self._handle = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1),
                          on_clock_change=False), post_callback=self._on_jump)

    def age(self, stamp_ns: int) -> float:
        """Say how old something is by the node's clock, in seconds."""
        return (self._node.get_clock().now().nanoseconds - stamp_ns) / 1e9

    def frame(self, frame: Frame) -> Frame:
        """Look at a frame's stamp, before the frame is handed in; returns it with its lap."""
        lap, back = self._stamps.take(
            frame.camera, frame.stamp_ns, self._value('rewind_tolerance'))
        if back:
            self._by_stamps = time.monotonic(), back
            self._rewound(back, 'the stamps of the images')
        return replace(frame, lap=lap)

    def answered(self, age: float) -> None:
        """Note how old the newest frame was that an answer saw, in seconds."""
        self._answer_age = f'{age:.3f}'

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _on_jump(self, jump: TimeJump) -> None:
        back = -jump.delta.nanoseconds / 1e9
        if back <= self._value('rewind_tolerance'):
            return
        when, by_stamps = self._by_stamps
        # an image was here first, and went back as far: told once
        known = time.monotonic() - when < PERIOD and abs(back - by_stamps) < PERIOD
        self._by_stamps = (-float('inf'), 0.0)
        if not known:
            self._stamps.turn()
            self._rewound(back, 'the clock')

    def _rewound(self, back: float, what: str) -> None:
        self._rewinds += 1
        if self._value('rewind') == 'reset':
            done = 'the memory was cleared, as rewind is reset'
            self._forget()
        else:
            done = ('the memory goes on and holds frames of both times: set rewind to reset to '
                    'start afresh')
        text = f'time went back by {back:.1f} s, by {what} (a bag that loops?): {done}'
        self._last = (text, time.monotonic())
        self._node.get_logger().warning(text)

    def status(self, newest: Frame | None) -> DiagnosticStatus:
        """Report clock and ages."""
        clock = self._node.get_clock()
        simulated = clock.ros_time_is_active
        problem = '' if clock.now().nanoseconds or not simulated else (
            'use_sim_time is set, but nothing has come on /clock: start the simulator, play the '
            'bag with --clock, or set use_sim_time to false')
        if not problem or time.monotonic() - self._start > self._value('image_timeout'):
            self._notices.tell('clock', problem, 'time comes on /clock')
        text, when = self._last
        problem = problem or (text if time.monotonic() - when < PERIOD else '')
        kind = 'simulated' if simulated else 'system'
        return status(
            'time', WARN if problem else OK, problem or f'{kind} time', clock=kind,
            newest_frame_age_s=f'{self.age(newest.stamp_ns):.3f}' if newest else '',
            last_answer_age_s=self._answer_age, rewinds=self._rewinds)


class Pacer:
    """
    Notices when the model cannot keep up with a camera.

    Parameters
    ----------
    node : rclpy.node.Node
        Whose parameters count.
    """

    def __init__(self, node: Any):
        """Start without a sample."""
        self._node = node
        self._meters: dict[str, PaceMeter] = {}
        self._notices = Notices(node.get_logger())

    def statuses(self, names: Sequence[str], health: Health | None) -> list[DiagnosticStatus]:
        """Report of each camera how many frames come, and how many of them the model sees."""
        titles = titles_of('frame rate', names)
        if health is None:
            return [status(title, OK, 'no model loaded') for title in titles.values()]
        return [self._status(
            titles[tally.name], f'camera {tally.name}' if len(names) > 1 else 'the camera', tally)
            for tally in health.cameras]

    def _status(self, title: str, camera: str, tally: Tally) -> DiagnosticStatus:
        meter = self._meters.setdefault(tally.name, PaceMeter())
        limit = self._node.get_parameter('missed_warning').value
        pace = meter.measure(time.monotonic(), tally.received, tally.dropped,
                             of_camera(self._node, tally.name, 'max_frame_rate'))
        if title in self._notices:
            limit /= 2  # what hovers about the limit is told once
        problem = '' if pace.missed <= limit else (
            f'the model is slower than {camera}: in {PERIOD:.0f} s {pace.came:.1f} frames a '
            f'second came, it saw {pace.seen:.1f}: lower max_frame_rate or the rate of the '
            'camera; fewer tokens_per_frame, shorter answers or a smaller model are quicker')
        self._notices.tell(title, problem, f'the model keeps up with {camera} again')
        return status(title, WARN if problem else OK, problem or 'the model keeps up',
                      came_Hz=f'{pace.came:.1f}', seen_Hz=f'{pace.seen:.1f}',
                      missed=f'{pace.missed:.2f}')
