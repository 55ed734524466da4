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

"""Turn-by-turn maneuvers of paths whose bends are known."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from infmllm_ros.navigation import Action, bends, Maneuvers, maneuvers, Path, render, Rules
import numpy as np
import pytest

NEAR = 2.5  # [m] a quarter of a spacing: how well the place of a maneuver is known


def draw(*parts):
    """Draw a path: a number is a straight of that length, a pair an arc of radius and degrees."""
    points, heading = [np.zeros(2)], 0.0
    for part in parts:
        if not isinstance(part, tuple):
            points.append(points[-1] + part * np.array([math.cos(heading), math.sin(heading)]))
            continue
        radius, degrees = part
        side = math.copysign(1, degrees)
        centre = points[-1] + side * radius * np.array([-math.sin(heading), math.cos(heading)])
        for turned in np.radians(np.linspace(0, degrees, 40))[1:]:
            angle = heading + turned - side * math.pi / 2
            points.append(centre + radius * np.array([math.cos(angle), math.sin(angle)]))
        heading += math.radians(degrees)
    return Path(points)


def corners(*parts):
    """Draw a path: lengths, and turns in degrees on the spot between them."""
    points, heading = [np.zeros(2)], 0.0
    for length, degrees in zip(parts[::2], (*parts[1::2], 0)):
        points.append(points[-1] + length * np.array([math.cos(heading), math.sin(heading)]))
        heading += math.radians(degrees)
    return Path(points)


@pytest.mark.parametrize(('path', 'expected'), [
    (corners(100), [('GO_STRAIGHT', 100), ('NONE', 0)]),
    (corners(20, 90, 50), [('TURN_LEFT', 20), ('NONE', 0)]),
    (corners(20, -90, 50), [('TURN_RIGHT', 20), ('NONE', 0)]),
    (corners(20, 30, 50), [('KEEP_LEFT', 20), ('NONE', 0)]),
    (corners(20, -30, 50), [('KEEP_RIGHT', 20), ('NONE', 0)]),
    (corners(50, 10, 50), [('GO_STRAIGHT', 100), ('NONE', 0)]),
    (corners(20, 90, 40, -60, 50), [('TURN_LEFT', 20), ('TURN_RIGHT', 60)]),
    (corners(20, 90, 8, 90, 50), [('U_TURN', 20), ('NONE', 0)]),
    (corners(20, 90, 40, 90, 50), [('TURN_LEFT', 20), ('TURN_LEFT', 60)]),
    (corners(30, 180, 30), [('U_TURN', 30), ('NONE', 0)]),
    (draw(25, (8, 90), 60), [('TURN_LEFT', 25), ('NONE', 0)]),
    (draw(25, (15, -90), 60), [('TURN_RIGHT', 25), ('NONE', 0)]),
    (draw(25, (6, 180), 60), [('U_TURN', 25), ('NONE', 0)]),
    (draw(25, (15, -270), 60), [('TURN_RIGHT', 25), ('NONE', 0)]),
    (draw(25, (12, 30), 20, (12, -30), 40),
     [('KEEP_LEFT', 25), ('KEEP_RIGHT', 45 + math.radians(30) * 12)]),
    (draw(25, (200, 90), 25), [('GO_STRAIGHT', 50 + 100 * math.pi), ('NONE', 0)]),
], ids=['straight', 'left', 'right', 'keep left', 'keep right', 'a kink', 'left then right',
        'two corners', 'around a block', 'on the spot', 'arc left', 'arc right', 'U-turn',
        'clover leaf', 'change of lane', 'a long curve'])
def test_maneuvers_are_those_drawn(path, expected):
    found = maneuvers(path, 0, 0, Rules())
    (action, distance), (then, later) = expected
    assert (found.action.name, found.next_action.name) == (action, then)
    assert found.distance == pytest.approx(distance, abs=NEAR)
    assert found.next_distance == pytest.approx(later, abs=NEAR)


@pytest.mark.parametrize('radius', [6, 10, 20])
@pytest.mark.parametrize('degrees', [-120, -90, 60, 90])
def test_the_angle_of_a_bend_is_measured(radius, degrees):
    path = draw(40, (radius, degrees), 40)
    bend, = bends(path, 0, Rules())
    assert math.degrees(bend.angle) == pytest.approx(degrees, abs=4)
    assert bend.end - bend.start == pytest.approx(radius * math.radians(abs(degrees)), abs=5)


def test_a_maneuver_stays_current_until_it_lies_behind():
    path = draw(30, (10, 90), 60, (10, -90), 60)
    after = 30 + 5 * math.pi
    for arc in np.arange(0, after + 50, 0.5):
        heading = min(max(0.0, (arc - 30) / 10), math.pi / 2)
        found = maneuvers(path, arc, heading, Rules())
        if arc < after - NEAR:
            assert found.action == Action.TURN_LEFT
            assert found.next_action == Action.TURN_RIGHT
            assert found.distance == pytest.approx(max(0, 30 - arc), abs=NEAR)
        elif arc > after + NEAR:
            assert found.action == Action.TURN_RIGHT
            assert found.distance == pytest.approx(after + 60 - arc, abs=NEAR)


@pytest.mark.parametrize(('yaw', 'action'), [
    (0, 'TURN_RIGHT'), (20, 'TURN_RIGHT'), (-90, 'TURN_LEFT'), (90, 'TURN_RIGHT'), (180, 'U_TURN'),
])
def test_a_robot_that_looks_away_has_to_turn_first(yaw, action):
    found = maneuvers(corners(50, -90, 50), 5, math.radians(yaw), Rules())
    assert found.action.name == action
    if abs(yaw) < 45:
        assert found.distance == pytest.approx(45)
        assert found.next_action == Action.NONE
    else:
        assert found.distance == 0
        assert (found.next_action, found.next_distance) == (Action.TURN_RIGHT, pytest.approx(45))


def test_the_stairs_of_a_grid_planner_are_no_maneuvers():
    cell = 0.05
    steps = [(cell, 0), (cell, cell)] * 80 + [(0, cell), (-cell, cell)] * 80
    path = Path(np.cumsum([(0, 0), *steps], axis=0))
    found = maneuvers(path, 0, math.atan2(1, 2), Rules(spacing=0.5))
    first = 80 * (cell + math.hypot(cell, cell))
    assert found.action == Action.TURN_LEFT  # from 27 to 117 degrees
    assert found.distance == pytest.approx(first, abs=0.2)
    assert found.next_action == Action.NONE


@settings(max_examples=40)
@given(st.integers(1, 40), st.floats(0.02, 50))
def test_everything_scales_with_the_spacing(seed, scale):
    random = np.random.default_rng(seed)
    path = corners(*np.ravel([random.uniform(15, 40, 3), random.uniform(-170, 170, 3)], 'F')[:-1])
    small = Path(path.vertices * scale)
    found = maneuvers(path, 1.0, 0.1, Rules())
    same = maneuvers(small, scale, 0.1, Rules(spacing=10 * scale))
    assert (found.action, found.next_action) == (same.action, same.next_action)
    assert same.distance == pytest.approx(found.distance * scale)
    assert same.next_distance == pytest.approx(found.next_distance * scale)


def test_the_angles_must_be_in_order():
    with pytest.raises(ValueError, match=r'keep 20.0, turn 10.0, u_turn 135.0.*raise'):
        Rules(turn=10.0)


def test_the_numbers_of_the_actions_are_those_of_the_message():
    message = pytest.importorskip('infmllm_msgs.msg').Maneuver
    assert {a.name: getattr(message, a.name) for a in Action} == {a.name: int(a) for a in Action}


@pytest.mark.parametrize(('path', 'time', 'lines'), [
    (Maneuvers(Action.TURN_LEFT, 12.34, Action.KEEP_RIGHT, 40.0, 200.0), 2.5,
     ['turn left in 12.3 m (2.5 s).', 'keep right in 40.0 m.',
      'Turn left in 12.3 m, then keep right in 40.0 m.']),
    (Maneuvers(Action.U_TURN, 0.0, Action.NONE, 0.0, 200.0), None,
     ['U-turn now.', 'none.', 'U-turn now.']),
    (Maneuvers(Action.GO_STRAIGHT, 85.0, Action.NONE, 0.0, 85.0), None,
     ['go straight for 85.0 m.', 'none.', 'Go straight for 85.0 m.']),
    (Maneuvers(Action.NONE, 0.0, Action.NONE, 0.0, 0.0), 0.0,
     ['none.', 'none.', 'The end of the path is reached.']),
])
def test_the_words_are_those_of_the_template(path, time, lines):
    short = lines[2].removesuffix('.')
    text = render(np.array([(10, -0.04), (19.96, 1.5)]), path, time, 'the path ends soon', short,
                  Rules())
    assert text == (
        'Navigation: points of the path ahead every 10 m, in m (x forward, y left): '
        '(10.0, 0.0), (20.0, 1.5).\n'
        f'Current action: {lines[0]}\nNext action: {lines[1]}\n'
        f'Supplementary: the path ends soon.\nSummary: {lines[2]}\n')
