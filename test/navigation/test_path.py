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

"""Points ahead on a path: computed by hand, and held to what geometry demands."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from infmllm_ros.navigation import Path, Pose
import numpy as np
import pytest

LEFT = [(0, 0), (20, 0), (20, 50)]
HAIRPIN = [(0, 0), (30, 0), (30, 12), (0, 12)]
EIGHT = [(0, 0), (40, 40), (40, 0), (0, 40)]
SQUARE = [(0, 0), (20, 0), (20, 20), (0, 20)]


def ahead(points, pose, spacing=10, count=4, near=None):
    """Locate the robot with a slack of half a spacing; the points in its own frame."""
    path = Path(points)
    arc, _ = path.locate(pose, spacing / 2, near)
    return pose.to_ego(path.ahead(arc, spacing, count))


@pytest.mark.parametrize(('points', 'pose', 'expected'), [
    ([(0, 0), (100, 0)], (0, 0, 0), [(10, 0), (20, 0), (30, 0), (40, 0)]),
    ([(0, 0), (100, 0)], (7, -2, 0), [(10, 2), (20, 2), (30, 2), (40, 2)]),
    ([(0, 0), (100, 0)], (7, -2, math.pi / 2), [(2, -10), (2, -20), (2, -30), (2, -40)]),
    (LEFT, (0, 0, 0), [(10, 0), (20, 0), (20, 10), (20, 20)]),
    (LEFT, (15, 0, 0), [(5, 5), (5, 15), (5, 25), (5, 35)]),
    (HAIRPIN, (22, 0, 0), [(8, 2), (8, 12), (-2, 12), (-12, 12)]),
    (HAIRPIN, (22, 12, math.pi), [(10, 0), (20, 0)]),
    ([(0, 0), (-50, 0)], (0, 0, 0), [(-10, 0), (-20, 0), (-30, 0), (-40, 0)]),
    ([(-50, 0), (-5, 0)], (0, 0, 0), []),
    ([(0, 0), (50, 0)], (53, 1, 0), []),
    ([(0, 0), (50, 0)], (25, 0, 0), [(10, 0), (20, 0)]),
    ([(0, 0), (50, 0)], (10, 0, 0), [(10, 0), (20, 0), (30, 0), (40, 0)]),
    ([(3, 4)], (0, 0, 0), []),
    ([(3, 4), (3, 4)], (0, 0, 0), []),
    ([(0, 0), (0, 0), (25, 0), (25, 0)], (0, 0, 0), [(10, 0), (20, 0)]),
], ids=['straight', 'beside it', 'across it', 'left', 'near the corner', 'U-turn', 'way back',
        'leads behind', 'lies behind', 'beyond its end', 'short', 'to the very end', 'one pose',
        'the same pose twice', 'repeated poses'])
def test_points_are_those_computed_by_hand(points, pose, expected):
    np.testing.assert_allclose(ahead(points, Pose(*pose)), np.reshape(expected, (-1, 2)),
                               atol=1e-9)


@pytest.mark.parametrize(('points', 'named'), [
    ([], 'no poses'),
    ([(0, 0), (float('nan'), 1)], 'pose 1 of 2 is at (nan, 1.0)'),
    ([(0, float('inf'))], 'pose 0 of 1 is at (0.0, inf)'),
    ([(0, 0), (1e200, 0)], '1e+200'),
])
def test_a_path_that_makes_no_sense_is_refused_by_name(points, named):
    with pytest.raises(ValueError) as caught:
        Path(points)
    assert named in str(caught.value)


def walk(points, every):
    """Yield (arc, x, y, heading) along a polyline, from one leg to the next."""
    past = 0.0
    for (x, y), (u, v) in zip(points, points[1:]):
        size, heading = math.dist((x, y), (u, v)), math.atan2(v - y, u - x)
        for share in np.arange(0, size, every) / size:
            yield past + share * size, x + share * (u - x), y + share * (v - y), heading
        past += size


@pytest.mark.parametrize('points', [EIGHT, SQUARE + SQUARE + SQUARE[:1], HAIRPIN,
                                    [(0, 0), (30, 0), (0, 0)]],
                         ids=['crossing', 'two laps', 'hairpin', 'there and back'])
def test_a_robot_that_follows_the_path_never_jumps(points):
    path, near = Path(points), None
    for arc, x, y, heading in walk(points, 0.7):
        # Beside the path, looking to and fro.
        pose = Pose(x - 0.5 * math.sin(heading), y + 0.5 * math.cos(heading),
                    heading + 0.8 * math.sin(arc))
        near, distance = path.locate(pose, 5, near)
        assert near == pytest.approx(arc, abs=1.01)  # a corner is cut by twice the offset
        assert distance <= 0.5 + 1e-9


def test_without_a_past_the_heading_tells_the_branches_of_a_crossing_apart():
    path, half = Path(EIGHT), math.hypot(40, 40) / 2
    for offset in (-0.5, 0.0, 0.5):
        first, _ = path.locate(Pose(20 + offset, 20, math.radians(45)), 5)
        second, _ = path.locate(Pose(20 + offset, 20, math.radians(135)), 5)
        assert first == pytest.approx(half, abs=0.5)
        assert second == pytest.approx(3 * half + 40, abs=0.5)


def test_of_two_laps_the_first_counts_unless_the_robot_was_on_the_second():
    laps = Path(SQUARE + SQUARE)
    pose = Pose(10, 0, 0)
    assert laps.locate(pose, 5)[0] == pytest.approx(10)
    assert laps.locate(pose, 5, near=78)[0] == pytest.approx(90)


def test_a_pass_that_is_farther_than_the_slack_does_not_count():
    path = Path(HAIRPIN)
    assert path.locate(Pose(10, 3, math.pi), 5)[0] == pytest.approx(10)
    assert path.locate(Pose(10, 4, math.pi), 5)[0] == pytest.approx(62)


legs = st.lists(st.tuples(st.floats(0.5, 30), st.floats(-2.5, 2.5)), min_size=1, max_size=8)
# Off the round numbers, where two places on a path are equally near.
poses = st.builds(lambda x, y, yaw: Pose(x + 0.0123, y - 0.0457, yaw + 0.0219),
                  st.floats(-20, 60), st.floats(-20, 20), st.floats(-3, 3))


def polyline(legs):
    """Make vertices from lengths and changes of heading."""
    headings = np.cumsum([turn for _, turn in legs])
    steps = np.array([size for size, _ in legs])[:, None] * np.stack(
        [np.cos(headings), np.sin(headings)], 1)
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])


@settings(max_examples=60)
@given(legs, poses, st.floats(-3, 3), st.floats(-1000, 1000), st.floats(-1000, 1000))
def test_the_points_do_not_depend_on_the_frame(legs, pose, yaw, x, y):
    points = polyline(legs)
    path, frame = Path(points), Pose(x, y, yaw)
    cos, sin = math.cos(yaw), math.sin(yaw)
    elsewhere = points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    moved = pose.after(frame)
    arc, distance = path.locate(pose, 5)
    there = Path(elsewhere)
    assert there.locate(moved, 5) == pytest.approx((arc, distance), abs=1e-6)
    np.testing.assert_allclose(pose.to_ego(path.ahead(arc, 10, 4)),
                               moved.to_ego(there.ahead(arc, 10, 4)), atol=1e-6)


@settings(max_examples=60)
@given(legs, st.floats(0, 1), st.floats(0.3, 12))
def test_the_points_lie_a_spacing_apart_along_the_path(legs, share, spacing):
    points = polyline(legs)
    total = sum(size for size, _ in legs)
    got = Path(points).ahead(share * total, spacing, 6)
    left = total * (1 - share)
    assert len(got) in {min(6, int(left / spacing + slip)) for slip in (-1e-5, 0, 1e-5)}
    for number, point in enumerate(got, 1):
        rest = share * total + number * spacing  # walked leg by leg
        for (a, b), (size, _) in zip(zip(points, points[1:]), legs):
            if rest <= size + 1e-4:
                np.testing.assert_allclose(point, a + (b - a) * rest / size, atol=1e-3)
                break
            rest -= size
        else:
            raise AssertionError(f'point {number} lies beyond the end')


@settings(max_examples=60)
@given(legs, poses)
def test_the_robot_is_located_near_the_nearest_point(legs, pose):
    points = polyline(legs)
    fine = np.array([(x, y) for _, x, y, _ in walk(points, 0.05)])
    nearest = np.hypot(*(fine - (pose.x, pose.y)).T).min()
    path = Path(points)
    arc, distance = path.locate(pose, 0.0)
    assert distance == pytest.approx(nearest, abs=0.06)
    assert math.dist(path.at(np.array([arc]))[0], (pose.x, pose.y)) == pytest.approx(distance)
    assert path.locate(pose, 5.0)[1] <= distance + 5.0 + 1e-9
