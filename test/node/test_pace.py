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

"""When time goes back, and whether the model keeps up, from numbers alone."""

from types import SimpleNamespace

from infmllm_ros.node.cameras import Tally
from infmllm_ros.node.pace import Pace, PaceMeter, PERIOD, Stamps
from infmllm_ros.node.parameters import camera_options
import pytest
from stand_ins import Node

S = 10**9


def laps(stamps, *frames):
    """Take frames of (camera, seconds); the lap of each, and how far it went back."""
    return [stamps.take(camera, int(second * S), 1.0) for camera, second in frames]


def test_time_that_goes_back_is_told_once_for_all_cameras():
    stamps = Stamps()
    assert laps(stamps, ('left', 10), ('right', 40), ('left', 11), ('right', 41)) == [(0, 0)] * 4
    assert laps(stamps, ('left', 3), ('right', 32), ('right', 31.5)) == [(1, 8), (1, 0), (1, 0)]
    assert laps(stamps, ('right', 30)) == [(2, 2)]


def test_a_late_frame_of_another_camera_belongs_to_the_lap_before_and_tells_nothing():
    stamps = Stamps()
    laps(stamps, ('left', 10), ('right', 40))
    assert laps(stamps, ('left', 3)) == [(1, 7)]
    assert laps(stamps, ('right', 41), ('left', 4), ('right', 40.5)) == [(0, 0), (1, 0), (0, 0)]
    assert laps(stamps, ('right', 33), ('right', 34), ('left', 5)) == [(1, 0)] * 3
    assert laps(stamps, ('right', 20)) == [(2, 14)], 'the next time is told again'
    assert laps(stamps, ('left', 1)) == [(2, 0)]


def test_a_camera_with_a_time_of_its_own_is_late_for_a_while_only():
    stamps = Stamps()
    laps(stamps, ('left', 10), ('right', 40), ('left', 1))
    assert laps(stamps, ('right', 45), ('right', 40.5 + PERIOD)) == [(0, 0), (1, 0)]
    assert laps(stamps, ('right', 5)) == [(2, 45.5)]


def test_disorder_does_not_add_up_and_is_measured_from_the_newest():
    stamps = Stamps()
    assert laps(stamps, *(('', t) for t in (10, 9.5, 9.2, 10, 9))) == [(0, 0)] * 5
    assert laps(stamps, ('', 8.9)) == [(1, pytest.approx(1.1))]


def test_what_the_clock_told_is_not_told_again_not_even_after_a_late_frame():
    stamps = Stamps()
    laps(stamps, ('', 100))
    stamps.turn()
    assert laps(stamps, ('', 100.5), ('', 5), ('', 6)) == [(0, 0), (1, 0), (1, 0)]


def measured(seconds, came, dropped, most=0.0):
    """Measure once a second with that many frames a second; the last pace."""
    meter = PaceMeter()
    return [meter.measure(100.0 + t, came * t, dropped * t, most) for t in range(seconds + 1)][-1]


@pytest.mark.parametrize(('came', 'dropped', 'most', 'missed'), [
    (30, 0, 0.0, 0.0),
    (30, 20, 0.0, 2 / 3),
    (30, 25, 5.0, 0.0),     # five a second are wanted, and five are seen
    (30, 28, 5.0, 0.6),     # two of five
    (4, 0, 5.0, 0.0),       # the camera is slower than what is allowed
    (4, 3, 5.0, 0.75),
    (0, 0, 0.0, 0.0),
])
def test_the_share_missed_is_of_the_frames_to_look_at(came, dropped, most, missed):
    pace = measured(15, came, dropped, most)
    assert pace.came == came
    assert pace.seen == came - dropped
    assert pace.missed == pytest.approx(missed)


def test_only_the_last_while_counts_and_the_first_says_nothing():
    assert measured(int(PERIOD / 2) - 1, 30, 30) == Pace()
    meter = PaceMeter()
    for t in range(60):
        pace = meter.measure(float(t), 30 * t, 20 * min(t, 30))
    assert pace.missed == 0
    assert meter.measure(60.0, 5, 0) == Pace(), 'the counters began again'


def test_each_camera_has_a_pace_of_its_own(monkeypatch):
    reasons = pytest.importorskip('infmllm_ros.node.reasons', reason='needs ROS 2 (rclpy)')
    node, lines, now = Node(cameras=['front', 'left'], max_frame_rate=0.0), [], [0.0]
    node.values.update({o.name: o.default for o in camera_options(['front', 'left'])})
    node.values['left.max_frame_rate'] = 2.0
    node.get_logger = lambda: SimpleNamespace(warning=lines.append, info=lines.append)
    monkeypatch.setattr(reasons.time, 'monotonic', lambda: now[0])
    pacer = reasons.Pacer(node)
    for second in range(10):
        now[0] = float(second)
        # of 10 images a second the model takes 2: too few of one camera, all it wants of the other
        tallies = [Tally(name, 10 * second, 2 * second, 8 * second, 0, 0, None)
                   for name in ('front', 'left')]
        found = pacer.statuses(('front', 'left'), SimpleNamespace(cameras=tallies))
    assert [(one.name, one.level) for one in found] == [
        ('frame rate front', b'\x01'), ('frame rate left', b'\x00')]
    [line] = lines
    assert 'slower than camera front: in 10 s 10.0 frames a second came, it saw 2.0' in line
