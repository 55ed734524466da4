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

"""Frames that show what the last one showed are kept out, told from their pixels."""

from infmllm_ros.node.gate import change, Gate, miniature
import numpy as np
import pytest
from stand_ins import grey


@pytest.mark.parametrize('size', [(48, 64), (720, 1280), (20, 31), (1, 1)])
def test_a_change_is_the_mean_difference_as_a_share_of_the_full_scale(size):
    assert change(miniature(grey(10, size)), miniature(grey(61, size))) == pytest.approx(0.2)
    half = grey(0, (64, 64))
    half[:32] = 255  # rows of the miniature and of the picture coincide
    assert change(miniature(half), miniature(grey(0, (64, 64)))) == pytest.approx(0.5)


def test_colours_count_by_their_luma():
    red, black = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    assert change(miniature(red), miniature(black)) == pytest.approx(0.299, abs=0.003)  # BT.601


def test_slow_change_adds_up():
    gate = Gate(0.1, refresh=1e9)
    admitted = [level for level in range(0, 200, 5) if gate.admits(grey(level), 0.0)]
    assert admitted == [0, 30, 60, 90, 120, 150, 180]  # 0.1 of 255 is 25.5


def test_a_still_scene_is_seen_now_and_then():
    gate = Gate(0.1, refresh=2.0)
    assert [now for now in range(8) if gate.admits(grey(9), now)] == [0, 2, 4, 6]
    assert gate.admits(grey(9), 7.5, force=True)
    assert not gate.admits(grey(9), 9.0)
    assert gate.admits(grey(9), 9.5)
    gate.forget()
    assert gate.admits(grey(9), 9.6)


def test_without_a_threshold_all_are_let_in():
    gate = Gate()
    assert all(gate.admits(grey(9), 0.0) for _ in range(3))
    gate.min_change = 0.1
    assert [gate.admits(grey(9), 0.0) for _ in range(2)] == [True, False]
