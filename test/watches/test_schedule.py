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

"""When watches are due: periods, strides, those that are late, and who comes first."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from infmllm_ros.watches import Schedule, Watch
import pytest

periods = st.integers(1, 40).map(lambda n: {'period': n / 8})
strides = st.integers(1, 5).map(lambda n: {'every': n})
# gaps in eighths of a second: sums of them are exact
gaps = st.lists(st.integers(0, 30).map(lambda n: n / 8), min_size=1, max_size=60)


def watch(name='a', **fields):
    return Watch(name, 'Which?', **fields)


def names(schedule, now):
    """Take all that are due."""
    taken = []
    while (one := schedule.take(now)) is not None:
        taken.append(one.name)
    return taken


def test_a_period_by_hand():
    schedule = Schedule([watch(period=1.0)])
    assert schedule.due_in(0) == inf  # nothing to see yet
    schedule.frame('', 10.0)
    assert schedule.take(10.0).name == 'a'  # the first frame
    schedule.frame('', 10.25)
    assert schedule.take(10.75) is None and schedule.due_in(10.75) == 0.25
    assert schedule.take(11.0).name == 'a'
    assert schedule.due_in(15.0) == inf  # no new frame: not due, and not late
    schedule.frame('', 15.0)
    assert schedule.take(15.0).name == 'a' and schedule.turns[0].skipped == 0
    schedule.frame('', 15.5)
    assert schedule.take(18.5).name == 'a'  # due at 16; those of 17 and 18 are skipped
    assert schedule.turns[0].skipped == 2
    schedule.frame('', 18.5)
    assert schedule.due_in(18.5) == 0.5  # on the grid again


def test_a_stride_by_hand():
    schedule = Schedule([watch(every=3)])
    due = []
    for number in range(1, 8):
        schedule.frame('', float(number))
        due.append(bool(names(schedule, float(number))))
    assert due == [False, False, True, False, False, True, False]
    for number in range(8, 16):  # frames 9, 12 and 15 make it due
        schedule.frame('', float(number))
    assert names(schedule, 16.0) == ['a'] and schedule.turns[0].skipped == 2
    schedule.frame('', 17.0)
    schedule.frame('', 17.0)
    assert not names(schedule, 17.0)
    schedule.frame('', 17.0)
    assert names(schedule, 17.0) == ['a']


def test_only_frames_of_its_camera_count():
    schedule = Schedule([watch('l', every=1, camera='left'), watch('any', every=2)])
    schedule.frame('right', 0.0)
    assert schedule.due_in(0.0) == inf
    schedule.frame('left', 1.0)
    assert names(schedule, 1.0) == ['l', 'any']


@given(st.lists(periods, min_size=1, max_size=3), gaps)
def test_a_period_is_asked_or_skipped_once_a_period_while_frames_come(fields, gaps):
    schedule = Schedule([watch(f'w{n}', **f) for n, f in enumerate(fields)])
    now, asked = 0.0, dict.fromkeys(schedule.turns, 0)
    for gap in gaps:
        now += gap
        for name in names(schedule, now):
            asked[schedule.turns[int(name[1:])]] += 1
            schedule.frame('', now)  # there is always a new one
        if not any(asked.values()):
            schedule.frame('', now)
            start = now
    for turn, count in asked.items():
        if count:  # due at start, start + period, ... up to now
            due = (now - start) // turn.watch.period + 1
            assert count + turn.skipped in (due, due - 1)


@given(periods, st.lists(st.tuples(st.integers(0, 16), st.booleans()), max_size=80))
def test_it_is_due_within_a_period_of_a_new_frame_but_never_twice_within_one(field, steps):
    schedule, period = Schedule([watch(**field)]), field['period']
    now, last, unseen = 0.0, -inf, None
    for gap, frame in steps:
        now += gap / 8
        if frame:
            schedule.frame('', now)
            unseen = now if unseen is None else unseen
        due = now + schedule.due_in(now)
        assert (due == inf) == (unseen is None)
        assert unseen is None or due <= max(now, unseen + period)
        since = schedule.turns[0].due
        if schedule.take(now):
            assert since >= last + period
            last, unseen = since, None


@given(st.lists(st.one_of(periods, strides), min_size=1, max_size=5), gaps)
def test_the_longest_waiting_comes_first_so_nobody_starves(fields, gaps):
    schedule = Schedule([watch(f'w{n}', **f) for n, f in enumerate(fields)])
    now, waited = 0.0, dict.fromkeys((f'w{n}' for n in range(len(fields))), 0)
    for gap in gaps:  # one at a time, as slow as it likes
        now += gap
        schedule.frame('', now)
        due = [t.watch.name for t in schedule.turns if t.due <= now]
        one = schedule.take(now)
        for name in waited:
            waited[name] = waited[name] + 1 if name in due and name != one.name else 0
            assert waited[name] < len(fields)
        assert (one is None) == (not due)


@pytest.mark.parametrize('field', [{'period': 5.0}, {'every': 1}])
def test_a_clock_that_is_set_back_stops_nothing(field):
    schedule = Schedule([watch(**field)])
    schedule.frame('', 1e6)
    assert names(schedule, 1e6) == ['a']
    schedule.frame('', 3.0)  # a bag plays again
    assert names(schedule, 3.0) == ['a']
    assert schedule.turns[0].skipped == 0


def test_a_pause_is_not_made_up_for():
    schedule = Schedule([watch(period=1.0), watch('b', every=1)])
    schedule.frame('', 0.0)
    schedule.restart()
    assert not names(schedule, 100.0)
    schedule.frame('', 100.0)
    assert names(schedule, 100.0) == ['a', 'b']
    assert [turn.skipped for turn in schedule.turns] == [0, 0]
