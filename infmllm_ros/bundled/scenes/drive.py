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

"""A drive: a road with a traffic light, signs, cones, a vehicle ahead and things at the sides."""

from __future__ import annotations

import dataclasses

from infmllm_ros.bundled.scenes.drive_view import Landscape, paint_drive
from infmllm_ros.bundled.scenes.render import Canvas
from infmllm_ros.bundled.scenes.words import (
    AHEAD,
    COLOURS,
    count_word,
    LIGHTS,
    NONE,
    NUMBERS,
    SIGHTS,
    THINGS,
)
from infmllm_ros.bundled.scenes.world import Dice, Event, Fact, frames, World

# What has a stay in view: chance of appearing in a frame, shortest and longest stay in frames.
STAYS = {
    'light': (.22, 3, 7), 'sign': (.22, 2, 4), 'cones': (.22, 2, 4), 'vehicle': (.24, 2, 6),
    'obstacle': (.2, 1, 3), 'left': (.4, 1, 4), 'right': (.4, 1, 4),
}
# These two are never in view together, so that "since the last sign" is clear.
APART = {'sign': 'cones', 'cones': 'sign', 'vehicle': 'obstacle', 'obstacle': 'vehicle'}
GAP = 2                       # frames at least between two of a sort
LANDSCAPE = (40, 120)         # frames of one landscape
MOST_CONES = 9                # since a sign


@dataclasses.dataclass
class Stay:
    """A thing in view: what it is, how many frames of its stay are over, and how it looks."""

    what: str
    length: int
    x: float
    y: float
    looks: tuple[float, ...]
    age: int = 0

    @property
    def near(self) -> float:
        """How near it has come: 0 at first sight, towards 1 when it passes."""
        return self.age / self.length


