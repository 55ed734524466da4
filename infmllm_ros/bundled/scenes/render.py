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
Anti-aliased painting with numpy, the same pixels on every machine.

Every shape is given in shares of the image (0 to 1, y downward) and its edge is the distance to
it, clipped over one pixel. Only operations that IEEE 754 rounds exactly are used (no sine, no
power, no matrix product), so that a seed gives the same bytes anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
import math
from statistics import NormalDist

from infmllm_ros.bundled.scenes.world import Dice
import numpy as np

Colour = np.ndarray
"""float32 [3]: red, green, blue, 0 to 255."""

PAINT = {name: np.array(levels, np.float32) for name, levels in {
    'red': (205, 30, 28), 'green': (28, 150, 48), 'blue': (30, 70, 210),
    'yellow': (240, 200, 20), 'purple': (140, 45, 170), 'white': (238, 238, 236)}.items()}

# How an arc of a digit is drawn: centre, radii, first and last angle in degrees (0 is right, 90
# is down). The others are corners of a line. A digit is 1 wide and 1.6 high.
_STROKES: dict[int, list[tuple]] = {
    0: [('arc', .5, .8, .42, .72, 0, 360)],
    1: [((.18, .4), (.56, .08), (.56, 1.52)), ((.22, 1.52), (.9, 1.52))],
    2: [('arc', .5, .5, .4, .42, 190, 380), ((.876, .644), (.1, 1.52), (.94, 1.52))],
    3: [('arc', .46, .44, .4, .36, 200, 450), ('arc', .46, 1.14, .44, .38, 270, 520)],
    4: [((.68, 1.52), (.68, .08), (.06, 1.06), (.97, 1.06))],
    5: [((.88, .08), (.2, .08), (.14, .74)), ('arc', .47, 1.04, .42, .48, 218, 505)],
    6: [((.78, .08), (.38, .46), (.12, .98)), ('arc', .5, 1.1, .4, .42, 0, 360)],
    7: [((.06, .08), (.94, .08), (.38, 1.52))],
    8: [('arc', .5, .44, .34, .36, 0, 360), ('arc', .5, 1.15, .42, .37, 0, 360)],
    9: [((.22, 1.52), (.62, 1.14), (.88, .62)), ('arc', .5, .5, .4, .42, 0, 360)],
}
GLYPH_HEIGHT = 1.6
_GLYPH_RES, _GLYPH_MARGIN = 48, .2
# Gaussian noise by table: one byte in, sixty-fourths of a standard deviation out.
_NORMAL = np.array([round(64 * NormalDist().inv_cdf((i + .5) / 256)) / 64 for i in range(256)],
                   np.float32)


