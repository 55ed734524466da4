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

"""Workers that were left while a job of theirs still ran. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

from infmllm_ros.node import waiting
from infmllm_ros.node.worker import Worker

PATIENCE = 10.0  # [s] longest wait for a running job


class Retired:
    """
    Leaves workers, in time and with their questions answered.

    Parameters
    ----------
    node : rclpy.node.Node
        Whose context and log count.
    """

    def __init__(self, node: Any):
        """Start with none."""
        self._node = node
        self._workers: list[Worker] = []

    def wait(self, worker: Worker, waits: Callable[[float], bool]) -> bool:
        """Wait for a worker's running job; False, its question given up, when it still runs."""
        ok = self._node.context.ok
        done = waiting.succeeds(waits, ok, PATIENCE)
        if not done and ok():
            self._node.get_logger().warning(
                f'the model is still at work after {PATIENCE:.0f} s: not waiting for it')
            worker.give_up('the node was deactivated while the model was at work')
        return done

    def stop(self, worker: Worker) -> None:
        """Stop a worker; of one that is still at work, nothing is heard any more."""
        if not self.wait(worker, worker.stop):
            worker.abandon()
            self._workers.append(worker)

    def replace(self, hung: Worker, reason: str) -> Worker:
        """Give up a worker that hangs for another; returns itself, if one hangs already."""
        if any(worker.health().job for worker in self._workers):
            self._node.get_logger().error(
                'the model hangs again, beside a job that still does: only another process '
                'helps, set watchdog_action to exit')
            return hung
        self._workers.append(hung)
        return hung.succeeded(reason)

    def close(self, worker: Worker | None, timeout: float) -> bool:
        """End all, and one more; False when one is at work after `timeout` seconds."""
        end = time.monotonic() + timeout
        workers = [*self._workers, worker] if worker else self._workers
        return all(one.stop(max(0.0, end - time.monotonic())) for one in workers)
