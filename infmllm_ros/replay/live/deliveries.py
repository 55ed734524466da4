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
What became of the frames that were sent to a node, by its statistics.

Nothing here knows ROS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import time
from typing import Any, NamedTuple

LOSS = 10.0  # [s] a frame that has not arrived after that was lost on the way


class Counts(NamedTuple):
    """Of a camera's frames: arrived; looked at, left out or dropped; of those, dropped."""

    received: int
    done: int
    dropped: int


class Deliveries:
    """
    Compares what was sent with what a node counts.

    Parameters
    ----------
    cameras : sequence of str
        As the source names them; the node may call its only one otherwise.
    stats : infmllm_msgs.msg.CacheStats
        Before the first frame.
    patience : float
        [s] How long a frame may wait to be seen.
    """

    def __init__(self, cameras: Sequence[str], stats: Any, patience: float):
        self._cameras, self._patience = cameras, patience
        self._before = self._counts(stats)
        self._sent: Counter[str] = Counter()
        self._given_up: Counter[str] = Counter()
        self._when = 0.0  # [s] the newest was sent

    def send(self, camera: str) -> None:
        """Take note of a frame that is sent."""
        self._sent[camera] += 1
        self._when = time.monotonic()

    def behind(self, stats: Any) -> bool:
        """Tell whether a frame has still to be seen."""
        return any(unseen > 0 for _, _, unseen in self._open(stats))

    def give_up(self, stats: Any, heard: float) -> list[str]:
        """Give up what has not come by statistics of that time [s]; a line for each camera."""
        lines = []
        for camera, away, unseen in self._open(stats):
            if unseen > 0 and heard > self._when + (LOSS if away > 0 else self._patience):
                self._given_up[camera] += unseen
                of = f' of camera {camera}' if camera else ''
                if away > 0:
                    lines.append(f'{away} frames{of} did not arrive: lower the rate, hold, or set '
                                 'qos_overrides of the image topic to reliable with a depth of 10')
                else:
                    lines.append(f'{unseen} frames{of} were not seen: see the log of the node')
        return lines

    def dropped(self, stats: Any) -> int:
        """Count the frames that the node dropped for newer ones."""
        return sum(now.dropped - self._before[camera].dropped
                   for camera, now in self._counts(stats).items())

    def _open(self, stats: Any) -> list[tuple[str, int, int]]:
        """List cameras, with how many frames have not arrived, and how many not been seen."""
        now = self._counts(stats)
        found = []
        for camera, sent in list(self._sent.items()):
            sent -= self._given_up[camera]
            before = self._before[camera]
            found.append((camera, sent - now[camera].received + before.received,
                          sent - now[camera].done + before.done))
        return found

    def _counts(self, stats: Any) -> dict[str, Counts]:
        counts = [Counts(c.frames_received, c.frames_seen + c.frames_skipped + c.frames_similar
                         + c.frames_dropped + c.frames_failed + c.images_bad, c.frames_dropped)
                  for c in stats.cameras]
        names = self._cameras if len(counts) == 1 else [c.name for c in stats.cameras]
        return dict(zip(names, counts))