def rgb(red: float, green: float, blue: float) -> Colour:
    """Return a colour from numbers of 0 to 255."""
    return np.array([red, green, blue], np.float32)


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour darker (factor under 1), or nearer to white (over 1, up to 2)."""
    if factor <= 1:
        return colour * np.float32(factor)
    return colour + (255 - colour) * np.float32(factor - 1)


@cache
def _glyph(digit: int) -> np.ndarray:
    """Return the distance of a grid of points to the strokes of a digit, float32 [h, w]."""
    res, margin = _GLYPH_RES, _GLYPH_MARGIN
    x = (np.arange(round(res * (1 + 2 * margin))) + .5) / res - margin
    y = (np.arange(round(res * (GLYPH_HEIGHT + 2 * margin))) + .5)[:, None] / res - margin
    best = np.full((y.shape[0], x.shape[0]), 9.)
    for stroke in _STROKES[digit]:
        if stroke[0] == 'arc':
            _, cx, cy, rx, ry, first, last = stroke
            turns = [math.radians(first + (last - first) * i / 16) for i in range(17)]
            stroke = tuple((round(cx + rx * math.cos(t), 4), round(cy + ry * math.sin(t), 4))
                           for t in turns)
        for (x0, y0), (x1, y1) in zip(stroke, stroke[1:]):
            dx, dy = x1 - x0, y1 - y0
            along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)
            along = np.clip(along, 0, 1)
            ex, ey = x - x0 - along * dx, y - y0 - along * dy
            best = np.minimum(best, np.sqrt(ex * ex + ey * ey))
    return best.astype(np.float32)


class Relief:
    """
    The texture of what stays in view for a while: smooth, random, the same at every size.

    Parameters
    ----------
    dice
        One draw is taken.
    """

    def __init__(self, dice: Dice) -> None:
        self._seed = dice.whole(0, 2**30)
        self._tiles: dict[int, np.ndarray] = {}

    def tile(self, size: int) -> np.ndarray:
        """Return it for an image of this size; see `texture`."""
        if size not in self._tiles:
            self._tiles[size] = texture(Dice(self._seed), size)
        return self._tiles[size]


def texture(dice: Dice, size: int) -> np.ndarray:
    """Return smooth random relief of mean about 0, float32 [2 size, 2 size], that repeats."""
    total = np.zeros((size, size), np.float32)
    for cells, weight in ((7, .6), (19, .4)):
        grid = np.array([[dice.share() - .5 for _ in range(cells)] for _ in range(cells)],
                        np.float32)
        at = (np.arange(size, dtype=np.float32) + .5) / size * cells
        low = at.astype(np.int64)
        part = (at - low).astype(np.float32)
        high = (low + 1) % cells
        rows = grid[low] + (grid[high] - grid[low]) * part[:, None]
        total += weight * (rows[:, low] + (rows[:, high] - rows[:, low]) * part)
    return np.tile(total, (2, 2))


class Canvas:
    """
    A square float image [size, size, 3] and the shapes that can be painted on it.

    Parameters
    ----------
    size
        Pixels of a side.
    seed
        Of the noise.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.image = np.zeros((size, size, 3), np.float32)
        self._grid = (np.arange(size, dtype=np.float32) + np.float32(.5)) / np.float32(size)
        self._noise = np.random.PCG64(seed)
        self.look(0, 0, 1)

    def look(self, dx: float, dy: float, zoom: float) -> None:
        """Point the camera: the scene moves by (dx, dy) and grows by zoom about its middle."""
        self._dx, self._dy, self._zoom = dx, dy, zoom
        self.x = (self._grid - (.5 + dx)) / zoom + .5    # scene coordinates of the columns, [w]
        self.y = ((self._grid - (.5 + dy)) / zoom + .5)[:, None]     # and of the rows, [h, 1]
        self.scale = self.size * zoom                                # pixels of one unit

    def cut(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice] | None:
        """Return the rows and columns that a box can touch; None where it is out of view."""
        size, zoom = self.size, self._zoom
        left = int(max(0, ((x0 - .5) * zoom + .5 + self._dx) * size - 1))
        right = int(min(size, ((x1 - .5) * zoom + .5 + self._dx) * size + 2))
        top = int(max(0, ((y0 - .5) * zoom + .5 + self._dy) * size - 1))
        bottom = int(min(size, ((y1 - .5) * zoom + .5 + self._dy) * size + 2))
        if left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)

    def lay(self, cut: tuple[slice, slice], cover: np.ndarray, colour: Colour) -> None:
        """Paint a colour over a part of the image, as far as it is covered (0 to 1)."""
        part = self.image[cut]
        part += cover[..., None] * (colour - part)

    def edge(self, inside: np.ndarray, alpha: float) -> np.ndarray:
        """Return the coverage of pixels from how far inside (in scene units) they lie."""
        cover = inside * self.scale
        cover += .5
        np.maximum(cover, 0, out=cover)       # np.clip takes twice as long on small arrays
        np.minimum(cover, 1, out=cover)
        if alpha != 1:
            cover *= alpha
        return cover

    def rows(self, top: Colour, bottom: Colour, y0: float, y1: float) -> None:
        """Fill the image with a vertical change from one colour to the other."""
        part = np.clip((self.y - y0) / (y1 - y0), 0, 1)
        self.image[:] = (top + part * (bottom - top))[:, None]

    def slope(self, top: Colour, bottom: Colour, y0: float) -> None:
        """Fill the rows from y0 down with a change from one colour to the other."""
        cut = self.cut(-1, y0, 2, 2)
        if cut is not None:
            y = self.y[cut[0]]
            part = np.clip((y - y0) / (1 - y0), 0, 1)
            rows = (top + part * (bottom - top))[:, None]
            image = self.image[cut]
            image += self.edge(y - y0, 1)[..., None] * (rows - image)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour,
             alpha: float = 1) -> None:
        """Paint an upright rectangle."""
        cut = self.cut(x0, y0, x1, y1)
        if cut is not None:
            x, y = self.x[cut[1]], self.y[cut[0]]
            across = self.edge(np.minimum(x - x0, x1 - x), alpha)
            self.lay(cut, across * self.edge(np.minimum(y - y0, y1 - y), 1), colour)

    def disc(self, cx: float, cy: float, rx: float, ry: float, colour: Colour, alpha: float = 1,
             hole: float = 0) -> None:
        """Paint an ellipse, or a ring where the hole is a share of the radii."""
        cut = self.cut(cx - rx, cy - ry, cx + rx, cy + ry)
        if cut is not None:
            u, v = (self.x[cut[1]] - cx) / rx, (self.y[cut[0]] - cy) / ry
            r = np.sqrt(u * u + v * v)
            inside = 1 - r
            if hole:
                inside = np.minimum(inside, r - hole)
            self.lay(cut, self.edge(inside * min(rx, ry), alpha), colour)

    def glow(self, cx: float, cy: float, radius: float, colour: Colour, alpha: float) -> None:
        """Paint light that fades away from its middle."""
        cut = self.cut(cx - radius, cy - radius, cx + radius, cy + radius)
        if cut is not None:
            u, v = (self.x[cut[1]] - cx) / radius, (self.y[cut[0]] - cy) / radius
            self.lay(cut, np.clip(1 - u * u - v * v, 0, 1) * alpha, colour)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour,
                alpha: float = 1) -> None:
        """Paint a convex polygon whose corners come clockwise on the screen."""
        cut = self.cut(min(p[0] for p in points), min(p[1] for p in points),
                       max(p[0] for p in points), max(p[1] for p in points))
        if cut is None:
            return
        x, y = self.x[cut[1]], self.y[cut[0]]
        inside = None
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]]):
            dx, dy = x1 - x0, y1 - y0
            length = math.sqrt(dx * dx + dy * dy)
            edge = (y - y0) * (dx / length) - (x - x0) * (dy / length)
            inside = edge if inside is None else np.minimum(inside, edge)
        self.lay(cut, self.edge(inside, alpha), colour)

    def digit(self, digit: int, cx: float, cy: float, height: float, colour: Colour,
              weight: float = .13, slant: float = 0) -> None:
        """Paint a digit about a point; weight is half a stroke's breadth over the width."""
        unit = height / GLYPH_HEIGHT
        cut = self.cut(cx - .75 * unit, cy - 1.05 * unit, cx + .75 * unit, cy + 1.05 * unit)
        if cut is None:
            return
        field = _glyph(digit)
        v = (self.y[cut[0]] - cy) / unit
        u = (self.x[cut[1]] - cx) / unit + v * slant
        col = ((u + (.5 + _GLYPH_MARGIN)) * _GLYPH_RES).astype(np.int64)
        row = ((v + (GLYPH_HEIGHT / 2 + _GLYPH_MARGIN)) * _GLYPH_RES).astype(np.int64)
        far = field[np.clip(row, 0, field.shape[0] - 1), np.clip(col, 0, field.shape[1] - 1)]
        self.lay(cut, self.edge((weight - far) * unit, 1), colour)

    def relief(self, tile: np.ndarray, u: float, v: float, strength: float, y0: float = 0,
               y1: float = 1) -> None:
        """Lighten and darken the rows from y0 to y1 by a texture, moved by shares (u, v)."""
        cut = self.cut(0, y0, 1, y1)
        if cut is not None:
            row, col = int(u % 1 * self.size), int(v % 1 * self.size)
            rows = slice(row + cut[0].start, row + cut[0].stop)
            part = 1 + strength * tile[rows, col:col + self.size]
            self.image[cut[0]] *= part[..., None]

    def finish(self, light: Colour, sigma: float) -> np.ndarray:
        """Light the image (a factor a channel), add noise of sigma levels: uint8 [h, w, 3]."""
        count = self.image.size
        raw = self._noise.random_raw((count + 7) // 8).astype('<u8', copy=False).view(np.uint8)
        noise = _NORMAL[raw[:count]].reshape(self.image.shape)
        noise *= sigma
        image = self.image * light
        image += noise
        return np.clip(image, 0, 255, out=image).astype(np.uint8)
