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

"""Where images wait for the model: room for one, the newest wins."""

from __future__ import annotations

from dataclasses import dataclass
import threading
from typing import Any


@dataclass(frozen=True)
class Frame:
    """
    An image as it came, not decoded yet.

    Parameters
    ----------
    message : object
        The image message.
    stamp_ns : int
        [ns] Its header stamp.
    frame_id : str
        Its header frame_id.
    camera : str
        Name of the camera.
    """

    message: Any
    stamp_ns: int
    frame_id: str = ''
    camera: str = ''


class Mailbox:
    """Holds the newest frame of one camera. Safe to use from several threads."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._received = 0
        self._dropped = 0

    def put(self, frame: Frame) -> None:
        """Store a frame; one that still waits is dropped and counted."""
        with self._lock:
            self._received += 1
            self._dropped += self._frame is not None
            self._frame = frame

    def take(self) -> Frame | None:
        """Take the newest frame out; None when none has come since the last `take`."""
        with self._lock:
            frame, self._frame = self._frame, None
            return frame

    def clear(self) -> None:
        """Drop the waiting frame, if any."""
        with self._lock:
            self._dropped += self._frame is not None
            self._frame = None

    @property
    def waiting(self) -> bool:
        """Whether a frame waits."""
        return self._frame is not None

    @property
    def received(self) -> int:
        """How many frames have come."""
        return self._received

    @property
    def dropped(self) -> int:
        """How many of them a newer one replaced before the model was free."""
        return self._dropped
