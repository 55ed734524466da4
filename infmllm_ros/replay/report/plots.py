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

"""The figures of a report: what its records say about memory and time, over the source's time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infmllm_ros.replay.records import Answer, Memory, Record, Stats
from infmllm_ros.replay.records.headline import frame_ms, measured, PARTS
from infmllm_ros.replay.report.charts import Axes, bins, clock, compact, stacked
from infmllm_ros.replay.report.timeline import Clock
from markupsafe import Markup
import numpy as np

STEPS, COLUMNS = 300, 200  # most points of a curve, and columns of the map
AGES = 60  # rows of the map
ROUND = (.1, .2, .5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 7200, 36000)  # [s]
MIB = 2 ** 20


@dataclass(frozen=True)
class Figure:
    """
    A figure with its words.

    Parameters
    ----------
    key, title, text : str
    picture : Markup
    legend : list of (str, str)
        Class and name of each colour.
    data : dict
        What a script shows of it: 'x' [s], and 'rows' of (name, unit, values).
    """

    key: str
    title: str
    text: str
    picture: Markup
    legend: list[tuple[str, str]]
    data: dict[str, Any]


def figures(records: Sequence[Record], time: Clock) -> list[Figure]:
    """Draw all that the records have something for."""
    stats = [record for record in records if isinstance(record, Stats)]
    drawn = (_ages([r for r in records if isinstance(r, Memory)], time), _tokens(stats, time),
             _frames([one for one in stats if one.measured], time),
             _answers([r for r in records if isinstance(r, Answer) and r.measured], time),
             _process([one for one in stats if 'process_bytes' in one.measured], time))
    return [figure for figure in drawn if figure is not None]


def _ages(memories: Sequence[Memory], time: Clock) -> Figure | None:
    """Draw how old what is held is, as it changes."""
    memories = [memories[run[-1]] for run in bins(len(memories), COLUMNS)]
    ages = [np.array([(one.stamp_ns - stamp) / 1e9 for stamp, _, _ in one.held])
            for one in memories]
    oldest = max((held.max(initial=0) for held in ages), default=0)
    if oldest <= 0:
        return None
    scale = _scale(oldest, max(1e-3, float(np.median([_gap(one) for one in memories]))))
    tokens = [np.bincount((AGES * _place(held, oldest, scale)).astype(int).clip(0, AGES - 1),
                          [n for _, _, n in one.held], AGES).tolist()
              for held, one in zip(ages, memories)]
    axes = Axes((0, time.seconds), (0, 1), 300,
                y_text=lambda place: clock(float(round(_age(place, oldest, scale), 3))),
                y_ticks=lambda low, high: _apart(
                    [float(_place(np.array(age), oldest, scale)) for age in ROUND
                     if age <= oldest]))
    places = [time.at(one.stamp_ns) for one in memories]
    columns = list(zip(places, [*places[1:], time.seconds], tokens))
    most = max(max(numbers) for numbers in tokens)
    return Figure(
        'ages', 'What the memory holds, by age',
        'Each column is a moment, each row an age: the stronger the colour, the more tokens. The '
        'band at the bottom is the recent past; the streaks that rise from it were chosen to stay '
        'and grow older as the stream goes on.',
        axes.draw('Retained tokens by age over time', axes.heat(columns, most), key='ages'),
        [('h1', 'few'), ('h3', ''), ('h5', ''), ('h7', f'{compact(most)} tokens of one age')],
        {'x': _short(places), 'rows': [
            ['frames held', '', [len(one.held) for one in memories]],
            ['oldest', 's', _short(held.max(initial=0) for held in ages)]]})


def _gap(memory: Memory) -> float:
    """Give the typical time between frames of one camera that are held [s]."""
    stamps: dict[str, list[int]] = {}
    for stamp, camera, _ in memory.held:
        stamps.setdefault(camera, []).append(stamp)
    return max((float(np.median(np.diff(mine))) / 1e9 for mine in stamps.values()
                if len(mine) > 1), default=1.0)


def _scale(oldest: float, gap: float) -> float:
    """Find up to which age [s] the scale is linear, so that a row is no narrower than a frame."""
    scale = gap
    while scale * np.log1p(oldest / scale) < AGES * gap and scale < oldest:
        scale *= 1.25
    return scale


def _place(age: np.ndarray, oldest: float, scale: float) -> np.ndarray:
    """Give the place of an age, 0 to 1: linear up to the scale, logarithmic beyond."""
    return np.log1p(np.maximum(age, 0) / scale) / np.log1p(oldest / scale)


def _age(place: float, oldest: float, scale: float) -> float:
    return float(scale * np.expm1(place * np.log1p(oldest / scale)))


def _apart(places: Sequence[float]) -> list[float]:
    """Leave out what would be written over its neighbour."""
    kept = [0.0]
    for place in places:
        if place - kept[-1] > .08:
            kept.append(place)
    return kept


def _tokens(stats: Sequence[Stats], time: Clock) -> Figure | None:
    if not stats:
        return None
    runs = [[stats[place] for place in run] for run in bins(len(stats), STEPS)]
    places = [time.at(run[-1].stamp_ns) for run in runs]
    tokens = [max(one.tokens for one in run) for run in runs]
    budget, most = stats[-1].budget, max(tokens)
    shown = budget <= 20 * most  # else the curve would lie on the axis
    axes = Axes((0, time.seconds), (0, 1.15 * max(most, budget if shown else 1)))
    points = list(zip(places, tokens))
    return Figure(
        'tokens', 'Tokens against the budget', f'Of {stats[-1].tokens_seen:,} tokens seen, '
        f'{stats[-1].tokens_evicted:,} were evicted; the KV buffers take '
        f'{stats[-1].kv_bytes / MIB:.2f} MiB.',
        axes.draw('Tokens held over time',
                  axes.band([(x, 0) for x in places], points, 'soft'), axes.line(points, 'blue'),
                  *([axes.level(budget, f'budget {budget:,}')] if shown else []), key='tokens'),
        [('blue', 'tokens held')],
        {'x': _short(places), 'rows': [
            ['tokens', '', tokens], ['frames', '', [run[-1].frames_retained for run in runs]]]})


def _frames(stats: Sequence[Stats], time: Clock) -> Figure | None:
    if not any(frame_ms(one) for one in stats):
        return None
    runs = [[stats[place] for place in run] for run in bins(len(stats), STEPS)]
    places = [time.at(run[-1].stamp_ns) for run in runs]
    means = {part: [float(np.mean([one.measured.get(part, 0.0) for one in run])) for run in runs]
             for part in PARTS}
    slowest = [max(frame_ms(one) for one in run) for run in runs]
    merged = len(runs) < len(stats)
    # A few frames, the first ones mostly, are far slower than all others: they may leave the page.
    top = min(max(slowest), 3 * float(np.percentile(slowest, 95)))
    axes = Axes((0, time.seconds), (0, 1.15 * top))
    names = {'vision_ms': 'vision', 'prefill_ms': 'prefill', 'evict_ms': 'eviction'}
    colours = ('blue', 'green', 'orange')
    return Figure(
        'frames', 'Time for a frame [ms]', (
            f'Mean of every {len(runs[0])} frames, and the slowest of them. '
            if merged else '') + (
            f'The slowest of all, {max(slowest):.0f} ms, is cut off.'
            if max(slowest) > 1.15 * top else ''),
        axes.draw('Milliseconds a frame over time',
                  *stacked(axes, places, [(colour, means[part]) for colour, part
                                          in zip(colours, PARTS)]),
                  *([axes.line(list(zip(places, slowest)), 'dim')] if merged else []),
                  key='frames'),
        [*((colour, names[part]) for colour, part in zip(colours, PARTS)),
         *([('dim', 'slowest')] if merged else [])],
        {'x': _short(places), 'rows': [
            *([names[part], 'ms', _short(means[part])] for part in PARTS),
            ['slowest', 'ms', _short(slowest)]]})


def _answers(answers: Sequence[Answer], time: Clock) -> Figure | None:
    answers = [one for one in answers if not one.watch and 'latency' in one.measured]
    if not answers:
        return None
    places = [time.at(one.asked_ns) for one in answers]
    whole = [1e3 * one.measured['latency'] for one in answers]
    first = [1e3 * one.measured.get('time_to_first_token', one.measured['latency'])
             for one in answers]
    axes = Axes((0, time.seconds), (0, 1.15 * max(max(whole), max(first), 1e-3)))
    dots = [dot for x, low, high, one in zip(places, first, whole, answers) for dot in (
        axes.dot(x, low, 'orange hollow', f'{one.question}: first token {low:.0f} ms'),
        axes.dot(x, high, 'blue', f'{one.question}: answer {high:.0f} ms'))]
    return Figure(
        'answers', 'Time for an answer [ms]', 'Each question, by the moment it was asked at.',
        axes.draw('Milliseconds to first token and answer', *dots, key='answers'),
        [('orange hollow', 'first token'), ('blue', 'whole answer')],
        {'x': _short(places), 'rows': [['first token', 'ms', _short(first)],
                                       ['answer', 'ms', _short(whole)]]})


def _process(stats: Sequence[Stats], time: Clock) -> Figure | None:
    if not stats:
        return None
    runs = bins(len(stats), STEPS)
    places = [time.at(stats[run[-1]].stamp_ns) for run in runs]
    size = [max(measured((stats[place] for place in run), 'process_bytes')) / MIB for run in runs]
    axes = Axes((0, time.seconds), (0, 1.25 * max(size)))
    points = list(zip(places, size))
    return Figure(
        'process', 'Memory of the process [MiB]',
        f'{size[len(size) // 10]:,.0f} MiB after a tenth of the run, {size[-1]:,.0f} MiB at its '
        'end.',
        axes.draw('Resident memory over time [MiB]',
                  axes.band([(x, 0) for x in places], points, 'soft'), axes.line(points, 'blue'),
                  key='process'),
        [('blue', 'resident set [MiB]')],
        {'x': _short(places), 'rows': [['resident', 'MiB', _short(size)]]})


def _short(values: Any) -> list[float]:
    """Round for the page: four digits are read, none is computed with."""
    return [float(f'{value:.4g}') for value in values]
