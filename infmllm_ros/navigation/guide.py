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

"""From the latest path and odometry to the navigation context, or to why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import threading

from infmllm_ros.navigation.maneuver import Maneuvers, maneuvers
from infmllm_ros.navigation.path import Path
from infmllm_ros.navigation.pose import Pose
from infmllm_ros.navigation.rules import Rules
from infmllm_ros.navigation.text import render, seconds, summary, supplementary
import numpy as np


class Unusable(ValueError):
    """
    Why there is no navigation context, in one line: what is wrong, the limit, and the remedy.

    Parameters
    ----------
    what : str
        The kind of problem, in a few words.
    detail : str
        The rest of the line.
    """

    def __init__(self, what: str, detail: str):
        """Put both on one line."""
        super().__init__(f'{what}: {detail}')
        self.what = what


@dataclass(frozen=True)
class PathInput:
    """A path as it came: [m] points [n, 2] in `frame`, valid at `stamp_ns`."""

    points: np.ndarray
    frame: str
    stamp_ns: int


@dataclass(frozen=True)
class Odometry:
    """Pose in `frame` and speed [m/s] of the robot, whose own frame is `ego`, at `stamp_ns`."""

    pose: Pose
    speed: float
    frame: str
    ego: str
    stamp_ns: int


@dataclass(frozen=True)
class Guidance:
    """
    The navigation context.

    Parameters
    ----------
    points : ndarray
        [m] [n, 2] in the ego frame: x forward, y left.
    maneuvers : Maneuvers
        What the path asks for.
    time : float or None
        [s] To the current maneuver; None while the robot stands.
    supplementary, summary : str
        In words.
    text : str
        All of it, as it is put before a question.
    odometry : Odometry
        Where the robot was.
    """

    points: np.ndarray
    maneuvers: Maneuvers
    time: float | None
    supplementary: str
    summary: str
    text: str
    odometry: Odometry


class Guide:
    """
    Holds the latest path and odometry; follows the robot along the path.

    Safe to use from several threads.

    Parameters
    ----------
    rules : Rules
        Spacing, angles, limits.
    timeout, path_timeout : float
        [s] Oldest odometry, or transform, and oldest path to use; 0 = a path never ages.
    frame_pose : callable, optional
        Takes two frame names and a time [ns]; returns the pose of the second frame in the first,
        or raises `Unusable`. None: both inputs must be in one frame.
    """

    def __init__(self, rules: Rules, timeout: float, path_timeout: float,
                 frame_pose: Callable[[str, str, int], Pose] | None = None):
        """Start with neither."""
        self.rules = rules
        self._timeout = timeout
        self._path_timeout = path_timeout
        self._frame_pose = frame_pose
        self._lock = threading.Lock()
        self._given: PathInput | None = None
        self._odometry: Odometry | Unusable | None = None
        self._path: Path | Unusable | None = None
        self._near: float | None = None  # [m] where on the path the robot was last

    def follow(self, given: PathInput) -> None:
        """Take the latest path; one with the same points goes on where the robot is."""
        with self._lock:
            known, self._given = self._given, given
            if known and known.frame == given.frame and np.array_equal(
                    known.points, given.points):
                return
            self._near = None
            try:
                self._path = Path(given.points)
            except ValueError as error:
                self._path = Unusable('bad path', str(error))

    def move(self, odometry: Odometry | Unusable) -> None:
        """Take the latest odometry, or why it is of no use."""
        with self._lock:
            self._odometry = odometry

    def guidance(self, now_ns: int) -> Guidance:
        """
        Make the navigation context.

        Parameters
        ----------
        now_ns : int
            [ns] The time.

        Raises
        ------
        Unusable
            An input is missing, wrong, too old or in another frame, or the robot is off the path.
        """
        with self._lock:
            path, odometry = self._inputs(now_ns)
            pose = odometry.pose
            if odometry.frame != self._given.frame:
                pose = pose.after(self._frame(odometry.frame, now_ns))
            arc, distance = path.locate(pose, self.rules.spacing / 2, self._near)
            if distance > self.rules.max_offset:
                self._near = None
                raise Unusable('off the path', (
                    f'the robot is {distance:.1f} m from it, the most is {self.rules.max_offset}: '
                    'plan a path from where it is, or raise nav.max_offset'))
            self._near = arc
        rules = self.rules
        points = pose.to_ego(path.ahead(arc, rules.spacing, rules.points))
        found = maneuvers(path, arc, pose.yaw, rules)
        time = seconds(found.distance, odometry.speed)
        extra, short = supplementary(found, rules), summary(found)
        return Guidance(points, found, time, extra, short,
                        render(points, found, time, extra, short, rules), odometry)

    def _inputs(self, now_ns: int) -> tuple[Path, Odometry]:
        path, odometry = self._path, self._odometry
        if path is None:
            raise Unusable('no path', 'none has come yet: plan one, or remap the topic with '
                           '-r path:=PATH_TOPIC')
        if odometry is None:
            raise Unusable('no odometry', 'none has come yet: start it, or remap the topic with '
                           '-r odom:=ODOMETRY_TOPIC')
        for one in (path, odometry):
            if isinstance(one, Unusable):
                raise one
        if self._path_timeout:
            _check_age('path', now_ns - self._given.stamp_ns, self._path_timeout,
                       'nav.path_timeout')
        _check_age('odometry', now_ns - odometry.stamp_ns, self._timeout, 'nav.timeout')
        return path, odometry

    def _frame(self, frame: str, now_ns: int) -> Pose:
        """Find the pose of a frame in that of the path."""
        wanted = self._given.frame
        if self._frame_pose is None:
            raise Unusable('other frame', (
                f"the path is in '{wanted}', the odometry in '{frame}', and tf2_ros is not "
                'installed: install it, or publish both in one frame'))
        return self._frame_pose(wanted, frame, now_ns)


def _check_age(name: str, age_ns: int, limit: float, parameter: str) -> None:
    age = age_ns / 1e9
    if age > limit:
        raise Unusable(f'stale {name}', f'it is {age:.1f} s old, the most is {limit}: check that '
                       f'it is published, or raise {parameter}')
    if age < -limit:
        raise Unusable(f'{name} of the future', f"its stamp is {-age:.1f} s ahead of the node's "
                       f'clock, the most is {limit}: synchronize the clocks, or set use_sim_time')
