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

"""
Count what an exam of memories has shown: shares, their intervals, lines of a figure.

Intervals are Wilson's, 95 %, with the number of questions divided by the design effect: questions
of one stream share its memory and are right or wrong together, so that they count for fewer. (A
bootstrap over streams, the other usual choice, has no width where all streams are all right,
which is where this matters most. The design effect has no say there either: the interval is then
that of independent questions, as it is with a single stream of each world.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from .exam import FACTS, WORLDS

Record = dict[str, Any]
Streams = list[list[Record]]

STYLES = {     # of a policy's line; two baselines often lie on top of each other
    'saddle': {'color': 'C0', 'marker': 'o'},
    'streaming_llm': {'color': 'C1', 'marker': 's', 'ls': '--', 'zorder': 3},
    'recent_frames': {'color': 'C2', 'marker': '^'},
    'random': {'color': 'C7', 'marker': 'x'},
    'full': {'color': 'black', 'marker': '.', 'ls': ':'},
}
FAR = 300  # frames: beyond what a rolling window of the largest default budget holds
Z = 1.959964


@dataclass(frozen=True)
class Score:
    """A share of right answers, of `asked`, and its interval."""

    share: float
    low: float
    high: float
    asked: int

    def __str__(self) -> str:
        """Write it for a table."""
        return f'{self.share:.2f} ({self.low:.2f}-{self.high:.2f})' if self.asked else '-'


def score(groups: Iterable[Sequence[float]], worlds: int = 1) -> Score:
    """
    Score answers, right 1 and wrong 0, in groups that are right or wrong together.

    Wilson's interval for ``n / d`` questions, where d, the design effect, is the variance of the
    share as the groups show it over what it would be if all questions were independent: at least
    1, and at most the mean size of a group. Groups are compared within their world, since how
    many streams each world has is no chance.

    Parameters
    ----------
    groups : iterable of sequences of float
        One for each stream; the worlds take turns.
    worlds : int
        How many worlds there are.
    """
    groups = list(groups)
    asked, count = sum(map(len, groups)), sum(map(bool, map(len, groups)))
    if not asked:
        return Score(float('nan'), 0., 1., 0)
    share = sum(map(sum, groups)) / asked
    spread = 0.
    for first in range(worlds):
        own = [group for group in groups[first::worlds] if len(group)]
        if len(own) > 1:
            mean = sum(map(sum, own)) / sum(map(len, own))
            spread += len(own) / (len(own) - 1) * sum(
                (sum(group) - mean * len(group)) ** 2 for group in own)
    effect = 1.
    if 0 < share < 1:
        effect = min(max(1., spread / (asked * share * (1 - share))), asked / count)
    n = asked / effect
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Score(share, max(0., min(share, centre - half)), min(1., max(share, centre + half)),
                 asked)


def score_where(streams: Streams, wanted: Callable[[Record], bool]) -> Score:
    """Score the answers to some of the questions."""
    return score([[float(record['right']) for record in stream if wanted(record)]
                  for stream in streams], len(WORLDS))


def mean_where(streams: Streams, field: str, wanted: Callable[[Record], bool]) -> float:
    """Average a field of some of the records; nan where there are none."""
    values = [record[field] for stream in streams for record in stream if wanted(record)]
    return sum(values) / len(values) if values else float('nan')


def columns(window: float) -> dict[str, Callable[[Record], bool]]:
    """
    Name what an exam reports, and say which questions count for it.

    Parameters
    ----------
    window : float
        Frames that the budget would hold as a plain rolling window.
    """
    def far(kind: str) -> Callable[[Record], bool]:
        return lambda record: record['kind'] == kind and record['distance'] >= FAR

    def back(near: bool) -> Callable[[Record], bool]:
        return lambda record: (record['kind'] == 'back'
                               and (record['distance'] <= window) is near)

    def plain(kind: str) -> Callable[[Record], bool]:
        return lambda record: record['kind'] == kind

    return {'now': plain('now'), 'back, in window': back(True), 'back, beyond': back(False),
            'no': plain('no'), 'told': far('told'), 'again': plain('again'),
            'overwritten': far('overwritten'), 'late': far('late')}


def plain(found: dict[Any, Score]) -> dict[str, list[float]]:
    """Turn scores into what JSON takes: name -> share, low, high, asked."""
    return {str(name): [round(one.share, 4), round(one.low, 4), round(one.high, 4), one.asked]
            for name, one in found.items() if one.asked}


def is_fact(record: Record, least: int = 0) -> bool:
    """Tell whether a record probes a told fact that nobody mentions again."""
    return record['kind'] in FACTS and record['distance'] >= least


def share(value: float) -> str:
    """Write a share without an interval."""
    return f'{value:.2f}' if value == value else '-'


def by_distance(streams: Streams) -> dict[int, Score]:
    """Score the told facts that nobody mentions again by the frames since they were told."""
    distances = sorted({record['distance'] for stream in streams for record in stream
                        if is_fact(record)})
    return {distance: score_where(
        streams, lambda record, d=distance: is_fact(record) and record['distance'] == d)
        for distance in distances}


def by_age(streams: Streams, edges: Sequence[int] = (1, 3, 10, 30, 100, 300, 1000, 10**6),
           ) -> dict[float, Score]:
    """Score *back* questions by the age of their evidence; keys are the middles of the bins."""
    found = {}
    for low, high in zip(edges, edges[1:]):
        def inside(record: Record, low: int = low, high: int = high) -> bool:
            return record['kind'] == 'back' and low <= record['distance'] < high
        ages = [record['distance'] for stream in streams for record in stream if inside(record)]
        if len(ages) >= 5:
            found[sorted(ages)[len(ages) // 2]] = score_where(streams, inside)
    return found


def held_by_distance(streams: Streams) -> dict[int, float]:
    """Average the share of layers that hold a told fact whole, by distance."""
    return {distance: mean_where(
        streams, 'layers', lambda record, d=distance: is_fact(record) and record['distance'] == d)
        for distance in by_distance(streams)}


def draw_scores(axes: Any, points: dict[Any, Score], label: str, **style: Any) -> None:
    """Draw a line of scores with their intervals."""
    places, scores = list(points), list(points.values())
    line, = axes.plot(places, [s.share for s in scores], ms=4, label=label, **style)
    axes.fill_between(places, [s.low for s in scores], [s.high for s in scores],
                      color=line.get_color(), alpha=.12, lw=0)


def new_figure(titles: Sequence[str], xlabel: str) -> tuple[Any, Any]:
    """Open a figure of so many panels of shares."""
    from matplotlib.figure import Figure  # no window, no global state

    figure = Figure(figsize=(4.2 * len(titles), 3.6), layout='constrained')
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, title in zip(panels, titles):
        axes.set_title(title, fontsize=10)
        axes.set(ylim=(-.03, 1.03), xlabel=xlabel)
        axes.grid(alpha=.3)
    return figure, panels
