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
When time goes back, and whether the model keeps up: told from numbers.

Nothing here knows ROS.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

PERIOD = 10.0  # [s] over which the pace is measured, and in which something counts as recent


class Stamps:
    """
    Notices that the stamps of frames go back: a bag loops, a simulation starts again.

    All cameras go back together, but not at the same moment: once one has, or the clock, the
    others may follow, and until they do their frames are late ones, of the lap before.

    Attributes
    ----------
    lap : int
        How often time has gone back.
    """

    def __init__(self) -> None:
        """Start before the first frame."""
        self.lap = 0
        self._last: dict[str, int] = {}  # [ns] newest stamp, by camera
        self._behind: dict[str, int] = {}  # [ns] those of cameras that have not followed yet

    def take(self, camera: str, stamp_ns: int, tolerance_s: float) -> tuple[int, float]:
        """
        Take the stamp of a camera's next frame.

        Parameters
        ----------
        camera : str
        stamp_ns : int
            [ns] Its header stamp.
        tolerance_s : float
            [s] Less than this is disorder, and nothing to speak of.

        Returns
        -------
        lap : int
            Which the frame belongs to.
        back : float
            [s] How far time went back; 0 if it did not, or that is known already.
        """
        newest = self._last.get(camera, stamp_ns)
        back = (newest - stamp_ns) / 1e9
        if back > tolerance_s:
            self._last[camera] = stamp_ns
            if self._behind.pop(camera, None) is not None:
                return self.lap, 0.0
            self.turn(camera)
            return self.lap, back
        self._last[camera] = max(newest, stamp_ns)
        if stamp_ns - self._behind.get(camera, stamp_ns) > PERIOD * 1e9:
            del self._behind[camera]  # it has a time of its own
        return self.lap - (camera in self._behind), 0.0

    def turn(self, first: str | None = None) -> None:
        """Begin a lap, with the first camera of it if one is known: the others may follow."""
        self.lap += 1
        self._behind = {camera: stamp for camera, stamp in self._last.items() if camera != first}


@dataclass(frozen=True)
class Pace:
    """
    How many frames came and were looked at, over a while.

    Parameters
    ----------
    came, seen : float
        [Hz] Frames that came from the camera, and those that the model looked at.
    missed : float
        [0..1] Share of the frames to look at, that the model missed as it was at work.
    """

    came: float = 0.0
    seen: float = 0.0
    missed: float = 0.0


class PaceMeter:
    """Measures the pace over the last `PERIOD` from counters that only grow."""

    def __init__(self) -> None:
        """Start without a sample."""
        self._samples: deque[tuple[float, int, int]] = deque()

    def measure(self, now: float, received: int, dropped: int, most: float = 0.0) -> Pace:
        """
        Take a sample.

        Parameters
        ----------
        now : float
            [s] On a clock that never goes back.
        received, dropped : int
            Frames since the start: those that came, and those of them replaced by a newer one.
        most : float
            [Hz] So many shall be looked at; 0 = all.

        Returns
        -------
        Pace
            All 0 until half of `PERIOD` has been measured.
        """
        samples = self._samples
        if samples and received < samples[-1][1]:  # counted from the start again
            samples.clear()
        samples.append((now, received, dropped))
        while now - samples[0][0] > PERIOD:
            samples.popleft()
        span = now - samples[0][0]
        if span < PERIOD / 2:
            return Pace()
        came = (received - samples[0][1]) / span
        seen = max(0.0, came - (dropped - samples[0][2]) / span)
        wanted = min(came, most) if most else came
        return Pace(came, seen, max(0.0, 1 - seen / wanted) if wanted else 0.0)
