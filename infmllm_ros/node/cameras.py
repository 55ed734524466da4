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

"""Several cameras before one model: whose turn it is. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from infmllm_ros.node.gate import Gate
from infmllm_ros.node.mailbox import Frame, Mailbox


@dataclass(frozen=True)
class Tally:
    """
    What became of a camera's frames: those received are the others together.

    See `infmllm_ros.node.mailbox.FATES`; `waiting` has the one that the model looks at as well,
    `causes` counts why frames failed, by the name of the exception.
    """

    name: str
    received: int
    seen: int
    dropped: int
    similar: int
    bad: int
    newest: Frame | None  # of those seen
    skipped: int = 0
    failed: int = 0
    waiting: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)


class Camera:
    """
    One camera as the model's thread sees it.

    Attributes
    ----------
    name : str
    mailbox : Mailbox
        Its newest frame.
    gate : Gate
        Which frames are worth a look.
    rate : float
        [Hz] Most looks a second; 0 = as many as the model can.
    looked : float
        [s] When its last frame was taken out.
    """

    def __init__(self, name: str):
        """Start without a frame."""
        self.name = name
        self.mailbox, self.gate = Mailbox(), Gate()
        self.rate = 0.0
        self.looked = -float('inf')
        self.newest: Frame | None = None

    @property
    def due(self) -> float:
        """Earliest time for the next look, in seconds."""
        return self.looked + (1 / self.rate if self.rate else 0.0)

    def take(self, now: float) -> Frame | None:
        """Take the waiting frame out; None when there is none."""
        frame = self.mailbox.take()
        if frame is not None:
            self.looked = now
        return frame

    def tally(self) -> Tally:
        """Count."""
        return Tally(self.name, newest=self.newest, **self.mailbox.counts())


class Cameras:
    """
    All cameras of a node.

    Parameters
    ----------
    names : sequence of str
        One or more, no two alike.
    """

    def __init__(self, names: Sequence[str]):
        """Start without frames."""
        self._cameras = {name: Camera(name) for name in names}
        self._recalled: Frame | None = None  # of a memory that was put in place

    def __iter__(self) -> Iterator[Camera]:
        """Iterate in the order of the names."""
        return iter(self._cameras.values())

    def __getitem__(self, name: str) -> Camera:
        """Find one by name."""
        return self._cameras[name]

    def next(self, now: float) -> Camera | float | None:  # noqa: A003
        """
        Choose whose waiting frame is looked at: the camera that is furthest behind its rate.

        How far is the time since its last look, counted in periods of the rate that it wants. A
        camera without a rate counts like the fastest that has one, so that without any rate the
        one goes first whose last look is oldest. Looks are then shared about in proportion to the
        rates when the model cannot meet all, and no camera that has a frame waits for ever.

        Returns
        -------
        Camera, float or None
            The camera; seconds until one is due; None when no frame waits.
        """
        waiting = [camera for camera in self if camera.mailbox.waiting]
        due = [camera for camera in waiting if camera.due <= now]
        if due:
            fastest = max(camera.rate for camera in self) or 1.0
            return max(due, key=lambda c: (now - c.looked) * (c.rate or fastest))
        return min((camera.due - now for camera in waiting), default=None)

    def about(self, name: str) -> list[Camera]:
        """List the cameras that a question is about: the one named, or all if '' names none."""
        return [camera for camera in self if name in ('', camera.name)]

    def newest(self, name: str) -> Frame | None:
        """Find the newest frame, by lap and stamp, seen of the cameras `about` the name."""
        frames = [camera.newest for camera in self.about(name) if camera.newest]
        recalled = self._recalled
        if not frames and recalled and name in ('', recalled.camera):
            return recalled
        return max(frames, key=lambda frame: (frame.lap, frame.stamp_ns), default=None)

    def clear(self) -> None:
        """Drop the waiting frames."""
        for camera in self:
            camera.mailbox.clear()

    def forget(self, recalled: Frame | None = None) -> None:
        """Forget the frames that were seen, but for one; those that wait stay."""
        self._recalled = recalled
        for camera in self:
            camera.newest = None
            camera.gate.forget()
