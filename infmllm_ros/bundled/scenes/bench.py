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

"""A bench: coloured cubes, balls and cups on a table, and a gripper that moves them about."""

from __future__ import annotations

from collections import deque
import dataclasses

from infmllm_ros.bundled.scenes.bench_view import paint_bench, Room
from infmllm_ros.bundled.scenes.render import Canvas
from infmllm_ros.bundled.scenes.words import count_word, NONE, OBJECTS, PLACES
from infmllm_ros.bundled.scenes.world import Dice, Event, Fact, frames, World

ROOM = (60, 160)              # frames before the camera stands somewhere else


@dataclasses.dataclass(frozen=True)
class Pose:
    """
    The gripper in one frame, and what it does to the table.

    Attributes
    ----------
    place
        Over which place it is; 'none' where it is out of view.
    hand
        'open', 'closed' or 'holding'.
    low
        Whether it is down at the table (then it is open, about the thing that stands there).
    held
        What it holds, or 'none'.
    change
        (place, thing) that from this frame on stands there, or None; the thing is 'none' where
        the place becomes free.
    """

    place: str
    hand: str
    low: bool = False
    held: str = NONE
    change: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Spot:
    """How a thing stands at its place: small shifts, size and looks, as shares."""

    x: float
    y: float
    size: float
    look: float


class Bench(World):
    """
    A table seen from a robot's camera.

    Parameters
    ----------
    dice
        Of all that happens.
    pace
        Small means that the gripper does nothing for long.
    things
        How many different things this bench has; the others are never seen.
    """

    kind = 'bench'

    def __init__(self, dice: Dice, pace: float, things: int) -> None:
        self._dice, self._pace = dice, pace
        self._pool = dice.few(OBJECTS, things)
        self._stands: dict[str, str] = dict.fromkeys(PLACES, NONE)
        self._spots: dict[str, Spot] = {}
        self._plan: deque[Pose] = deque()
        self._pose = Pose(NONE, 'open')
        self._held_at, self._last = -1, NONE
        self._until = 0
        self.light = 1.
        self.truth, self.facts, self.boxes = {}, {}, {}

    def now(self, name: str) -> str:
        """Return the answer to a *now* question; see `World.now`."""
        if not name.startswith('where:'):
            return self.truth[name]
        thing = name[6:]
        if thing == self._pose.held:
            return 'gripper'
        return next((place for place in PLACES if self._stands[place] == thing), NONE)

    def advance(self, ordinal: int) -> list[Event]:
        """Go on by one frame; see `World.advance`."""
        dice = self._dice
        if ordinal >= self._until:
            self._until = ordinal + dice.whole(*ROOM)
            self._room = Room(dice)
        self.light = min(1.1, max(.68, self.light + dice.between(-.04, .04)))
        if not self._plan:
            self._think()
        before, self._pose = self._pose, self._plan.popleft()
        pose = self._pose
        self._sway = tuple(dice.share() for _ in range(3))
        if pose.change is not None:
            place, thing = pose.change
            self._stands[place] = thing
            if thing != NONE:
                self._spots[place] = Spot(*(dice.share() for _ in range(4)))
        self.truth = {**self._stands, 'hold': pose.held, 'gripper_at': pose.place,
                      'gripper': pose.hand if pose.place != NONE else NONE,
                      'count': count_word(3 - list(self._stands.values()).count(NONE))}
        return self._remember(ordinal, before)

    def _think(self) -> None:
        """Plan what the gripper does next, frame by frame."""
        dice, add = self._dice, self._plan.append
        taken = [place for place in PLACES if self._stands[place] != NONE]
        free = [place for place in PLACES if self._stands[place] == NONE]
        away = [thing for thing in self._pool
                if thing not in self._stands.values() and thing != self._last]
        busy = dice.chance(.75 * self._pace)
        self._rest(dice.whole(1, 2) if busy else dice.whole(1, 4))
        if not busy:
            return
        if free and away and dice.chance((1, .75, .5)[len(taken)]):
            held = dice.pick(away)
            self._carry(held, dice.whole(0, 2))
        else:
            place = dice.pick(taken)
            held = self._stands[place]
            add(Pose(place, 'open'))
            add(Pose(place, 'open', low=True))
            add(Pose(place, 'holding', held=held, change=(place, NONE)))
            free = [other for other in PLACES if other != place and self._stands[other] == NONE]
            self._carry(held, dice.whole(0, 2))
            if not free or dice.chance(.5):
                add(Pose(NONE, 'open'))
                return
        place = dice.pick(free)
        add(Pose(place, 'holding', held=held))
        add(Pose(place, 'open', low=True, change=(place, held)))
        add(Pose(place, 'open'))

    def _rest(self, count: int) -> None:
        """Plan frames in which the empty gripper hangs somewhere, or is out of view."""
        dice = self._dice
        hand = dice.pick(('open', 'closed', 'closed', 'closed'))
        place = dice.pick((*PLACES, NONE, NONE))
        self._plan.extend(Pose(place, hand) for _ in range(count))

    def _carry(self, held: str, count: int) -> None:
        """Plan frames in which the gripper carries something about."""
        self._plan.extend(Pose(self._dice.pick(PLACES), 'holding', held=held)
                          for _ in range(count))

    def _remember(self, ordinal: int, before: Pose) -> list[Event]:
        """Bring `facts` up to date; return the events of the frame."""
        facts, here, changed, held = self.facts, frames(ordinal), [], self._pose.held
        for place, thing in self._stands.items():
            if thing != NONE:
                facts[f'put:{thing}'] = Fact(place, here)
        if before.held not in (NONE, held):
            facts['held'] = Fact(before.held, frames(self._held_at))
            changed.append('held')
            if self._pose.change is None:
                # that it was taken shows in the frame after: it is gone, and stands nowhere
                facts['taken'] = Fact(before.held, frames(self._held_at, ordinal))
                changed.append('taken')
        if held != NONE:
            self._held_at, self._last = ordinal, held
            colour, _, shape = held.partition(' ')
            facts[f'colour_last:{shape}'] = Fact(colour, here)
            if before.held != held:
                changed.append(f'colour_last:{shape}')
        if self._pose.change is not None and self._pose.change[1] != NONE:
            changed.append(f'put:{self._pose.change[1]}')
            if 'first' not in facts:
                facts['first'] = Fact(self._pose.change[1], here)
                changed.append('first')
        return [Event(name, facts[name].value, facts[name].evidence) for name in changed]

    def paint(self, canvas: Canvas) -> None:
        """Paint the newest frame; see `World.paint`."""
        self.boxes = paint_bench(canvas, self._room, self._stands, self._spots, self._pose,
                                 self._sway)
