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

"""How a bench looks: the room, the table, what stands on it and the gripper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infmllm_ros.bundled.scenes.render import Canvas, PAINT, Relief, rgb, shade
from infmllm_ros.bundled.scenes.words import COLOURS, NONE, PLACES
from infmllm_ros.bundled.scenes.world import Box, Dice

WALLS = (rgb(175, 180, 190), rgb(205, 195, 175), rgb(120, 130, 150), rgb(150, 165, 150),
         rgb(95, 95, 105))
TABLES = (rgb(165, 120, 80), rgb(120, 85, 60), rgb(140, 140, 145), rgb(190, 165, 130),
          rgb(85, 95, 100))
STEEL, DARK = rgb(150, 154, 162), rgb(58, 60, 68)
BLACK, WHITE = rgb(15, 15, 18), rgb(250, 250, 250)
ARMS = ((STEEL, DARK), (rgb(225, 130, 35), DARK), (DARK, STEEL), (rgb(215, 215, 210), DARK))
MIDDLES = dict(zip(PLACES, (.19, .5, .81)))
BASE, SIZE, SWAY = .87, .21, .1


class Room:
    """The part of the picture that stays for a while: wall, table, clutter, arm."""

    def __init__(self, dice: Dice) -> None:
        between, pick = dice.between, dice.pick
        wall, table = pick(WALLS), pick(TABLES)
        self.edge = between(.5, .6)
        self.wall = shade(wall, between(.75, 1.1)), shade(wall, between(.75, 1.1))
        self.table = shade(table, between(.75, 1.05)), shade(table, between(.9, 1.15))
        self.rough = between(.1, .4)
        self.arm = pick(ARMS)
        self.clutter: list[tuple] = []
        for _ in range(dice.whole(2, 5)):          # posters and shelves on the wall
            width, height = between(.06, .22), between(.05, .2)
            x, y = between(-.05, .95), between(.02, .4)
            colour = shade(PAINT[pick(COLOURS)], between(.5, 1.2))
            if dice.chance(.4):
                colour = shade(wall, between(.4, 1.4))
            self.clutter.append((x, y, x + width, min(self.edge, y + height), colour))
        for _ in range(dice.whole(0, 3)):          # a row of books on the table's far edge
            x, height = between(0, .95), between(.05, .11)
            for i in range(dice.whole(1, 4)):
                colour = shade(PAINT[pick(COLOURS)], between(.4, .75))
                self.clutter.append((x + .028 * i, self.edge - height, x + .028 * i + .022,
                                     self.edge + .01, colour))
        self.papers = []
        for _ in range(dice.whole(0, 4)):          # flat things on the table
            x, y = between(-.05, .95), between(self.edge + .02, 1)
            self.papers.append((x, y, x + between(.03, .2), y + between(.01, .05),
                                shade(PAINT[pick(COLOURS)] if dice.chance(.6) else wall,
                                      between(.6, 1.2))))
        self.relief = Relief(dice)      # of wall and table


def paint_bench(canvas: Canvas, room: Room, stands: Mapping[str, str], spots: Mapping[str, Any],
                pose: Any, sway: Sequence[float]) -> dict[str, Box]:
    """
    Paint one frame of a bench.

    Parameters
    ----------
    canvas
        What is painted on; all of it is painted over.
    room
        The room.
    stands
        Place -> the thing that stands there, or 'none'.
    spots
        Place -> ``bench.Spot``: how it stands there.
    pose
        ``bench.Pose`` of the gripper.
    sway
        Three shares: how the gripper hangs in this frame.

    Returns
    -------
    boxes
        Where each thing and the gripper was painted.
    """
    boxes: dict[str, Box] = {}
    canvas.rows(*room.wall, 0, room.edge)
    for x0, y0, x1, y1, colour in room.clutter:
        canvas.rect(x0, y0, x1, y1, colour)
    canvas.slope(*room.table, room.edge)
    for x0, y0, x1, y1, colour in room.papers:
        canvas.rect(x0, y0, x1, y1, colour, .85)
    canvas.relief(room.relief.tile(canvas.size), 0, 0, room.rough)
    for place in PLACES:
        if stands[place] != NONE:
            spot = spots[place]
            cx, base = MIDDLES[place] + SWAY * (spot.x - .5), BASE + SWAY * (spot.y - .5)
            size = SIZE * (.9 + .2 * spot.size)
            canvas.disc(cx + .01, base - .005, size * .56, size * .13, BLACK, .45)
            boxes[place] = _thing(canvas, stands[place], cx, base, size, spot.look)
    if pose.place != NONE:
        spot = spots.get(pose.place) if pose.low else None
        boxes.update(_gripper(canvas, room, pose, sway, spot))
    return boxes


def _thing(canvas: Canvas, name: str, cx: float, base: float, s: float, look: float) -> Box:
    """Paint a cube, a ball or a cup that stands on base; return its box."""
    colour, _, shape = name.partition(' ')
    paint = PAINT[colour]
    rim = shade(paint, .35)
    if shape == 'cube':
        lean = s * (.1 + .12 * look)
        w, top, up = s * .42, base - s * .8, s * .2
        canvas.polygon(((cx - w + lean - .012, top - up - .012),
                        (cx + w + lean + .012, top - up - .012),
                        (cx + w + lean + .012, base - up), (cx + w + .006, base + .01),
                        (cx - w - .012, base + .01), (cx - w - .012, top - .006)), rim)
        canvas.rect(cx - w, top, cx + w, base, paint)
        canvas.polygon(((cx - w + lean, top - up), (cx + w + lean, top - up), (cx + w, top),
                        (cx - w, top)), shade(paint, 1.35))
        canvas.polygon(((cx + w + lean, top - up), (cx + w + lean, base - up), (cx + w, base),
                        (cx + w, top)), shade(paint, .62))
        return cx - w, top - up, cx + w + lean, base
    if shape == 'ball':
        r = s * .48
        canvas.disc(cx, base - r, r + .012, r + .012, rim)
        canvas.disc(cx, base - r, r, r, shade(paint, .78))
        canvas.disc(cx - r * .12, base - r * 1.12, r * .8, r * .8, paint)
        canvas.glow(cx - r * .35, base - r * 1.4, r * .42, WHITE, .85)
        return cx - r, base - 2 * r, cx + r, base
    side = 1 if look < .5 else -1
    wide, thin, top = s * .4, s * .28, base - s * .9
    canvas.disc(cx + side * wide * .95, base - s * .5, s * .26, s * .26, rim, hole=.5)
    canvas.disc(cx + side * wide * .95, base - s * .5, s * .235, s * .235, paint, hole=.6)
    canvas.polygon(((cx - wide - .012, top - .005), (cx + wide + .012, top - .005),
                    (cx + thin + .012, base + .01), (cx - thin - .012, base + .01)), rim)
    canvas.polygon(((cx - wide, top), (cx + wide, top), (cx + thin, base), (cx - thin, base)),
                   paint)
    canvas.disc(cx, top, wide + .012, s * .15, rim)
    canvas.disc(cx, top, wide, s * .13, shade(paint, 1.3))
    canvas.disc(cx, top + s * .02, wide * .8, s * .09, shade(paint, .25))
    return cx - wide, top - s * .13, cx + wide, base


def _gripper(canvas: Canvas, room: Room, pose: Any, sway: Sequence[float], spot: Any
             ) -> dict[str, Box]:
    """Paint the gripper, with what it holds; return their boxes."""
    boxes: dict[str, Box] = {}
    cx = MIDDLES[pose.place] + SWAY * ((spot.x if spot else sway[0]) - .5)
    down = .1 + .1 * sway[1]                         # the palm's underside
    if spot:
        down = BASE + SWAY * (spot.y - .5) - SIZE - .07 + .02 * sway[1]
    arm, hand = room.arm
    if pose.held != NONE:
        s = SIZE * .97
        boxes['held'] = _thing(canvas, pose.held, cx, down + .035 + s, s, sway[2])
    gap = {'open': .155, 'closed': .035, 'holding': .118}[pose.hand]
    reach = {'open': .16, 'closed': .19, 'holding': .17}[pose.hand]
    canvas.rect(cx - .045, -.2, cx + .045, down - .03, shade(arm, .45))
    canvas.rect(cx - .035, -.2, cx + .035, down - .03, arm)
    canvas.rect(cx - gap - .045, down - .065, cx + gap + .045, down + .01, shade(hand, .5))
    canvas.rect(cx - gap - .035, down - .055, cx + gap + .035, down, hand)
    for side in (-1, 1):
        x = cx + side * gap
        canvas.rect(x - .032, down - .01, x + .032, down + reach + .01, shade(hand, .45))
        canvas.rect(x - .021, down - .01, x + .021, down + reach, shade(arm, 1.1))
    boxes['gripper'] = cx - gap - .045, down - .065, cx + gap + .045, down + reach
    return boxes