class Drive(World):
    """
    A road seen from a robot car.

    Parameters
    ----------
    dice
        Of all that happens.
    pace
        Factor on the chance that something appears: small means long quiet stretches.
    """

    kind = 'drive'

    def __init__(self, dice: Dice, pace: float) -> None:
        self._dice, self._pace = dice, pace
        # Half of the drives never meet one sort of thing, so that "never seen" has its questions.
        self._absent = dice.pick(SIGHTS) if dice.chance(.5) else NONE
        self._stays: dict[str, Stay] = {}
        self._rest: dict[str, int] = {}
        self._passed: list[tuple[int, int]] = []     # cones since the sign: count, last frame
        self._sign_seen: int | None = None
        self._until = 0
        self.light, self._vx, self._phase = 1., .5, 0.
        self.truth, self.facts, self.boxes = {}, {}, {}

    def back(self, name: str) -> Fact | None:
        """Return the fact behind a *back* question; None where it was never shown."""
        if not name.startswith('order:'):
            return self.facts.get(name)
        pair = name[6:].split('/')
        if not self._stays.keys().isdisjoint(pair):
            return None                # one of them is in view: that needs no memory
        one, two = (self.facts.get(f'seen:{sight}') for sight in pair)
        if one is None or two is None or one.evidence == two.evidence:
            return None
        last = max(one, two, key=lambda fact: fact.evidence[0][1])
        return Fact(last.value, one.evidence + two.evidence)

    def advance(self, ordinal: int) -> list[Event]:
        """Go on by one frame; see `World.advance`."""
        dice = self._dice
        if ordinal >= self._until:
            self._until = ordinal + dice.whole(*LANDSCAPE)
            self._land = Landscape(dice)
        self.light = min(1.12, max(.68, self.light + dice.between(-.05, .05)))
        self._vx = min(.58, max(.42, self._vx + dice.between(-.03, .03)))
        self._phase += dice.between(.3, .7)
        new = self._move()
        self._tell_truth()
        return self._remember(ordinal, new)

    def _move(self) -> set[str]:
        """Let stays end and begin; return the sorts of which one appeared."""
        dice, new = self._dice, set()
        for name, stay in list(self._stays.items()):
            stay.age += 1
            if stay.age >= stay.length:
                del self._stays[name]
                self._rest[name] = GAP
        for name in dice.few(tuple(STAYS), len(STAYS)):
            rest = self._rest[name] = max(0, self._rest.get(name, 0) - 1)
            chance, low, high = STAYS[name]
            wanted = dice.chance(chance * self._pace)
            if (not wanted or rest or name in self._stays or name == self._absent
                    or APART.get(name) in self._stays or self._rest.get(APART.get(name), 0)
                    # Of the sorts whose order is asked about only one appears in a frame.
                    or name in SIGHTS and not new.isdisjoint(SIGHTS)):
                continue
            what = self._choose(name)
            if what is not None:
                self._stays[name] = self._place(name, what, dice.whole(low, high))
                new.add(name)
        light = self._stays.get('light')
        if light is not None and light.age and dice.chance(.3):
            light.what = {'red': 'green', 'green': 'yellow', 'yellow': 'red'}[light.what]
            new.add('light')
        return new

    def _choose(self, name: str) -> str | None:
        """Return what appears; None where it would not be countable."""
        dice = self._dice
        if name == 'cones':
            count = dice.whole(1, 5)
            before = sum(count for count, _ in self._passed)
            return NUMBERS[count] if before + count <= MOST_CONES else None
        if name == 'vehicle':
            return f'{dice.pick(COLOURS)} {dice.pick(AHEAD[:2])}'
        return dice.pick({'light': LIGHTS, 'sign': NUMBERS, 'obstacle': AHEAD[2:],
                          'left': THINGS, 'right': THINGS}[name])

    def _place(self, name: str, what: str, length: int) -> Stay:
        """Return a stay at a place where it hides nothing that is asked about."""
        dice = self._dice
        x, y = dice.between(-.04, .04), dice.between(-.02, .02)
        if name in ('light', 'sign'):     # anywhere over the road, but side by side
            other = self._stays.get('sign' if name == 'light' else 'light')
            x, y = dice.between(.13, .87), dice.between(-.025, .05)
            while other is not None and abs(x - other.x) < .23:
                x = dice.between(.13, .87)
        return Stay(what, length, x, y, tuple(dice.share() for _ in range(6)))

    def _tell_truth(self) -> None:
        """Set `truth` from what is in view."""
        stays = self._stays
        words = {name: stay.what for name, stay in stays.items()}
        colour, _, sort = words.get('vehicle', '').partition(' ')
        self.truth = {name: words.get(name, NONE)
                      for name in ('light', 'sign', 'cones', 'left', 'right')}
        self.truth['vehicle'] = colour or NONE
        self.truth['ahead'] = sort or words.get('obstacle', NONE)

    def _remember(self, ordinal: int, new: set[str]) -> list[Event]:
        """Bring `facts` up to date; return the events of the frame."""
        facts, here, changed = self.facts, frames(ordinal), []
        for sight in SIGHTS:
            if sight in self._stays:
                facts[f'{sight}_last'] = Fact(self.truth[sight], here)
                facts[f'seen:{sight}'] = Fact(sight, here)
                if sight in new:
                    changed.append(f'{sight}_last')
                    if 'first' not in facts:
                        facts['first'] = Fact(sight, here)
                        changed.append('first')
        if 'sign' in self._stays:
            self._sign_seen, self._passed = ordinal, []
        if 'cones' in self._stays:
            if 'cones' not in new:
                self._passed.pop()
            self._passed.append((NUMBERS.index(self.truth['cones']), ordinal))
        if self._sign_seen is not None:
            total = sum(count for count, _ in self._passed)
            facts['cones_since'] = Fact(count_word(total), frames(
                self._sign_seen, *(last for _, last in self._passed)))
            if not new.isdisjoint(('sign', 'cones')):
                changed.append('cones_since')
        elif self._absent == 'sign':
            self._passed = self._passed[-1:]     # nobody counts: any group may come
        return [Event(name, facts[name].value, facts[name].evidence) for name in changed]

    def paint(self, canvas: Canvas) -> None:
        """Paint the newest frame; see `World.paint`."""
        self.boxes = paint_drive(canvas, self._land, self._stays, self._vx, self._phase)
