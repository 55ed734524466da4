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

"""An endless episode: frames, what is told, and questions whose answers are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import zlib

from infmllm_ros.bundled.scenes.bench import Bench
from infmllm_ros.bundled.scenes.drive import Drive
from infmllm_ros.bundled.scenes.render import Canvas
from infmllm_ros.bundled.scenes.step import Question, Step, Told
from infmllm_ros.bundled.scenes.words import (
    KEYS,
    NONE,
    OBJECTS,
    tell_text,
    TOLD_QUESTIONS,
    TOPICS,
)
from infmllm_ros.bundled.scenes.world import Box, Dice, Fact, Ref, World
import numpy as np

KINDS = ('now', 'back', 'told', 'again', 'no')
MIN_SIZE = 48
# How often a draw among several kinds considers 'no': there is always something never seen, and
# 'none' would else be the best guess.
NO_RATE = .35


class Episode(Iterator[Step]):
    """
    An endless, seeded stream of frames from one world; iterate over it.

    The world, the camera, what is told and what is asked draw from dice of their own: telling,
    asking and the image size never change what happens.

    Parameters
    ----------
    kind
        'drive' or 'bench'.
    seed
        Same seed, same episode, on every machine.
    size
        Side of the frames in pixels, at least 48: the same scene at any size.
    pace
        How much happens, over 0 up to 1: small means long quiet stretches.
    told_rate
        Chance a frame that a fact is told after it.
    keys
        How many keys are ever told at random, 0 to 10; the others are asked about as 'no'.
    again_gap
        Frames after which a fact may be asked about again (kind 'again').
    things
        How many different things a bench has, 3 to 18.
    render
        False leaves the frames out, for statistics: about 50 times as fast.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    def __init__(self, kind: str, seed: int, size: int = 64, *, pace: float = 1.,
                 told_rate: float = .04, keys: int = 6, again_gap: int = 16, things: int = 6,
                 render: bool = True) -> None:
        if kind not in TOPICS:
            raise ValueError(f'no scene {kind!r}; there are {", ".join(TOPICS)}')
        for name, value, low, high in (
                ('size', size, MIN_SIZE, 4096), ('pace', pace, .01, 1), ('keys', keys, 0, 10),
                ('told_rate', told_rate, 0, 1), ('again_gap', again_gap, 1, 10**6),
                ('things', things, 3, len(OBJECTS))):
            if not low <= value <= high:
                raise ValueError(f'{name} is {value}, and must be between {low} and {high}')
        self.kind, self.seed, self.size, self.again_gap = kind, seed, size, again_gap
        self.ordinal = -1
        dice = Dice(kind, seed, 'world')
        self._pace = pace
        self._world: World = (Drive(dice, pace) if kind == 'drive'
                              else Bench(dice, pace, things))
        self._telling, self._asking = Dice(kind, seed, 'told'), Dice(kind, seed, 'asked')
        self._told_rate, self._keys = told_rate, self._telling.few(tuple(KEYS), keys)
        self._told: list[Told] = []
        self._facts: dict[str, Fact] = {}                     # of what was told
        self._asked: dict[str, tuple[Fact, int]] = {}         # fact as it was asked, frame
        self._camera = Dice(kind, seed, 'camera') if render else None
        if self._camera is not None:
            self._canvas = Canvas(size, zlib.crc32(f'{kind}/{seed}'.encode()))
            self._tint = np.array([self._camera.between(.93, 1.07) for _ in range(3)], np.float32)
            self._noise = self._camera.between(2, 9)
            self._shake = self._camera.between(.004, .02)

    def __next__(self) -> Step:
        """Go on by one frame."""
        return self._step(self._camera is not None)

    @property
    def truth(self) -> dict[str, str]:
        """Say what the newest frame shows, in words: topic of a *now* question -> answer."""
        return dict(self._world.truth)

    def skip(self, count: int) -> None:
        """Go on by so many frames that nobody looks at, about 50 times as fast."""
        for _ in range(count):
            self._step(False)

    def _step(self, look: bool) -> Step:
        """Go on by one frame, and take its picture or not."""
        self.ordinal += 1
        events = tuple(self._world.advance(self.ordinal))
        frame, boxes = self._shoot() if look else (None, {})
        before = len(self._told)
        if self._keys and self._telling.chance(self._told_rate):
            self._tell_something()
        return Step(self.ordinal, frame, self.truth, boxes, events,
                    tuple(self._told[before:]))

    def _shoot(self) -> tuple[np.ndarray, dict[str, Box]]:
        """Return the picture of the world and what lies where in it."""
        camera, canvas, shake = self._camera, self._canvas, self._shake
        dx, dy = camera.between(-shake, shake), camera.between(-shake, shake)
        zoom = camera.between(.97, 1.03)
        canvas.look(dx, dy, zoom)
        self._world.paint(canvas)
        flicker = camera.between(.96, 1.04) * self._world.light
        frame = canvas.finish(self._tint * np.float32(flicker), self._noise)
        return frame, {name: ((x0 - .5) * zoom + .5 + dx, (y0 - .5) * zoom + .5 + dy,
                              (x1 - .5) * zoom + .5 + dx, (y1 - .5) * zoom + .5 + dy)
                       for name, (x0, y0, x1, y1) in self._world.boxes.items()}

    # --- what is told

    def _tell_something(self) -> None:
        """Tell a new fact, or a new value of an old one."""
        dice = self._telling
        new = [key for key in self._keys if f'told:{key}' not in self._facts]
        key = dice.pick(new if new and dice.chance(.65) else self._keys)
        fact = self._facts.get(f'told:{key}')
        self.tell(key, dice.pick([value for value in KEYS[key]
                                  if fact is None or value != fact.value]))

    def tell(self, key: str, value: str) -> Told:
        """
        Tell a fact now, after the newest frame; an earlier one of the same key is overwritten.

        Raises
        ------
        ValueError
            If there is no such key, or the key has no such value.
        """
        if key not in KEYS:
            raise ValueError(f'no key {key!r}; there are {", ".join(KEYS)}')
        if value not in KEYS[key]:
            raise ValueError(f'{key} cannot be {value!r}; it can be {", ".join(KEYS[key])}')
        ident = len(self._told)
        told = Told(ident, tell_text(key, value, self._wording(f'tell {ident}')), key, value,
                    self.ordinal)
        self._told.append(told)
        self._facts[f'told:{key}'] = Fact(value, (('told', ident),))
        return told

    def live(self) -> dict[str, Fact]:
        """
        Return every fact that can be asked about, with the evidence to keep for it now.

        The evidence of a thing in view is the newest frame; once it is gone, the last frame that
        showed it.
        """
        world, facts = self._world, {}
        for name in self._names('back'):
            fact = world.back(name)
            if fact is not None:
                facts[name] = fact
        return {**facts, **self._facts}

    # --- what is asked

    def answer(self, name: str) -> str | None:
        """
        Return the right answer now to the question of this name; None if it has none now.

        Raises
        ------
        ValueError
            If there is no such topic.
        """
        if name.startswith('told:'):
            fact = self._facts.get(name)
            return fact.value if fact is not None else NONE
        topics = {topic.name: topic for topic in TOPICS[self.kind]}
        topic = topics.get(name.partition(':')[0])
        if topic is None:
            raise ValueError(f'no topic of {name!r}; there are told, {", ".join(topics)}')
        if topic.kind == 'now':
            return self._world.now(name)
        fact = self._world.back(name)
        return fact.value if fact is not None else NONE if topic.never else None

    def questions(self, kinds: Iterable[str] = KINDS) -> list[Question]:
        """
        Return all that can be asked after the newest frame, one wording each.

        *back* questions are asked of what the newest frame does not show. A question of kind
        'back' or 'told' turns to 'again' once it was asked (see `ask` and `note`) and its
        evidence is still the same; it is then left out until `again_gap` frames have passed.

        Raises
        ------
        ValueError
            If there is no such kind, or no frame yet.
        """
        wanted = set(kinds)
        if not wanted <= set(KINDS):
            raise ValueError(f'no kind {min(wanted - set(KINDS))!r}; there are {", ".join(KINDS)}')
        if self.ordinal < 0:
            raise ValueError('no frame yet; take a step of the episode first')
        found = []
        for topic in TOPICS[self.kind]:
            if topic.kind not in wanted and not (topic.kind == 'back'
                                                 and wanted & {'again', 'no'}):
                continue
            for member, name in zip(topic.members, topic.names, strict=True):
                choices = topic.choices
                said = member
                if '/' in member:
                    choices = tuple(member.split('/'))
                    said = choices if self._wording(name + '/') % 2 else choices[::-1]
                text = topic.texts[self._wording(name) % len(topic.texts)]
                text = text.format(*said) if '/' in member else text.format(said)
                if topic.kind == 'now':
                    fact = Fact(self._world.now(name), (('frame', self.ordinal),))
                else:
                    fact = self._world.back(name)
                    if fact is None and not topic.never:
                        continue
                found += self._question(topic.kind, name, text, choices, fact, topic.none_rate)
        if wanted & {'told', 'again', 'no'}:
            for key, values in KEYS.items():
                name = f'told:{key}'
                text = TOLD_QUESTIONS[self._wording(name) % len(TOLD_QUESTIONS)].format(key)
                found += self._question('told', name, text, (*values, NONE),
                                        self._facts.get(name), 1)
        return [question for question in found if question.kind in wanted]

    def _question(self, kind: str, name: str, text: str, choices: tuple[str, ...],
                  fact: Fact | None, none_rate: float) -> list[Question]:
        """Return the question about a fact, or nothing where it is not to be asked now."""
        if fact is None:
            return [Question('no', name, text, NONE, choices, (), None, none_rate)]
        age = max(self._age(ref) for ref in fact.evidence)
        if kind == 'back' and age == 0:
            return []                  # the newest frame shows it
        if kind != 'now' and name in self._asked:
            then, frame = self._asked[name]
            if then.evidence == fact.evidence:
                if self.ordinal - frame < self.again_gap:
                    return []
                kind = 'again'
        weight = 1. if fact.value != NONE else none_rate
        if fact.value == NONE and kind == 'now':
            weight *= self._pace       # the quieter the world, the more often it shows nothing
        return [Question(kind, name, text, fact.value, choices, fact.evidence, age, weight)]

    def ask(self, kinds: Iterable[str] = KINDS, topics: Iterable[str] | None = None,
            min_age: int = 0) -> Question | None:
        """
        Draw one question, balanced over kinds, topics and answers, and note it as asked.

        Parameters
        ----------
        kinds
            Which kinds to draw from, each as likely where it has a question ('no' less likely).
        topics
            Which topics to draw from ('light', 'told', ...); None for all.
        min_age
            Frames since the evidence, at least, for kinds 'back', 'told' and 'again'.

        Returns
        -------
        question
            None where nothing (or only 'none', too often) could be asked.
        """
        dice = self._asking
        wanted = None if topics is None else set(topics)
        pool: dict[str, dict[str, list[Question]]] = {}
        for question in self.questions(kinds):
            young = question.kind in ('back', 'told', 'again') and question.age_frames < min_age
            if (not young and (wanted is None or question.topic in wanted)
                    and dice.chance(question.weight)):
                pool.setdefault(question.kind, {}).setdefault(question.topic, []).append(question)
        if len(pool) > 1 and not dice.chance(NO_RATE):
            pool.pop('no', None)
        if not pool:
            return None
        question = dice.pick(dice.pick(list(dice.pick(list(pool.values())).values())))
        self.note(question)
        return question

    def note(self, question: Question) -> None:
        """Note that a question was asked (`ask` does so itself)."""
        self._asked[question.name] = (Fact(question.answer, question.evidence), self.ordinal)

    def _age(self, ref: Ref) -> int:
        """Return the frames since some evidence."""
        kind, number = ref
        return self.ordinal - (number if kind == 'frame' else self._told[number].frame)

    def _names(self, kind: str) -> list[str]:
        """Return the names of all facts of a kind that this world has."""
        return [name for topic in TOPICS[self.kind] if topic.kind == kind for name in topic.names]

    def _wording(self, name: str) -> int:
        """Return a number that chooses the wording: it depends on seed, frame and name only."""
        return zlib.crc32(f'{self.seed}/{self.ordinal}/{name}'.encode()) >> 8
