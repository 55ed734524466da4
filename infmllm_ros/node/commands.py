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

"""What others have the worker do, between its own work. Nothing here knows ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from functools import partial
from threading import Condition
from typing import Any


class Commands:
    """
    Jobs that wait for the worker, oldest first, each with a future.

    Parameters
    ----------
    lock : threading.Condition
        Guards them; it is notified when one comes.
    failed : callable
        Hears of an exception that a job raised, before its future does.
    """

    def __init__(self, lock: Condition, failed: Callable[[Exception], None]):
        """Start without one."""
        self._lock, self._failed = lock, failed
        self._waiting: deque[tuple[str, Callable[[], Any], Future]] = deque()
        self._running: Future | None = None

    def __len__(self) -> int:
        """Tell how many wait."""
        return len(self._waiting)

    def count(self, name: str) -> int:
        """Tell how many of a name wait; holds the lock."""
        return sum(name == other for other, _, _ in self._waiting)

    def put(self, name: str, job: Callable[[], Any]) -> Future:
        """Take a job, in any thread; the future ends with its result or error."""
        future: Future = Future()
        with self._lock:
            self._waiting.append((name, job, future))
            self._lock.notify()
        return future

    def take(self) -> tuple[str, Callable[[], None]]:
        """Take the oldest out: its name, and what does it; holds the lock."""
        name, job, self._running = self._waiting.popleft()
        return name, partial(self._do, job, self._running)

    def leave(self) -> None:
        """Have none at work; holds the lock."""
        self._running = None

    def give_up(self, reason: str) -> None:
        """Tell the caller of the running one that it failed, whatever comes of it."""
        with self._lock:
            running = self._running
        if running is not None:
            _settle(running.set_exception, RuntimeError(reason))

    def drop(self, reason: str) -> None:
        """Tell the callers of those that wait that nothing comes of them."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for _, _, future in waiting:
            future.set_exception(RuntimeError(reason))

    def _do(self, job: Callable[[], Any], future: Future) -> None:
        try:
            result = job()
        except Exception as error:
            self._failed(error)
            _settle(future.set_exception, error)
        else:
            _settle(future.set_result, result)


def _settle(end: Callable[[Any], None], result: Any) -> None:
    """End a future, unless its caller was told meanwhile that its job was given up."""
    try:
        end(result)
    except InvalidStateError:
        pass
