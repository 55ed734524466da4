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

"""Where images wait for the model: room for one, the newest wins; and what becomes of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
import threading
from typing import Any

# What becomes of a frame: seen by the model; skipped by the policy, as it repeats the last one;
# replaced by a newer one first; kept out by its camera's gate; no image that can be read; one at
# which the model failed.
FATES = SEEN, SKIPPED, DROPPED, SIMILAR, BAD, FAILED = (
    'seen', 'skipped', 'dropped', 'similar', 'bad', 'failed')


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
    lap : int
        How often time had gone back when it was taken.
    """

    message: Any
    stamp_ns: int
    frame_id: str = ''
    camera: str = ''
    lap: int = 0


class Mailbox:
    """
    Holds the newest frame of one camera, and counts what becomes of each. For several threads.

    A frame that came is waiting, taken, or has one of the `FATES`: at any moment the counts add
    up to those received.

    Attributes
    ----------
    last : str
        The fate of the frame that was taken last, once it is settled.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._taken: Frame | None = None
        self._received = 0
        self.last = ''
        self._fates = Counter(dict.fromkeys(FATES, 0))
        self._causes: Counter[str] = Counter()

    def put(self, frame: Frame) -> None:
        """Store a frame; one that still waits is dropped."""
        with self._lock:
            self._received += 1
            self._fates[DROPPED] += self._frame is not None
            self._frame = frame

    def take(self) -> Frame | None:
        """Take the newest frame out, to be settled; None when none has come since the last one."""
        with self._lock:
            if self._frame is not None:
                self._taken, self._frame = self._frame, None
                return self._taken
            return None

    def settle(self, frame: Frame | None, fate: str, cause: str = '') -> bool:
        """
        Say what became of the frame that was taken; False when that is known already.

        `cause` is why it failed; frame None means the one that was taken, whichever it is.
        """
        with self._lock:
            if self._taken is None or frame is not None and frame is not self._taken:
                return False
            self._taken, self.last = None, fate
            self._fates[fate] += 1
            if cause:
                self._causes[cause] += 1
            return True

    def clear(self) -> None:
        """Drop the waiting frame, if any."""
        with self._lock:
            self._fates[DROPPED] += self._frame is not None
            self._frame = None

    @property
    def waiting(self) -> bool:
        """Whether a frame waits."""
        return self._frame is not None

    def counts(self) -> dict[str, Any]:
        """Count at one moment: `received`, each fate, `waiting` (or taken), `causes` of failed."""
        with self._lock:
            return {'received': self._received, **self._fates, 'causes': dict(self._causes),
                    'waiting': (self._frame is not None) + (self._taken is not None)}
