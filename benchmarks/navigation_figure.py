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

"""
Draw what the navigation context tells of a path, and write both into `docs/navigation.md`.

    python -m benchmarks.navigation_figure
"""

from __future__ import annotations

import math

from infmllm_ros.navigation import Guide, Odometry, PathInput, Pose, Rules
import numpy as np

from .pages import DOCS, save_figure, write_between

POSE, SPEED = Pose(6.0, 3.0, math.radians(20)), 5.0


def example_path() -> np.ndarray:
    """Lay out a street that turns left, then keeps right, in steps of a metre: [n, 2] in m."""
    heading = np.radians(np.concatenate([
        np.full(24, 20), np.linspace(20, 110, 14), np.full(10, 110), np.linspace(110, 75, 8),
        np.full(16, 75)]))
    return np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), axis=0)


def example() -> tuple[np.ndarray, np.ndarray, str]:
    """Return the path, the points ahead in its frame, and the text for the robot at `POSE`."""
    path = example_path()
    guide = Guide(Rules(), timeout=1.0, path_timeout=0.0)
    guide.follow(PathInput(path, 'map', 0))
    guide.move(Odometry(POSE, SPEED, 'map', 'base_link', 0))
    guidance = guide.guidance(0)
    ahead = [Pose(x, y, 0).after(POSE) for x, y in guidance.points]
    return path, np.array([(p.x, p.y) for p in ahead]), guidance.text


def main() -> None:
    """Write the figure and the text."""
    from matplotlib.figure import Figure  # no window, no global state
    path, points, text = example()
    figure = Figure(figsize=(4.4, 4.6), layout='constrained')
    axes = figure.subplots()
    axes.plot(*path.T, color='.6', lw=3, label='path')
    axes.plot(*points.T, 'o', color='tab:blue', label='points ahead')
    axes.quiver(POSE.x, POSE.y, math.cos(POSE.yaw), math.sin(POSE.yaw), color='tab:red',
                angles='xy', scale=12, width=.015, zorder=3, label='robot')
    for number, point in enumerate(points, 1):
        axes.annotate(f'{10 * number} m', point, xytext=(6, -12), textcoords='offset points')
    axes.margins(.15)
    axes.set(aspect='equal', xlabel='x of the map [m]', ylabel='y of the map [m]')
    axes.grid(alpha=.3)
    axes.legend(loc='upper left')
    save_figure(figure, DOCS / 'figures' / 'navigation.png')
    write_between(DOCS / 'navigation.md', 'example', f'```\n{text}```')


if __name__ == '__main__':
    main()
