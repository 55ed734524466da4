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

"""A worker that hangs: noticed, reported once, and got over. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PERIOD = 0.25  # [s] between two looks
STATUS = 75  # of a process that ends itself: EX_TEMPFAIL of sysexits.h, try again
REPORT, FAIL, RESET, EXIT = ACTIONS = ('report', 'fail', 'reset', 'exit')


class Watchdog:
    """
    Looks at the worker now and then; when one job makes no progress for too long, acts.

    A forward pass cannot be ended from outside in Python: its thread stays until the pass ends
    by itself, and what it then brings is not heard of. One that hangs with the interpreter's lock
    stops the watchdog, too: then the heartbeat in the diagnostics stands still.

    Parameters
    ----------
    node : rclpy.node.Node
        Whose parameters ``watchdog_timeout`` and ``watchdog_action``, and whose log, count.
    actions : dict of callable
        By action, what is done beside reporting and giving up the questions; each takes the
        reason.

    Attributes
    ----------
    hung : str
        What is wrong now; empty if the worker works.
    times : int
        How often it hung.
    """

    def __init__(self, node: Any, actions: dict[str, Callable[[str], None]]):
        """Start before the first look."""
        self._node, self._actions = node, actions
        self.hung, self.times = '', 0

    def look(self, worker: Any) -> None:
        """Look at a `Worker`; None while there is none."""
        if worker is None:
            self.hung = ''
            return
        worker.expire()  # a worker that hangs tells nobody whose deadline passes
        reason = self._reason(worker)
        if not reason:
            if self.hung:
                self._node.get_logger().info('the model goes on')
            self.hung = ''
            return
        action = self._node.get_parameter('watchdog_action').value
        first, self.hung = not self.hung, reason
        if first:
            self.times += 1
            self._node.get_logger().error(f'{reason}; watchdog_action is {action}')
        if action != REPORT:
            worker.give_up(reason)  # those that came since the last look as well
        if first and action in self._actions:
            self._actions[action](reason)

    def _reason(self, worker: Any) -> str:
        health, timeout = worker.health(), self._node.get_parameter('watchdog_timeout').value
        if not health.alive:
            return "the model's thread has ended"
        if not timeout or health.job == 'load' or health.quiet_s <= timeout:
            return ''
        return (f'the model hangs: no progress for {health.quiet_s:.1f} s in one {health.job}, '
                f'at {worker.where()}')
