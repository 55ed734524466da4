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

"""The navigation context in words: one template, the same for every model."""

from __future__ import annotations

from infmllm_ros.navigation.maneuver import Action, Maneuvers
from infmllm_ros.navigation.rules import Rules
import numpy as np

STANDING = 0.1  # [m/s] slower than this, no time is told
NOW = 0.05  # [m] nearer than this is written as 0.0

TEMPLATE = """\
Navigation: points of the path ahead every {spacing:g} m, in m (x forward, y left): {points}.
Current action: {current}.
Next action: {next}.
Supplementary: {supplementary}.
Summary: {summary}.
"""


def seconds(distance: float, speed: float) -> float | None:
    """Tell the time in seconds for a distance in m at a speed in m/s; None when it stands."""
    return distance / speed if speed >= STANDING else None


def supplementary(found: Maneuvers, rules: Rules) -> str:
    """Tell where the path ends, when the points ahead reach there; else nothing."""
    if found.action == Action.NONE or found.remaining > rules.spacing * rules.points:
        return ''
    return f'the path ends in {found.remaining:.1f} m'


def summary(found: Maneuvers) -> str:
    """Say current and next action in one sentence, without its full stop."""
    if found.action == Action.NONE:
        return 'The end of the path is reached'
    start = _words(found.action)
    first = f'{start[0].upper()}{start[1:]} {_when(found.action, found.distance)}'
    if found.next_action == Action.NONE:
        return first
    action, distance = found.next_action, found.next_distance
    return f'{first}, then {_words(action)} {_when(action, distance)}'


def render(points: np.ndarray, found: Maneuvers, time: float | None, extra: str, short: str,
           rules: Rules) -> str:
    """
    Write the navigation context as it is put before a question.

    Parameters
    ----------
    points : ndarray
        [m] [n, 2] in the ego frame.
    found : Maneuvers
        What the path asks for.
    time : float or None
        [s] To the current maneuver.
    extra, short : str
        `supplementary` and `summary`.
    rules : Rules
        Spacing of the points.
    """
    current = _words(found.action)
    if found.action != Action.NONE:
        current += f' {_when(found.action, found.distance)}'
        if time is not None and found.distance >= NOW:
            current += f' ({time:.1f} s)'
    then = _words(found.next_action)
    if found.next_action != Action.NONE:
        then += f' {_when(found.next_action, found.next_distance)}'
    return TEMPLATE.format(
        spacing=rules.spacing,
        points=', '.join(f'({_number(x)}, {_number(y)})' for x, y in points) or 'none',
        current=current, next=then, supplementary=extra or 'none', summary=short)


def _number(value: float) -> str:
    return f'{round(value, 1) + 0.0:.1f}'  # no -0.0


def _words(action: Action) -> str:
    return 'U-turn' if action == Action.U_TURN else action.name.lower().replace('_', ' ')


def _when(action: Action, distance: float) -> str:
    if action == Action.GO_STRAIGHT:
        return f'for {distance:.1f} m'
    return f'in {distance:.1f} m' if distance >= NOW else 'now'
