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

"""From inputs as they come to the text of a question, or to the reason why there is none."""

import math
from pathlib import Path

from infmllm_ros.navigation import Guide, Odometry, PathInput, Pose, Rules, Unusable, yaw
import numpy as np
import pytest

from benchmarks import navigation_figure  # noqa: I100

NOW = 1_000 * 10**9
LEFT = [(0, 0), (20, 0), (20, 100)]


def path(points=LEFT, frame='map', age=0.0):
    return PathInput(np.array(points, float).reshape(-1, 2), frame, NOW - int(age * 1e9))


def odometry(x=0.0, y=0.0, yaw=0.0, speed=5.0, frame='map', age=0.0):
    return Odometry(Pose(x, y, yaw), speed, frame, 'base_link', NOW - int(age * 1e9))


def guide(*inputs, rules=None, frame_pose=None, path_timeout=10.0):
    made = Guide(rules or Rules(), 2.0, path_timeout, frame_pose)
    for one in inputs:
        (made.follow if isinstance(one, PathInput) else made.move)(one)
    return made


def test_the_text_is_the_one_written_by_hand():
    got = guide(path([(0, 0), (30, 0), (30, 30), (60, 30)]), odometry(5, 1)).guidance(NOW)
    assert got.text == (
        'Navigation: points of the path ahead every 10 m, in m (x forward, y left): '
        '(10.0, -1.0), (20.0, -1.0), (25.0, 4.0), (25.0, 14.0).\n'
        'Current action: turn left in 25.0 m (5.0 s).\n'
        'Next action: turn right in 55.0 m.\n'
        'Supplementary: none.\n'
        'Summary: Turn left in 25.0 m, then turn right in 55.0 m.\n')
    assert (got.time, got.summary) == (5.0, 'Turn left in 25.0 m, then turn right in 55.0 m')


def test_the_end_of_the_path_is_told_when_the_points_reach_it():
    made = guide(path([(0, 0), (100, 0)]), odometry(59))
    assert made.guidance(NOW).supplementary == ''
    made.move(odometry(61, speed=0.0))
    got = made.guidance(NOW)
    assert got.supplementary == 'the path ends in 39.0 m'
    assert got.time is None
    assert 'Current action: go straight for 39.0 m.\n' in got.text
    assert 'Supplementary: the path ends in 39.0 m.\n' in got.text
    made.move(odometry(101))
    got = made.guidance(NOW)
    assert 'left): none.\n' in got.text
    assert got.summary == 'The end of the path is reached'


@pytest.mark.parametrize(('inputs', 'what', 'named'), [
    ([odometry()], 'no path', ['path:=']),
    ([path()], 'no odometry', ['odom:=']),
    ([path([]), odometry()], 'bad path', ['no poses']),
    ([path([(0, float('nan'))]), odometry()], 'bad path', ['pose 0 of 1']),
    ([path(), Unusable('bad odometry', 'it is upside down')], 'bad odometry', ['upside']),
    ([path(), odometry(age=2.5)], 'stale odometry', ['2.5 s', '2.0', 'nav.timeout']),
    ([path(age=10.5), odometry()], 'stale path', ['10.5 s', '10.0', 'nav.path_timeout']),
    ([path(), odometry(age=-2.5)], 'odometry of the future', ['2.5 s', 'clock']),
    ([path(age=-11), odometry()], 'path of the future', ['11.0 s']),
    ([path(), odometry(frame='odom')], 'other frame', ["'map'", "'odom'", 'tf2_ros']),
    ([path(), odometry(y=-10.5)], 'off the path', ['10.5 m', '10.0', 'nav.max_offset']),
], ids=lambda value: value if isinstance(value, str) else '')
def test_an_input_of_no_use_is_explained(inputs, what, named):
    with pytest.raises(Unusable) as caught:
        guide(*inputs).guidance(NOW)
    assert caught.value.what == what
    for text in [what, *named]:
        assert text in str(caught.value)
    assert '\n' not in str(caught.value)


def test_at_the_limits_all_is_well():
    made = guide(path(age=9.9), odometry(y=-9.9, age=1.9))
    assert made.guidance(NOW).points[0] == pytest.approx((10, 9.9))
    holds = guide(path(age=900), odometry(), path_timeout=0.0)
    assert len(holds.guidance(NOW).points) == 4


def test_a_good_input_after_a_bad_one_is_used():
    made = guide(path([(float('nan'), 0)]), odometry())
    with pytest.raises(Unusable):
        made.guidance(NOW)
    made.follow(path())
    assert made.guidance(NOW).points[0] == pytest.approx((10, 0))


def test_odometry_in_another_frame_is_brought_into_that_of_the_path():
    asked = []

    def frame_pose(target, source, now_ns):
        asked.append((target, source, now_ns))
        return Pose(10, 5, math.pi / 2)  # odom's x axis is map's y axis

    # (-5, 3) in odom is (10 - 3, 5 - 5) = (7, 0) in map; a yaw of -90 degrees there is 0 here.
    got = guide(path(), odometry(-5, 3, -math.pi / 2, frame='odom'),
                frame_pose=frame_pose).guidance(NOW)
    assert asked == [('map', 'odom', NOW)]
    np.testing.assert_allclose(got.points, [(10, 0), (13, 7), (13, 17), (13, 27)], atol=1e-9)


def test_a_planner_that_repeats_its_path_does_not_send_the_robot_back_a_lap():
    square = [(0, 0), (20, 0), (20, 20), (0, 20)]
    made = guide(path(square * 2 + [(0, 60)]))
    lap = [(10, 0, 0), (20, 10, 90), (10, 20, 180), (0, 10, -90), (10, 0, 0)]
    for x, y, degrees in lap:
        made.follow(path(square * 2 + [(0, 60)]))
        made.move(odometry(x, y, math.radians(degrees)))
        remaining = made.guidance(NOW).maneuvers.remaining
    assert remaining == pytest.approx(180 - 90)
    made.follow(path(square * 2 + [(0, 61)]))  # another path: begun afresh
    assert made.guidance(NOW).maneuvers.remaining == pytest.approx(181 - 10)


@pytest.mark.parametrize(('quaternion', 'degrees'), [
    ((0, 0, 0, 1), 0), ((0, 0, 1, 1), 90), ((0, 0, 1, 0), 180), ((0, 0, -2, 2), -90),
    ((0.1, 0, 0, 1), 0), ((0, 0, math.sin(math.pi / 12), math.cos(math.pi / 12)), 30),
])
def test_the_heading_of_a_quaternion(quaternion, degrees):
    off = math.degrees(yaw(*quaternion)) - degrees
    assert math.remainder(off, 360) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize('quaternion', [(0, 0, 0, 0), (0, 0, float('nan'), 1)])
def test_a_quaternion_that_is_no_rotation_is_refused(quaternion):
    with pytest.raises(ValueError, match='no rotation'):
        yaw(*quaternion)


def test_the_page_shows_the_text_of_its_figure():
    page = (Path(__file__).parents[2] / 'docs/navigation.md').read_text()
    shown = f'```\n{navigation_figure.example()[2]}```'
    assert shown in page, 'run python -m benchmarks.navigation_figure'
