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

"""A log that no text from outside can forge, or use to talk to the terminal that shows it."""

from __future__ import annotations

import os
import time
from typing import Any

from rclpy.impl import rcutils_logger
from rclpy.logging import LoggingSeverity

PERIOD = 5.0  # [s]
# Lines are told apart by who calls: not by this file.
rcutils_logger._internal_callers.append(os.path.realpath(__file__))


def printable(text: str, keep: str = '') -> str:
    """Escape all but printable characters: newlines, control and formatting characters."""
    return ''.join(c if c.isprintable() or c in keep else
                   c.encode('unicode_escape', 'surrogatepass').decode() for c in text)


class PrintableLogger(rcutils_logger.RcutilsLogger):
    """Escapes what it logs; only debug lines may be several."""

    def log(self, message: str, severity: Any, **options: Any) -> bool:
        """Log a message, as `RcutilsLogger` does."""
        keep = '\n' if severity == LoggingSeverity.DEBUG else ''
        return super().log(printable(str(message), keep), severity, **options)


class Seldom:
    """Tells whether something of a kind may be said again, `PERIOD` after the last time."""

    def __init__(self) -> None:
        """Have said nothing."""
        self._said: dict[Any, float] = {}

    def __call__(self, kind: Any) -> bool:
        """Ask for a kind, and take note if it may."""
        now = time.monotonic()
        if now - self._said.get(kind, -PERIOD) < PERIOD:
            return False
        self._said[kind] = now
        return True


class PrintableLog:
    """What a node derives from, before the class of its kind, to log so."""

    _log: PrintableLogger | None = None

    def get_logger(self) -> Any:
        """Give the log."""
        if self._log is None:
            self._log = PrintableLogger(super().get_logger().name)
        return self._log
