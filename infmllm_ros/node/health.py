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

"""What the worker is doing, and what became of all that it was given. Nothing here knows ROS."""

from __future__ import annotations

from dataclasses import dataclass

from infmllm_ros.engine import Stats
from infmllm_ros.node.cameras import Tally
from infmllm_ros.node.mailbox import Frame


@dataclass(frozen=True)
class Health:
    """What the worker is doing, at one moment."""

    alive: bool
    job: str  # '' = nothing
    busy_s: float  # [s] how long it has been at this job
    quiet_s: float  # [s] how long since it began, or since the last piece of an answer
    waiting: int  # questions
    failures: int  # jobs that raised, since the start
    last_failure: str
    since_failure_s: float  # [s]; infinite when none
    exhausted: int  # of the failures, those for lack of memory
    cameras: tuple[Tally, ...]
    stats: Stats | None  # of the memory after the last job
    newest: Frame | None  # the last frame observed

    def total(self, count: str) -> int:
        """Add up a count of `Tally` over all cameras."""
        return sum(getattr(camera, count) for camera in self.cameras)
