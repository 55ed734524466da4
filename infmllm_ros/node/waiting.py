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

"""Waiting in short steps, as the process may be told to end meanwhile. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from math import inf
import time
from typing import Any

STEP = 0.05  # [s] a signal is noticed after this


class ShuttingDown(Exception):
    """The process was told to end while a callback waited."""


def finish(job: Future, ok: Callable[[], bool], tick: Callable[[], None],
           patience: float = inf) -> Any:
    """
    Wait for a job and return its result; call `tick` once a second meanwhile.

    Raises
    ------
    ShuttingDown
        `ok` no longer holds.
    TimeoutError
        It is not done after `patience` seconds.
    Exception
        What the job raised.
    """
    start = told = time.monotonic()
    while ok():
        if wait([job], timeout=STEP).done:
            return job.result()
        if time.monotonic() - start > patience:
            raise TimeoutError(f'it takes more than {patience:.0f} s')
        if time.monotonic() - told > 1.0:
            told = time.monotonic()
            tick()
    raise ShuttingDown


def succeeds(waits: Callable[[float], bool], ok: Callable[[], bool], patience: float) -> bool:
    """Call `waits` with a timeout until it is True; False after `patience` s, or when not `ok`."""
    end = time.monotonic() + patience
    while not waits(STEP):
        if not ok() or time.monotonic() > end:
            return False
    return True
