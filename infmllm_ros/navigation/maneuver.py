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

"""Turn-by-turn maneuvers, from how the heading of a path changes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
import math

from infmllm_ros.navigation.path import Path
from infmllm_ros.navigation.pose import wrap
from infmllm_ros.navigation.rules import HORIZON, Rules
import numpy as np

STEPS = 16  # samples of the path per spacing
HALF = STEPS // 4  # samples to each side that a point is averaged with: half a spacing in all


class Action(IntEnum):
    """The actions of SNG-VLA (arXiv 2604.12208), numbered as in infmllm_msgs/Maneuver."""

    NONE = 0
    TURN_LEFT = 1
    TURN_RIGHT = 2
    U_TURN = 3
    GO_STRAIGHT = 4
    KEEP_LEFT = 5
    KEEP_RIGHT = 6
    ENTER_ROUNDABOUT = 7


@dataclass(frozen=True)
class Bend:
    """A stretch of a path, from arc length `start` to `end` [m], that turns by `angle` [rad]."""

    start: float
    end: float
    angle: float


@dataclass(frozen=True)
class Maneuvers:
    """The current action, [m] to where it starts, and the next one; [m] to the path's end."""

    action: Action
    distance: float
    next_action: Action
    next_distance: float
    remaining: float


def classify(angle: float, rules: Rules) -> Action:
    """Name a change of heading in radians, positive to the left; NONE when it is too small."""
    size = abs(math.degrees(angle)) + 1e-6
    if rules.u_turn <= size <= 360 - rules.u_turn:  # a full loop, as of a clover leaf, is none
        return Action.U_TURN
    if size >= rules.turn:
        return Action.TURN_LEFT if angle > 0 else Action.TURN_RIGHT
    if size >= rules.keep:
        return Action.KEEP_LEFT if angle > 0 else Action.KEEP_RIGHT
    return Action.NONE


def bends(path: Path, arc: float, rules: Rules) -> list[Bend]:
    """
    Find the bends of a path that are worth a maneuver, around and ahead of a place on it.

    The path is sampled at a sixteenth of a spacing and averaged over half a spacing, so that the
    stairs of a grid planner are none. A bend is a stretch that turns one way, by a rate of half of
    `rules.keep` per spacing or more throughout, and somewhere by `rules.keep` within one spacing.

    Parameters
    ----------
    path : Path
        The path.
    arc : float
        [m] Arc length at which the robot is.
    rules : Rules
        Spacing and angles.
    """
    count = round(path.length / rules.spacing * STEPS)
    if count < 2:
        return []
    step = path.length / count
    here = int(arc / step)
    # One grid from the path's start, whatever the place: bends do not tremble as the robot moves.
    first = max(0, here - HORIZON * STEPS)
    grid = step * np.arange(first, min(count, here + HORIZON * STEPS) + 1)
    points = _average(path.at(grid))
    moves = np.diff(points, axis=0)
    # Where a path comes straight back, the average stands still for a sample.
    moving = np.flatnonzero(np.hypot(moves[:, 0], moves[:, 1]) > 1e-9 * step)
    heading = np.arctan2(moves[moving, 1], moves[moving, 0])
    turning = wrap(np.diff(heading))
    places = grid[moving[1:]]
    keep = math.radians(rules.keep)
    found = []
    for run in _runs(turning, keep / 2 / STEPS, 2 * HALF):
        part = turning[run]
        window = np.convolve(part, np.ones(min(STEPS, len(part))), 'valid')
        if np.abs(window).max() + 1e-6 < keep:
            continue
        # Averaging began the bend early, and ended it late, by a quarter of a spacing.
        start, end = places[run.start] + HALF * step, places[run.stop - 1] - HALF * step
        middle = (start + end) / 2
        found.append(Bend(float(min(start, middle)), float(max(end, middle)), float(part.sum())))
    return found


def _average(points: np.ndarray) -> np.ndarray:
    """Average each of [n, 2] points with HALF neighbours to each side; ends go on as they came."""
    points = np.pad(points, ((HALF, HALF), (0, 0)), 'reflect', reflect_type='odd')
    box = np.full(2 * HALF + 1, 1 / (2 * HALF + 1))
    return np.stack([np.convolve(axis, box, 'valid') for axis in points.T], -1)


def _runs(turning: np.ndarray, least: float, gap: int) -> list[slice]:
    """Find the stretches of one sign and of `least` or more; gaps up to `gap` samples count."""
    runs: list[slice] = []
    sign = np.where(np.abs(turning) + 1e-9 >= least, np.sign(turning), 0)
    for place in np.flatnonzero(sign):
        last = runs[-1] if runs else None
        if last and sign[last.start] == sign[place] and place - last.stop <= gap:
            runs[-1] = slice(last.start, place + 1)
        else:
            runs.append(slice(place, place + 1))
    return runs


def maneuvers(path: Path, arc: float, yaw: float, rules: Rules) -> Maneuvers:
    """
    Name the current action and the next one.

    Current is the first bend that does not lie behind yet; a robot that looks away from a
    straight piece of path has to turn first.

    Parameters
    ----------
    path : Path
        The path.
    arc : float
        [m] Arc length at which the robot is.
    yaw : float
        [rad] Its heading, in the path's frame.
    rules : Rules
        Spacing and angles.
    """
    remaining = path.length - arc
    listed = [(classify(bend.angle, rules), max(0.0, bend.start - arc))
              for bend in bends(path, arc, rules) if bend.end > arc + 1e-6]
    reach = rules.spacing / 4
    if remaining > reach and not (listed and listed[0][1] <= reach):
        chord = np.diff(path.at(np.array([arc, arc + reach])), axis=0)[0]
        off = wrap(math.atan2(chord[1], chord[0]) - yaw)
        if abs(off) >= math.radians(rules.turn):
            listed.insert(0, (classify(off, rules), 0.0))
    if not listed:
        listed = [(Action.GO_STRAIGHT if remaining > 0 else Action.NONE, max(0.0, remaining))]
    (action, distance), (then, later) = (*listed, (Action.NONE, 0.0))[:2]
    return Maneuvers(action, distance, then, later, remaining)
