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

from markupsafe import Markup
import numpy as np

from .charts import Axes, bins, clock, compact, stacked
from .headline import frame_ms, measured, PARTS
from .records import Answer, Memory, Record, Stats
from .timeline import Clock

STEPS = 300  # most points of a curve, and columns of the map
AGES = 18  # rows of the map
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
    """Draw how old what is held is, as it changes: age on a logarithmic scale."""
    memories = [memories[run[-1]] for run in bins(len(memories), STEPS)]
    ages = [np.array([(one.stamp_ns - stamp) / 1e9 for stamp, _, _ in one.held])
            for one in memories]
    oldest = max((held.max(initial=0) for held in ages), default=0)
    if oldest <= 0:
        return None
    young = max(1e-3, min(_gap(held) for held in ages))
    edges = np.geomspace(young, max(oldest, 2 * young) * 1.001, AGES)
    tokens = [np.bincount(np.searchsorted(edges, held, 'right'), [n for _, _, n in one.held],
                          AGES + 1)[:AGES].tolist() for held, one in zip(ages, memories)]
    axes = Axes((0, time.seconds), (0, AGES), 260,
                y_text=lambda place: clock(float(round(_age(edges, place), 3))),
                y_ticks=lambda low, high: [
                    1 + float(np.log(age / edges[0]) / np.log(edges[1] / edges[0]))
                    for age in (.1, 1, 10, 60, 600, 3600, 36000) if edges[0] <= age <= edges[-1]])
    places = [time.at(one.stamp_ns) for one in memories]
    # A column lasts until the next, and no longer than the others if the memory was not looked at.
    columns = [(start, stop, numbers) for start, stop, numbers
               in zip(places, [*places[1:], time.seconds], tokens)]
    most = max(max(numbers) for numbers in tokens)
    return Figure(
        'ages', 'What the memory holds, by age',
        'The darker, the more tokens of that age. The band at the bottom is the recent past; what '
        'rises above it was chosen to stay, and grows older as the stream goes on.',
        axes.draw('Retained tokens by age over time', axes.heat(columns, most), key='ages'),
        [('h1', 'few'), ('h3', ''), ('h5', ''), ('h7', f'{compact(most)} tokens of one age')],
        {'x': _short(places), 'rows': [
            ['frames held', '', [len(one.held) for one in memories]],
            ['oldest', 's', _short(held.max(initial=0) for held in ages)]]})


def _gap(held: np.ndarray) -> float:
    """Give the typical distance between frames that are held [s]."""
    gaps = np.diff(np.unique(held))
    return float(np.median(gaps)) if len(gaps) else 1.0


def _age(edges: np.ndarray, place: float) -> float:
    return float(edges[0] * (edges[1] / edges[0]) ** (place - 1))


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
        'frames', 'Time for a frame', (
            f'Mean of every {len(stats) / len(runs):.0f} frames, and the slowest of them. '
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
        'answers', 'Time for an answer', 'Each question, by the moment it was asked at.',
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
        'process', 'Memory of the process', f'{size[len(size) // 10]:,.0f} MiB after a tenth of '
        f'the run, {size[-1]:,.0f} MiB at its end.',
        axes.draw('Resident memory over time [MiB]',
                  axes.band([(x, 0) for x in places], points, 'soft'), axes.line(points, 'blue'),
                  key='process'),
        [('blue', 'resident set [MiB]')],
        {'x': _short(places), 'rows': [['resident', 'MiB', _short(size)]]})


def _short(values: Any) -> list[float]:
    """Round for the page: four digits are read, none is computed with."""
    return [float(f'{value:.4g}') for value in values]
