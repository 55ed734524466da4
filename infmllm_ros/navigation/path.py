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

"""A path as a line with a length: where the robot is on it, and which points lie ahead."""

from __future__ import annotations

import math

from infmllm_ros.navigation.pose import Pose, wrap
import numpy as np

FARTHEST = 1e9  # [m] largest coordinate: beyond, a float no longer resolves a robot
STILL = 1e-6  # [m] a vertex closer than this to the one before repeats it
ALIKE = math.radians(15)  # headings closer than this do not tell two branches apart


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # By columns: a reduction over an axis of two is many times slower.
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]


def _length(vector: np.ndarray) -> np.ndarray:
    return np.sqrt(_dot(vector, vector))


class Path:
    """
    A polyline with its arc length.

    Parameters
    ----------
    points : array_like
        [m] Vertices [n, 2]; n = 1 is a path of length 0.

    Raises
    ------
    ValueError
        There is none, or one is not finite or beyond all maps.
    """

    def __init__(self, points: np.ndarray):
        """Measure it; vertices that repeat the one before are left out."""
        points = np.asarray(points, np.float64).reshape(-1, 2)
        if not len(points):
            raise ValueError('it has no poses: send one with poses')
        wrong = np.flatnonzero(~(np.abs(points) <= FARTHEST).all(1))  # NaN is wrong, too
        if len(wrong):
            x, y = points[wrong[0]]
            raise ValueError(f'pose {wrong[0]} of {len(points)} is at ({x}, {y}): '
                             f'send numbers up to {FARTHEST:g} only')
        steps = _length(np.diff(points, axis=0))
        moves = steps > STILL
        self.vertices = points[np.concatenate([[True], moves])]
        self.arc = np.concatenate([[0.0], np.cumsum(steps[moves])])  # [m] of each vertex

    @property
    def length(self) -> float:
        """From its first vertex to its last, in metres."""
        return float(self.arc[-1])

    def at(self, arc: np.ndarray) -> np.ndarray:
        """Find the points [n, 2] at arc lengths [n], in metres from its start."""
        return np.stack([np.interp(arc, self.arc, axis) for axis in self.vertices.T], -1)

    def locate(self, pose: Pose, slack: float, near: float | None = None) -> tuple[float, float]:
        """
        Find the robot on the path.

        Where the path passes the robot more than once, each pass within `slack` of the nearest
        counts, at its nearest point that leads less than 90 degrees off the robot's heading. Of
        those (of all passes, if none leads there) it is the one closest to `near` along the path,
        so that a crossing is no short cut; without `near` the one that leads most nearly where
        the robot looks, and of several alike the first.

        Parameters
        ----------
        pose : Pose
            Of the robot, in the path's frame.
        slack : float
            [m] How much farther than the nearest pass another one may be.
        near : float, optional
            [m] Arc length at which the robot was shortly before.

        Returns
        -------
        arc : float
            [m] Arc length of the nearest point of that pass.
        distance : float
            [m] From the robot to that point.
        """
        start, step = self.vertices[:-1], np.diff(self.vertices, axis=0)
        robot = np.array([pose.x, pose.y])
        if not len(step):
            return 0.0, float(_length(robot - self.vertices[0]))
        size = np.diff(self.arc)
        share = np.clip(_dot(robot - start, step) / size**2, 0, 1)
        distance = _length(robot - start - share[:, None] * step)
        limit = distance.min() + slack
        # A pass ends where the path turns back, and where it leaves the circle around the robot: a
        # circle is convex, so between two segments that reach into it their common vertex tells.
        inside = np.flatnonzero(distance <= limit)
        ends = _length(robot - self.vertices[1:]) > limit
        ends[:-1] |= _dot(step[:-1], step[1:]) < 0
        breaks = (np.diff(inside) > 1) | ends[inside[:-1]]
        off = np.abs(wrap(np.arctan2(step[:, 1], step[:, 0]) - pose.yaw))
        along = off < np.pi / 2
        rank = distance + np.where(along, 0, limit)  # within the circle: first those along
        best = np.array([group[np.argmin(rank[group])]
                         for group in np.split(inside, np.flatnonzero(breaks) + 1)])
        if along[best].any():
            best = best[along[best]]
        arc, off = self.arc[best] + share[best] * size[best], off[best]
        if near is None:
            chosen = np.flatnonzero(off <= off.min() + ALIKE)[0]
        else:
            chosen = np.argmin(np.abs(arc - near))
        return float(arc[chosen]), float(distance[best[chosen]])

    def ahead(self, arc: float, spacing: float, count: int) -> np.ndarray:
        """
        Find points ahead, after SNG-VLA (arXiv 2604.12208): at a fixed spacing along the path.

        Parameters
        ----------
        arc : float
            [m] Arc length at which the robot is.
        spacing : float
            [m] Along the path, from one point to the next.
        count : int
            How many.

        Returns
        -------
        points : ndarray
            [m] [n, 2] in the path's frame; n < count where the path ends before.
        """
        wanted = arc + spacing * np.arange(1, count + 1)
        return self.at(wanted[wanted <= self.length + 1e-6 * spacing])
