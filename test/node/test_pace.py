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

from infmllm_ros.node.pace import Pace, PaceMeter, PERIOD, Stamps
import pytest

S = 10**9


def test_time_that_goes_back_is_told_once_for_all_cameras():
    stamps = Stamps()
    assert [stamps.back(camera, stamp * S, 1.0) for camera, stamp in [
        ('left', 10), ('right', 40), ('left', 11), ('right', 41)]] == [0, 0, 0, 0]
    assert stamps.back('left', 3 * S, 1.0) == 8
    assert stamps.back('right', 32 * S, 1.0) == 0
    assert stamps.back('right', 31.5 * S, 1.0) == 0
    assert stamps.back('right', 30 * S, 1.0) == 2


def test_disorder_does_not_add_up_and_is_measured_from_the_newest():
    stamps = Stamps()
    assert [stamps.back('', int(t * S), 1.0) for t in (10, 9.5, 9.2, 10, 9)] == [0] * 5
    assert stamps.back('', int(8.9 * S), 1.0) == pytest.approx(1.1)


def test_what_is_known_already_is_not_told_again():
    stamps = Stamps()
    stamps.back('', 100 * S, 1.0)
    stamps.forget()
    assert stamps.back('', 5 * S, 1.0) == 0


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
