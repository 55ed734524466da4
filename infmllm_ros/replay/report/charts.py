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
Figures as SVG that fits any width without a script. Nothing here knows what is drawn.

Places across are percentages of the figure's width, so text and marks keep their size on a phone;
curves lie in a box of their own, which is stretched. Colours come with the page's style, by class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
import math

from markupsafe import escape, Markup

Point = tuple[float, float]
LEVELS = 7  # shades of a heat map
_TOP, _BELOW = 8, 22  # [pixels] room above and below the axes
_BOX = 1000  # units of the stretched box, either way


def tag(name: str, *inside: str | Markup, **attributes: object) -> Markup:
    """Write an element; `_` in a name stands for `-`, and a last one is dropped (`class_`)."""
    written = ''.join(f' {key.rstrip("_").replace("_", "-")}="{escape(number(value))}"'
                      for key, value in attributes.items() if value is not None)
    return Markup('<{0}{1}>{2}</{0}>').format(
        Markup(name), Markup(written), Markup('').join(map(escape, inside)))


def number(value: object) -> object:
    """Write a float in few digits; leave the rest as it is."""
    return f'{value:.2f}'.rstrip('0').rstrip('.') if isinstance(value, float) else value


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """List round numbers (1, 2 or 5 times a power of ten) from low to high."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    return [step * place for place in
            range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def clock(seconds: float) -> str:
    """Write a time in the source: 0.4 s, 12 s, 3:07 or 1:02:45."""
    if abs(seconds) < 60:
        return f'{seconds:.1f}'.removesuffix('.0') + ' s'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'


def time_ticks(seconds: float, most: int = 6) -> list[float]:
    """List round times from 0: steps of seconds as numbers are, then of minutes and hours."""
    for step in (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400):
        if 60 < seconds <= step * most:
            return [float(step * place) for place in range(int(seconds / step) + 1)]
    return ticks(0.0, seconds, most)


def compact(value: float) -> str:
    """Write a number in little room: 0.25, 12, 3.4k, 1.2M."""
    for size, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= size:
            return f'{value / size:.3g}{letter}'
    return f'{value:.3g}'


@dataclass(frozen=True)
class Axes:
    """
    What a figure is drawn on.

    Parameters
    ----------
    x, y : (float, float)
        Lowest and highest value.
    height : int
        [pixels] of the whole figure.
    x_ticks : callable
        Gives the values to mark, of the highest one.
    x_text, y_text : callable
        Write a value.
    y_ticks : callable
        Gives the values to mark, of the lowest and the highest.
    """

    x: Point
    y: Point
    height: int = 190
    x_ticks: Callable[[float], list[float]] = time_ticks
    x_text: Callable[[float], str] = clock
    y_text: Callable[[float], str] = compact
    y_ticks: Callable[[float, float], list[float]] = partial(ticks, most=4)

    @property
    def depth(self) -> int:
        """[pixels] Height of the part where things are drawn."""
        return self.height - _TOP - _BELOW

    def across(self, value: float) -> float:
        """Give the place of a value across [%]."""
        low, high = self.x
        return 100 * min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))

    def down(self, value: float) -> float:
        """Give the place of a value from the top [pixels]."""
        low, high = self.y
        return _TOP + self.depth * (1 - min(1.0, max(0.0, (value - low) / ((high - low) or 1.0))))

    def draw(self, label: str, *marks: Markup, key: str | None = None) -> Markup:
        """Draw grid, numbers and marks; `key` names the values that a script may show."""
        grid = []
        for value in self.y_ticks(*self.y):
            y = self.down(value)
            grid += [tag('line', class_='grid', x1=0, x2='100%', y1=y, y2=y),
                     tag('text', self.y_text(value), class_='num', x=-8, y=y + 4,
                         text_anchor='end')]
        for value in self.x_ticks(self.x[1]):
            x = self.across(value)
            grid.append(tag('text', self.x_text(value), class_='num', x=f'{x:.2f}%',
                            y=self.height - 4, text_anchor='middle' if 2 < x < 97 else
                            'end' if x > 50 else 'start'))
        base = self.height - _BELOW
        return tag('svg', *grid, *marks,
                   tag('line', class_='axis', x1=0, x2='100%', y1=base, y2=base),
                   class_='plot', role='img', aria_label=label, width='100%', height=self.height,
                   data_plot=key)

    def line(self, points: Sequence[Point], kind: str) -> Markup:
        """Draw a curve."""
        return self._stretched(tag('path', class_=f'line {kind}', d=self._path(points)))

    def band(self, lower: Sequence[Point], upper: Sequence[Point], kind: str) -> Markup:
        """Fill what lies between two curves."""
        path = self._path([*upper, *reversed(lower)])
        return self._stretched(tag('path', class_=f'area {kind}', d=path and path + 'Z'))

    def level(self, value: float, text: str) -> Markup:
        """Draw a limit with its name."""
        y = self.down(value)
        return tag('g', tag('line', class_='limit', x1=0, x2='100%', y1=y, y2=y),
                   tag('text', text, class_='num', x='100%', y=y + 13, text_anchor='end'))

    def dot(self, x: float, y: float, kind: str, title: str, size: float = 4.0) -> Markup:
        """Mark one point; its title shows where the pointer rests."""
        return tag('circle', tag('title', title), class_=f'dot {kind}',
                   cx=f'{self.across(x):.2f}%', cy=self.down(y), r=size)

    def name(self, x: float, y: float, text: str) -> Markup:
        """Write a name beside a point."""
        right = self.across(x) < 80
        return tag('text', text, class_='name', x=f'{self.across(x):.2f}%', y=self.down(y) + 4,
                   dx=9 if right else -9, text_anchor='start' if right else 'end')

    def heat(self, columns: Sequence[tuple[float, float, Sequence[float]]], most: float) -> Markup:
        """
        Draw columns of cells, each as dark as its number is large.

        Parameters
        ----------
        columns : sequence of (from, to, numbers)
            Where along x, and what the cells hold, lowest cell first; cells are of one height.
        most : float
            The number of the darkest cell.
        """
        cells = []
        for start, stop, numbers in columns:
            size = _BOX / len(numbers)
            x = 10 * self.across(start)
            wide = 10 * self.across(stop) - x + .5  # or the ground shines through the seams
            row = 0
            while row < len(numbers):
                shade, first = _shade(numbers[row], most), row
                while row < len(numbers) and _shade(numbers[row], most) == shade:
                    row += 1
                if shade:
                    cells.append(tag('rect', class_=f'h{shade}', x=x, y=_BOX - size * row,
                                     width=wide, height=size * (row - first)))
        return self._stretched(*cells)

    def _path(self, points: Iterable[Point]) -> str:
        steps = (f'{10 * self.across(x):.1f} {_BOX * (self.down(y) - _TOP) / self.depth:.1f}'
                 for x, y in points)
        return ''.join(f'{"L" if place else "M"}{step}' for place, step in enumerate(steps))

    def _stretched(self, *inside: Markup) -> Markup:
        return tag('svg', *inside, y=_TOP, width='100%', height=self.depth,
                   viewBox=f'0 0 {_BOX} {_BOX}', preserveAspectRatio='none')


def stacked(axes: Axes, places: Sequence[float], parts: Sequence[tuple[str, Sequence[float]]],
            ) -> list[Markup]:
    """Draw parts (class, values) on top of each other."""
    bands, lower = [], [0.0] * len(places)
    for kind, values in parts:
        upper = [low + value for low, value in zip(lower, values)]
        bands.append(axes.band(list(zip(places, lower)), list(zip(places, upper)), kind))
        lower = upper
    return bands


def bins(count: int, most: int) -> list[range]:
    """Cut `count` things into runs of one length, at most `most`; the last may be shorter."""
    step = max(1, math.ceil(count / most))
    return [range(first, min(count, first + step)) for first in range(0, count, step)]


def _shade(value: float, most: float) -> int:
    """Give the shade of a number, 0 = none; square roots, so that little is still seen."""
    return 0 if value <= 0 else max(1, math.ceil(LEVELS * min(1.0, value / most) ** .5))
