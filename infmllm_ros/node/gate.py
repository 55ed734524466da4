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

"""Frames that show what the last one showed, told from their pixels. Nothing here knows ROS."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 32  # [pixels] of the picture that frames are compared by


def miniature(image: np.ndarray) -> np.ndarray:
    """Shrink a frame, uint8 [H, W, 3] RGB, to means of grey: int16 [SIDE, SIDE]."""
    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small.convert('L'), np.int16)


def change(now: np.ndarray, last: np.ndarray) -> float:
    """Measure the mean absolute difference of two miniatures, as a share of the full scale."""
    return float(np.abs(now - last).mean()) / 255


class Gate:
    """
    Keeps a camera's frames from the model while its picture hardly changes.

    Pixels, not features as in `infmllm_ros.engine.duplicates`: what is kept out here has cost no
    pass through the vision tower. The price is that a small change counts little, and noise
    counts. A frame is compared with the last one let in, not the last one seen: slow change adds
    up.

    Attributes
    ----------
    min_change : float
        [share] Least `change` that lets a frame in; 0 lets all in.
    refresh : float
        [s] A frame that comes so long after the last one let in is let in whatever it shows.
    """

    def __init__(self, min_change: float = 0.0, refresh: float = 10.0):
        """Let the first frame in."""
        self.min_change, self.refresh = min_change, refresh
        self.forget()

    def forget(self) -> None:
        """Let the next frame in."""
        self._last: np.ndarray | None = None
        self._when = 0.0

    def admits(self, image: np.ndarray, now: float, force: bool = False) -> bool:
        """
        Say whether the model shall look at a frame, and remember one that it shall.

        Parameters
        ----------
        image : numpy.ndarray
            uint8 [H, W, 3] RGB.
        now : float
            [s] On any clock that never goes back.
        force : bool
            Let it in whatever it shows.
        """
        if not self.min_change:
            self.forget()
            return True
        small = miniature(image)
        if not force and self._last is not None and now - self._when < self.refresh and (
                change(small, self._last) < self.min_change):
            return False
        self._last, self._when = small, now
        return True
