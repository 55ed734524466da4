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

"""Which watch is due: by a period in seconds, or every so many frames."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from infmllm_ros.watches.definition import Watch


class Turn:
    """When a watch is due next, and how often it was skipped."""

    def __init__(self, watch: Watch):
        """Be due with the first frame."""
        self.watch = watch
        self.skipped = 0
        self.restart()

    def restart(self) -> None:
        """Be due with the next frame, or with the next so many."""
        self._frames = 0  # that it has not seen
        self._not_before = -inf  # [s]
        self.due = inf  # [s] since when, or when; infinite until it has something new to see

    def frame(self, now: float) -> None:
        """Count a frame."""
        self._frames += 1
        if self.due == inf and self._frames >= self.watch.every:
            self.due = max(now, self._not_before)

    def take(self, now: float) -> None:
        """Count those that are late already as skipped, and be due again after them."""
        if self.watch.every:
            late = self._frames // self.watch.every - 1
            self._frames %= self.watch.every
        else:
            late = int((now - self.due) // self.watch.period)
            self._not_before = self.due + (late + 1) * self.watch.period
        self.skipped += late
        self.due = inf


class Schedule:
    """
    Whose turn it is. For one thread.

    A watch is due only when a frame has come that it has not seen: each new one for a period, so
    many for a stride. What is due waits for its turn, the longest waiting first; what becomes due
    again meanwhile is skipped and counted, never made up for.

    Times are in seconds of any clock; one that is set back makes all due with the next frame.

    Parameters
    ----------
    watches : sequence of Watch
        Of those due since the same moment, the earlier one comes first.
    """

    def __init__(self, watches: Sequence[Watch]):
        """Start without a frame."""
        self.turns = [Turn(watch) for watch in watches]
        self._now = -inf

    def restart(self) -> None:
        """Forget what was due, as after a pause; what was skipped stays counted."""
        for turn in self.turns:
            turn.restart()

    def frame(self, camera: str, now: float) -> None:
        """Count a frame that the model has seen."""
        self._look(now)
        for turn in self.turns:
            if turn.watch.camera in ('', camera):
                turn.frame(now)

    def due_in(self, now: float) -> float:
        """Tell how long until a watch is due, in seconds; infinite while a frame is needed."""
        self._look(now)
        return max(0.0, min((turn.due for turn in self.turns), default=inf) - now)

    def take(self, now: float) -> Watch | None:
        """Take the watch that has been due for longest; None if none is."""
        if self.due_in(now) > 0:
            return None
        turn = min(self.turns, key=lambda turn: turn.due)
        turn.take(now)
        return turn.watch

    def _look(self, now: float) -> None:
        """Look at the clock."""
        if now < self._now:
            self.restart()
        self._now = now
