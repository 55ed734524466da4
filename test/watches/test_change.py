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

"""When an answer counts as changed."""

from hypothesis import given
from hypothesis import strategies as st
from infmllm_ros.watches import Change, ChangeDetector
import pytest

answers = st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any).map(
    lambda weights: [w / sum(weights) for w in weights]), max_size=40)
shares = st.integers(0, 10).map(lambda n: n / 10)


def changes(detector, answers):
    """Collect (place, previous, choice)."""
    found = ((place, detector(p)) for place, p in enumerate(answers))
    return [(place, c.previous, c.choice) for place, c in found if c]


def test_by_hand():
    detector = ChangeDetector(threshold=0.6, hysteresis=0.3, hold=2)
    steps = [([.5, .5], None), ([.7, .3], None), ([.7, .3], Change(-1, 0)),
             ([.3, .7], None), ([.5, .5], None),  # it did not hold
             ([.36, .64], None), ([.36, .64], None),  # sure, but not far enough ahead
             ([.2, .8], None), ([.1, .9], Change(0, 1)), ([.1, .9], None)]
    assert [detector(p) for p, _ in steps] == [change for _, change in steps]


@pytest.mark.parametrize(('high', 'expected'), [(.59, []), (.61, [(1, 0, 1), (2, 1, 0)])])
def test_with_two_choices_it_is_a_schmitt_trigger(high, expected):
    detector = ChangeDetector(threshold=0.5, hysteresis=0.2)  # switches at .6
    assert changes(detector, [[.9, .1], [1 - high, high], [high, 1 - high]]) == [
        (0, -1, 0), *expected]


@given(answers, shares, shares, st.integers(1, 4))
def test_every_event_is_earned_and_none_is_missed(answers, threshold, hysteresis, hold):
    """Compare with the rule, looked up for each answer in all that came before."""
    found = {place: (previous, choice) for place, previous, choice in changes(
        ChangeDetector(threshold, hysteresis, hold), answers)}
    present, since = -1, 0  # the answers from `since` on count for the next change
    for place in range(len(answers)):
        row = answers[max(since, place - hold + 1):place + 1]
        new = {max(range(3), key=lambda i: (p[i], i == present)) for p in row}
        [choice] = new if len(new) == 1 else [present]
        earned = len(row) == hold and choice != present and all(
            p[choice] >= threshold and (present < 0 or p[choice] - p[present] >= hysteresis)
            for p in row)
        assert found.get(place) == ((present, choice) if earned else None)
        if earned:
            present, since = choice, place + 1


@given(st.lists(st.floats(0, .49), max_size=30), st.integers(1, 5))
def test_wavering_below_the_threshold_is_no_change(noise, hold):
    detector = ChangeDetector(threshold=0.5, hold=hold)
    assert changes(detector, [[1, 0]] * hold) == [(hold - 1, -1, 0)]
    assert not changes(detector, [[1 - p, p] for p in noise])


@given(st.integers(1, 6))
def test_a_clear_change_is_seen_after_as_many_answers_as_it_must_hold(hold):
    found = changes(ChangeDetector(0.5, 0.1, hold), [[1, 0]] * 8 + [[0, 1]] * 8)
    assert found == [(hold - 1, -1, 0), (8 + hold - 1, 0, 1)]
