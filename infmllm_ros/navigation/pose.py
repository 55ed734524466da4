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

"""Where the robot is in the plane."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pose:
    """A position [m] and a heading [rad], counter-clockwise from the x axis of its frame."""

    x: float
    y: float
    yaw: float

    def after(self, frame: Pose) -> Pose:
        """Express it in the frame that `frame`, the pose of its own frame, is given in."""
        cos, sin = math.cos(frame.yaw), math.sin(frame.yaw)
        return Pose(frame.x + cos * self.x - sin * self.y, frame.y + sin * self.x + cos * self.y,
                    frame.yaw + self.yaw)

    def to_ego(self, points: np.ndarray) -> np.ndarray:
        """Turn points [n, 2] of its frame into its own: x forward, y left, in metres."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return (points - (self.x, self.y)) @ np.array([[cos, -sin], [sin, cos]])


def wrap(angle: Any) -> Any:
    """Bring an angle in radians, or an array of them, into [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def yaw(x: float, y: float, z: float, w: float) -> float:
    """
    Read the heading of a quaternion, in radians.

    Raises
    ------
    ValueError
        It is no rotation: not finite, or of length 0, as in a message that nobody filled in.
    """
    norm = x * x + y * y + z * z + w * w
    if not (math.isfinite(norm) and norm > 1e-6):
        raise ValueError(f'the orientation ({x}, {y}, {z}, {w}) is no rotation: send a quaternion '
                         'of length 1')
    return math.atan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
