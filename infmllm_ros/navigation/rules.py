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

"""What counts as ahead, as a turn and as too far off: the numbers of the navigation context."""

from __future__ import annotations

from dataclasses import dataclass

HORIZON = 100  # [spacings] how far ahead of the robot maneuvers are looked for


@dataclass(frozen=True)
class Rules:
    """
    The numbers of the navigation context; the defaults suit a road.

    Parameters
    ----------
    spacing : float
        [m] Along the path, from one point to the next. It is the scale of all else: a maneuver
        is where the path turns by `keep` or more within one spacing.
    points : int
        How many points ahead.
    keep, turn, u_turn : float
        [degrees] Least change of heading in all of a keep left or right, of a turn, of a U-turn.
    max_offset : float
        [m] Distance from the path beyond which the robot is not on it.

    Raises
    ------
    ValueError
        The angles are not in this order.
    """

    spacing: float = 10.0
    points: int = 4
    keep: float = 20.0
    turn: float = 45.0
    u_turn: float = 135.0
    max_offset: float = 10.0

    def __post_init__(self) -> None:
        """Check the order of the angles."""
        if not self.keep <= self.turn <= self.u_turn:
            raise ValueError(
                f'the angles of nav are keep {self.keep}, turn {self.turn}, u_turn {self.u_turn}, '
                'but each must be as large as the one before: raise the later or lower the former')
