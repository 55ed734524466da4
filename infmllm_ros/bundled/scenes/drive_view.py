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

"""How a drive looks: the landscape, the road and everything that can come into view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infmllm_ros.bundled.scenes.render import Canvas, Colour, PAINT, Relief, rgb, shade
from infmllm_ros.bundled.scenes.words import COLOURS, LIGHTS, NUMBERS
from infmllm_ros.bundled.scenes.world import Box, Dice
import numpy as np

LAMPS = {'red': rgb(255, 40, 25), 'yellow': rgb(255, 210, 20), 'green': rgb(30, 255, 90)}
BLACK, WHITE, GREY = rgb(18, 18, 20), rgb(245, 245, 245), rgb(120, 122, 126)
ORANGE, GLASS, SKIN = rgb(250, 100, 5), rgb(60, 85, 110), rgb(225, 175, 140)
WOOD, PINE = rgb(92, 62, 38), rgb(225, 190, 130)
RED_RIM, AMBER, SIGN_BLUE = rgb(205, 20, 20), rgb(250, 200, 30), rgb(30, 70, 175)
PANELS = ((WHITE, RED_RIM, BLACK), (AMBER, BLACK, BLACK), (SIGN_BLUE, WHITE, WHITE),
          (WHITE, BLACK, BLACK))                   # face, rim, digit
SKIES = ((rgb(95, 150, 215), rgb(190, 215, 235)), (rgb(150, 155, 165), rgb(200, 203, 208)),
         (rgb(60, 75, 120), rgb(220, 160, 120)), (rgb(120, 170, 200), rgb(225, 220, 200)),
         (rgb(45, 55, 85), rgb(110, 115, 140)))
GROUNDS = (rgb(95, 135, 70), rgb(150, 140, 90), rgb(125, 110, 95), rgb(175, 165, 140),
           rgb(110, 125, 115))


class Landscape:
    """The part of the picture that stays for a while: sky, skyline, ground, litter."""

    def __init__(self, dice: Dice) -> None:
        between, pick = dice.between, dice.pick
        self.horizon = between(.38, .46)
        self.sky = pick(SKIES)
        ground = pick(GROUNDS)
        self.ground = shade(ground, between(.9, 1.25)), shade(ground, between(.7, 1.05))
        self.road = shade(GREY, between(.55, .95))
        self.line = pick((WHITE, rgb(225, 200, 90)))
        self.rough = between(.15, .5)
        self.sun = pick((0., 1.)), between(.05, .95), between(.04, .25), between(.04, .07)
        self.clouds = [(between(0, 1), between(.02, .3), between(.08, .2), between(.02, .06),
                        shade(self.sky[1], between(1.1, 1.6))) for _ in range(dice.whole(0, 3))]
        self.skyline = []
        for _ in range(dice.whole(2, 6)):
            # Some houses far away are painted in colours that also mean something nearby.
            bright = dice.chance(.3)
            colour = PAINT[pick(COLOURS)] if bright else shade(GREY, between(.6, 1.4))
            height = between(.03, .07) if bright else between(.04, .16)
            self.skyline.append((between(-.1, 1), between(.05, .16), self.horizon - height,
                                 shade(colour, .75)))
        self.litter = [(pick((-1, 1)) * between(.75, 1.6), between(0, 1), between(.008, .022),
                        shade(PAINT[pick(COLOURS)], between(.6, 1))) for _ in range(4)]
        self.relief = Relief(dice)      # of the ground


def paint_drive(canvas: Canvas, land: Landscape, stays: Mapping[str, Any], vx: float,
                phase: float) -> dict[str, Box]:
    """
    Paint one frame of a drive.

    Parameters
    ----------
    canvas
        What is painted on; all of it is painted over.
    land
        The landscape.
    stays
        What is in view: sort -> ``drive.Stay``.
    vx
        Where the road meets the horizon.
    phase
        How far the car has gone.

    Returns
    -------
    boxes
        Where each thing in view was painted.
    """
    boxes: dict[str, Box] = {}
    horizon = land.horizon
    canvas.rows(*land.sky, 0, horizon)
    if land.sun[0]:
        canvas.disc(land.sun[1], land.sun[2], land.sun[3], land.sun[3], rgb(255, 240, 190), .8)
    for cx, cy, rx, ry, colour in land.clouds:
        canvas.disc(cx, cy, rx, ry, colour, .7)
    for x, width, top, colour in land.skyline:
        x += (vx - .5) * .5
        canvas.rect(x, top, x + width, horizon + .02, colour)
    canvas.slope(*land.ground, horizon)
    for x, y, size, colour in land.litter:
        along = (y + phase * .13) % 1
        y = horizon + .04 + .5 * along * along
        canvas.disc(vx + x * (y - horizon) * 2, y, size * (.3 + along),
                    size * (.15 + .4 * along), colour, .8)
    _road(canvas, vx, horizon, land.road, land.line, phase)
    canvas.relief(land.relief.tile(canvas.size), -phase * .31, phase * .17, land.rough, horizon)
    for name in ('left', 'right'):
        if name in stays:
            boxes[name] = _thing(canvas, stays[name], name)
    for name, painter in (('vehicle', _vehicle), ('obstacle', _obstacle)):
        if name in stays:
            boxes[name] = painter(canvas, stays[name], vx)
    for name, painter in (('sign', _sign), ('light', _light)):
        if name in stays:
            boxes[name] = painter(canvas, stays[name])
    if 'cones' in stays:
        boxes.update(_cones(canvas, stays['cones']))
    return boxes


def _road(canvas: Canvas, vx: float, horizon: float, colour: Colour, line: Colour,
          phase: float) -> None:
    """Paint the road: a wedge with edge lines and a dashed middle."""
    cut = canvas.cut(-.2, horizon, 1.2, 1.2)
    if cut is None:
        return
    x, y = canvas.x[cut[1]], canvas.y[cut[0]]
    depth = np.clip((y - horizon) / (1 - horizon), .02, 2)
    off = np.abs(x - (vx + (.5 - vx) * depth))
    half = .03 + .47 * depth
    canvas.lay(cut, canvas.edge(half - off, 1), colour)
    canvas.lay(cut, canvas.edge(.02 * depth - np.abs(off - half * .9), .9), line)
    along = .35 / depth + phase
    dash = (along - np.floor(along) < .5).astype(np.float32)
    canvas.lay(cut, canvas.edge(.018 * depth - off, .9) * dash, line)


def _thing(canvas: Canvas, stay: Any, side: str) -> Box:
    """Paint what stands at the side of the road."""
    s = .26 + .06 * stay.near
    sign = -1 if side == 'left' else 1
    cx, base = .5 + sign * (.355 + .03 * stay.near) + stay.x * .4, .74 + .03 * stay.near + stay.y
    look, other = stay.looks[0], stay.looks[1]
    canvas.disc(cx, base, s * .4, s * .06, BLACK, .35)
    if stay.what == 'tree':
        leaf = shade(rgb(40, 110, 45), .7 + .6 * look)
        canvas.rect(cx - s * .07, base - s * .45, cx + s * .07, base, WOOD)
        if other < .5:
            canvas.disc(cx, base - s * .85, s * .4, s * .48, leaf)
            canvas.disc(cx - s * .12, base - s * .98, s * .18, s * .2, shade(leaf, 1.15))
        else:
            for low, high, half in ((.3, .85, .44), (.7, 1.35, .34)):
                canvas.polygon(((cx, base - s * high), (cx + s * half, base - s * low),
                                (cx - s * half, base - s * low)), leaf)
    elif stay.what == 'house':
        wall = shade((rgb(230, 215, 185), rgb(205, 160, 130), rgb(200, 205, 210))[int(look * 3)],
                     .8 + .2 * other)
        roof = (rgb(150, 60, 45), rgb(85, 85, 95), rgb(120, 85, 60))[int(other * 3)]
        canvas.rect(cx - s * .44, base - s * .65, cx + s * .44, base, wall)
        canvas.polygon(((cx, base - s * 1.15), (cx + s * .54, base - s * .6),
                        (cx - s * .54, base - s * .6)), roof)
        canvas.rect(cx - s * .1, base - s * .4, cx + s * .1, base, WOOD)
        canvas.rect(cx + s * .2, base - s * .5, cx + s * .36, base - s * .3, GLASS)
        canvas.rect(cx - s * .36, base - s * .5, cx - s * .2, base - s * .3, GLASS)
    elif stay.what == 'person':
        _person(canvas, cx, base, s * 1.15, look, other)
    elif stay.what == 'rock':
        stone = shade(rgb(150, 146, 142), .8 + .3 * look)
        canvas.rect(cx - s * .5, base - s * .06, cx + s * .5, base + s * .04, BLACK, .6)
        canvas.polygon(((cx - s * .2, base - s * .52), (cx + s * .16, base - s * .6),
                        (cx + s * .42, base - s * .25), (cx + s * .46, base),
                        (cx - s * .46, base), (cx - s * .42, base - s * .22)), stone)
        canvas.polygon(((cx - s * .2, base - s * .52), (cx + s * .16, base - s * .6),
                        (cx + s * .05, base - s * .3), (cx - s * .3, base - s * .25)),
                       shade(stone, 1.5))
    else:
        paint = shade(WHITE if other < .6 else PINE, .8 + .2 * look)
        for low, high in ((.16, .26), (.42, .52)):
            canvas.rect(cx - s * .5, base - s * high, cx + s * .5, base - s * low, paint)
        for i in range(5):
            x = cx + s * (.22 * i - .44)
            canvas.rect(x - s * .055, base - s * .68, x + s * .055, base, paint)
    return cx - s * .5, base - s * 1.2, cx + s * .5, base


def _person(canvas: Canvas, cx: float, base: float, s: float, look: float, other: float) -> None:
    """Paint a person of height s."""
    shirt = shade(PAINT[COLOURS[int(look * 6)]], .85)
    legs = (rgb(40, 45, 70), rgb(70, 60, 50), rgb(30, 30, 32))[int(other * 3)]
    canvas.rect(cx - s * .12, base - s * .42, cx - s * .02, base, legs)
    canvas.rect(cx + s * .02, base - s * .42, cx + s * .12, base, legs)
    canvas.rect(cx - s * .21, base - s * .74, cx + s * .21, base - s * .62, shirt)
    canvas.rect(cx - s * .14, base - s * .76, cx + s * .14, base - s * .38, shirt)
    canvas.rect(cx - s * .22, base - s * .64, cx - s * .16, base - s * .4, SKIN)
    canvas.rect(cx + s * .16, base - s * .64, cx + s * .22, base - s * .4, SKIN)
    canvas.disc(cx, base - s * .87, s * .115, s * .125, SKIN)
    canvas.disc(cx, base - s * .95, s * .115, s * .06, rgb(50, 35, 25))


def _light(canvas: Canvas, stay: Any) -> Box:
    """Paint a traffic light that hangs over the road."""
    s = .92 + .12 * stay.near
    cx, top = stay.x, .05 + stay.y
    half, height = .075 * s, .34 * s
    canvas.rect(cx - .012, -.2, cx + .012, top + .02, shade(GREY, .6))
    back = stay.looks[0] < .3
    canvas.rect(cx - half - .014, top - .014, cx + half + .014, top + height + .014,
                WHITE if back else BLACK, .9)
    canvas.rect(cx - half, top, cx + half, top + height, rgb(30, 32, 34))
    for i, name in enumerate(LIGHTS):
        cy = top + height * (.18 + .32 * i)
        if name == stay.what:
            canvas.glow(cx, cy, .1 * s, LAMPS[name], .5)
            canvas.disc(cx, cy, .052 * s, .052 * s, LAMPS[name])
        else:
            canvas.disc(cx, cy, .045 * s, .045 * s, shade(LAMPS[name], .25))
    return cx - half, top, cx + half, top + height


def _sign(canvas: Canvas, stay: Any) -> Box:
    """Paint a sign with a digit, of one of four designs."""
    face, rim, ink = PANELS[int(stay.looks[0] * 4)]
    s = .88 + .2 * stay.near
    r = .155 * s
    cx, cy = stay.x, .2 + stay.y
    if stay.looks[4] < .4 or abs(stay.x - .5) < .2:
        canvas.rect(cx - .012, -.2, cx + .012, cy, shade(GREY, .7))
    else:
        canvas.rect(cx - .014, cy, cx + .014, .72, shade(GREY, .8))
    shape = int(stay.looks[1] * 3)
    if shape == 0:
        canvas.disc(cx, cy, r * 1.1, r * 1.1, rim)
        canvas.disc(cx, cy, r * .94, r * .94, face)
    elif shape == 1:
        canvas.rect(cx - r, cy - r, cx + r, cy + r, rim)
        canvas.rect(cx - r * .88, cy - r * .88, cx + r * .88, cy + r * .88, face)
    else:
        for grow, colour in ((1.38, rim), (1.2, face)):
            q = r * grow
            canvas.polygon(((cx, cy - q), (cx + q, cy), (cx, cy + q), (cx - q, cy)), colour)
    canvas.digit(NUMBERS.index(stay.what), cx, cy, r * 1.32, ink, .115 + .04 * stay.looks[2],
                 .2 * (stay.looks[3] - .5))
    return cx - r, cy - r, cx + r, cy + r


def _vehicle(canvas: Canvas, stay: Any, vx: float) -> Box:
    """Paint the back of a car or of a truck, in its colour."""
    colour, _, sort = stay.what.partition(' ')
    paint = PAINT[colour]
    s = .27 + .07 * stay.near
    cx, base = .5 + (vx - .5) * .5 + stay.x, .69 + .05 * stay.near + stay.y
    canvas.disc(cx, base, s * .56, s * .08, BLACK, .5)
    for side in (-1, 1):
        canvas.rect(cx + side * s * .36 - s * .09, base - s * .18, cx + side * s * .36 + s * .09,
                    base + s * .02, BLACK)
    if sort == 'car':
        top = base - s * .8
        canvas.polygon(((cx - s * .32, top), (cx + s * .32, top), (cx + s * .46, base - s * .4),
                        (cx - s * .46, base - s * .4)), shade(paint, .85))
        canvas.polygon(((cx - s * .26, top + s * .07), (cx + s * .26, top + s * .07),
                        (cx + s * .36, base - s * .44), (cx - s * .36, base - s * .44)), GLASS)
        canvas.rect(cx - s * .5, base - s * .44, cx + s * .5, base - s * .1, paint)
    else:
        top = base - s * 1.15
        canvas.rect(cx - s * .5, top, cx + s * .5, base - s * .16, paint)
        canvas.rect(cx - s * .5, top, cx + s * .5, top + s * .07, shade(paint, .6))
        canvas.rect(cx - s * .015, top + s * .07, cx + s * .015, base - s * .26,
                    shade(paint, .55))
        canvas.rect(cx - s * .5, base - s * .26, cx + s * .5, base - s * .12, shade(GREY, .5))
    for side in (-1, 1):
        x = cx + side * s * .41
        canvas.rect(x - s * .07, base - s * .36, x + s * .07, base - s * .27, RED_RIM)
    canvas.rect(cx - s * .12, base - s * .24, cx + s * .12, base - s * .15, WHITE)
    return cx - s * .5, top, cx + s * .5, base


def _obstacle(canvas: Canvas, stay: Any, vx: float) -> Box:
    """Paint a person or a barrier on the road."""
    s = .3 + .06 * stay.near
    cx, base = .5 + (vx - .5) * .5 + stay.x, .72 + .04 * stay.near + stay.y
    canvas.disc(cx, base, s * .3, s * .05, BLACK, .4)
    if stay.what == 'person':
        _person(canvas, cx, base, s * 1.15, stay.looks[0], stay.looks[1])
        return cx - s * .25, base - s * 1.15, cx + s * .25, base
    for side in (-1, 1):
        x = cx + side * s * .5
        canvas.rect(x - s * .045, base - s * .62, x + s * .045, base, shade(GREY, .6))
    for low in (.3, .02):
        top = base - s * (.34 + low)
        canvas.rect(cx - s * .68, top, cx + s * .68, top + s * .22, WHITE)
        for i in range(4):
            x = cx + s * (.34 * i - .62)
            canvas.polygon(((x + s * .08, top), (x + s * .25, top), (x + s * .17, top + s * .22),
                            (x, top + s * .22)), RED_RIM)
    return cx - s * .68, base - s * .64, cx + s * .68, base


def _cones(canvas: Canvas, stay: Any) -> dict[str, Box]:
    """Paint a group of one to five cones side by side on the road."""
    count = NUMBERS.index(stay.what)
    boxes, spare = {}, 5 - count
    start, gap = stay.looks[0] * spare, .165
    for i in range(count):
        # Spread over five slots; the last look stretches the group within its spare room.
        slot = start + i * (1 + (spare - start) / 5 * stay.looks[1])
        x = .17 + gap * slot + .02 * (stay.looks[2 + i % 4] - .5)
        base, s = .93 + .03 * stay.near + .04 * (stay.looks[5 - i % 4] - .5), .17
        canvas.disc(x, base, s * .42, s * .1, BLACK, .4)
        canvas.rect(x - s * .38, base - s * .1, x + s * .38, base, shade(ORANGE, .75))
        canvas.polygon(((x - s * .06, base - s), (x + s * .06, base - s),
                        (x + s * .3, base - s * .1), (x - s * .3, base - s * .1)), ORANGE)
        canvas.polygon(((x - s * .13, base - s * .72), (x + s * .13, base - s * .72),
                        (x + s * .19, base - s * .46), (x - s * .19, base - s * .46)), WHITE)
        boxes[f'cone {i}'] = x - s * .38, base - s, x + s * .38, base
    return boxes
