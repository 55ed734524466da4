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

"""Runs told and asked about: batches of token streams, and where their answers are to be seen."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import random

from infmllm_ros.bundled.scenes.words import (
    KEYS,
    NONE,
    PLACES,
    tell_text,
    TOLD_QUESTIONS,
    Topic,
    TOPICS,
)
import numpy as np
import torch

from .model import ANSWER, ASK, END, FRAME, START, STATUS
from .part import IGNORE, NOTHING, Part
from .runs import Run

# Topics that are learned last, and how much more often than others they are drawn.
OFTEN = {'where': 3, 'put': 6, 'taken': 2, 'cones_since': 2, 'first': 2, 'colour_last': 2}
BOTH_HEADS = ('put',)  # topics whose evidence counts for what it shows and for how new it is
IN_VIEW = .7  # share of the draws of a remembered fact that are passed over while it is in view


def shown(kind: str, topic: str, value: str, member: str) -> tuple[str, ...]:
    """List the facts of single frames that the answer to a question rests on."""
    if kind == 'bench':
        if topic in ('where', 'put'):
            return {'gripper': ('hold',), NONE: (*PLACES, 'hold')}.get(value, (value,))
        return {'held': ('hold',), 'colour_last': ('hold',), 'taken': ('hold',),
                'first': PLACES}.get(topic, (topic,))
    return {'first': (value,), 'order': tuple(member.split('/')),
            'cones_since': ('sign', 'cones')}.get(topic, (topic.removesuffix('_last'),))


@dataclass(frozen=True)
class Mix:
    """
    What a batch is made of.

    Parameters
    ----------
    frames : int
        Of each stream.
    part : int
        Frames between two evictions.
    asks : float
        Branch questions a frame.
    shares : tuple of float
        Of the kinds now, back, told and no among the questions.
    tells : float
        Facts told a frame, after `first` at the start.
    first : int
        Most facts told at the start.
    remembered : float
        Share of the frames after which a question stays in the memory with its answer.
    quiet : int
        Frames before the first question: they only fill the memory.
    oldest : float
        How much more than other evidence the markers are to look at that of what came first.
    often : mapping of str to int
        How often topics are asked about, against the 1 of those that are not named.
    """

    frames: int
    part: int
    asks: float = .8
    shares: tuple[float, float, float, float] = (.35, .4, .15, .1)
    tells: float = .06
    first: int = 4
    remembered: float = .03
    quiet: int = 0
    oldest: float = 1.
    often: Mapping[str, int] = field(default_factory=lambda: OFTEN)


def bound(ids: Sequence[int], keys: Container[int], first: int) -> list[tuple[int, int]]:
    """Say for each token where the keys before it stand, at most two; they begin at `first`."""
    places, out = (NOTHING, NOTHING), []
    for at, token in enumerate(ids, first):
        out.append(places)
        if token in keys:
            places = (at, NOTHING) if places[0] == NOTHING else (places[0], at)
    return out


@dataclass
class _Row:
    """One stream of a part, as lists."""

    ids: list[int] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    refs: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    keys: list[tuple[int, int]] = field(default_factory=list)
    markers: list[int] = field(default_factory=list)
    live: list[dict[int, float]] = field(default_factory=list)
    asks: list[tuple[int, list[int], list[int], Container[int]]] = field(default_factory=list)
    wanted: list[set[int]] = field(default_factory=list)
    both_heads: list[bool] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def add(self, ids: Sequence[int], ref: int = NOTHING, picture: int = NOTHING,
            labels: Sequence[int] | None = None, keys: Container[int] = ()) -> None:
        """Append tokens; those of a picture have features, and references, one after the other."""
        self.pictures += (range(picture, picture + len(ids)) if picture >= 0
                          else [NOTHING] * len(ids))
        self.keys += bound(ids, keys, len(self.ids))
        self.ids += ids
        self.refs += range(ref, ref + len(ids)) if picture >= 0 else [ref] * len(ids)
        self.labels += labels or [IGNORE] * len(ids)


@dataclass(frozen=True)
class _Ask:
    """A question: its kind, its words, the answer, what evidence that needs, what it is about."""

    kind: str
    text: str
    answer: str
    evidence: set[int]
    about: str = ''
    both_heads: bool = False


class Writer:
    """
    Turns runs into parts of token streams.

    Parameters
    ----------
    vocabulary : dict
        Word -> id.
    vision_tokens : int
        Of a frame.
    status : bool
        Whether a status token follows each frame.
    sights : dict
        World and fact -> which vision tokens show it; what is not in it is shown by all.
    """

    def __init__(self, vocabulary: dict[str, int], vision_tokens: int, status: bool = True,
                 sights: dict[tuple[str, str], Sequence[int]] | None = None) -> None:
        self.words, self.vision_tokens, self.status = vocabulary, vision_tokens, status
        self.sights = sights or {}
        self.keys = frozenset(vocabulary[key] for key in KEYS)
        self.topics = {kind: {name: (topic, member) for topic in topics
                              for name, member in zip(topic.names, topic.members, strict=True)}
                       for kind, topics in TOPICS.items()}

    def encode(self, text: str) -> list[int]:
        """Turn words into ids."""
        return [self.words[word] for word in text.split()]

    def batch(self, runs: Sequence[Run], mix: Mix, dice: random.Random,
              ) -> Iterator[tuple[Part, list[str]]]:
        """
        Write one batch, part after part.

        Yields
        ------
        Part
            Its pictures count the vision tokens of the frames of all runs, run after run, each
            with `mix.frames` frames.
        list of str
            The kind of the question behind each labelled branch, in the order of the rows.
        """
        streams = [self._stream(run, mix, dice, place * mix.frames * self.vision_tokens)
                   for place, run in enumerate(runs)]
        refs = 1
        for _ in range(1 + -(-mix.frames // mix.part)):
            rows = [next(stream) for stream in streams]
            refs = max(refs, *(1 + max(row.refs) for row in rows))
            yield self._part(rows, refs)

    def _stream(self, run: Run, mix: Mix, dice: random.Random, picture: int) -> Iterator[_Row]:
        """
        Write one stream: first its opening, then part after part.

        Evidence 0 is the start of the stream (of what was never seen), the vision tokens of all
        frames follow, then what was told.
        """
        first_told = 1 + mix.frames * self.vision_tokens
        row = _Row()
        row.add([self.words[START]], 0)
        yield row
        told: dict[str, tuple[str, int]] = {}
        tellings = 0
        row, pending, held = _Row(), dice.randint(0, mix.first), NOTHING
        for ordinal in range(mix.frames):
            while pending or dice.random() < mix.tells:
                key, value = self._fact(dice)
                told[key] = value, first_told + tellings
                row.add(self.encode(tell_text(key, value, dice.randrange(3))),
                        first_told + tellings, keys=self.keys)
                tellings, pending = tellings + 1, max(0, pending - 1)
            row.add([self.words[FRAME]] * self.vision_tokens,
                    1 + ordinal * self.vision_tokens, picture)
            picture += self.vision_tokens
            for place in self.sights.get((run.kind, 'hold'), ()):   # what was held just before
                at = len(row.ids) - self.vision_tokens + place
                row.keys[at] = held, NOTHING
                held = at
            if self.status:
                row.add([self.words[STATUS]])
                row.markers.append(len(row.ids) - 1)
                seen = {name: self._sights(run, *self.topics[run.kind][name], value, frames)
                        for name, (value, frames) in run.back[ordinal].items()}
                needed = {ref for _, ref in told.values()}.union(*seen.values())
                row.live.append(dict.fromkeys(needed, 1.)
                                | dict.fromkeys(seen.get('first', ()), mix.oldest))
            asks = 0. if ordinal < mix.quiet else mix.asks
            for _ in range(int(asks) + (dice.random() < asks % 1)):
                ask = self._ask(run, ordinal, told, mix, dice)
                row.asks.append((len(row.ids) - 1, *self._exchange(ask), self._keys(ask)))
                row.wanted.append(ask.evidence)
                row.both_heads.append(ask.both_heads)
                row.kinds.append(ask.kind)
            if asks and dice.random() < mix.remembered:
                ask = self._ask(run, ordinal, told, mix, dice)
                ids, labels = self._exchange(ask)
                row.add([*ids, self.words[END]], labels=[*labels, IGNORE], keys=self._keys(ask))
            if (ordinal + 1) % mix.part == 0 or ordinal + 1 == mix.frames:
                yield row
                row, held = _Row(), NOTHING

    def _fact(self, dice: random.Random) -> tuple[str, str]:
        key = dice.choice(tuple(KEYS))
        return key, dice.choice(KEYS[key])

    def _keys(self, ask: _Ask) -> Container[int]:
        """Name the words that say what a question is about."""
        return set(self.encode(ask.about)) or self.keys

    def _exchange(self, ask: _Ask) -> tuple[list[int], list[int]]:
        """Write question and answer: ids, and what should follow each."""
        asked = [self.words[ASK], *self.encode(ask.text), self.words[ANSWER]]
        said = self.encode(ask.answer)
        return [*asked, *said], [IGNORE] * (len(asked) - 1) + [*said, self.words[END]]

    def _ask(self, run: Run, ordinal: int, told: dict[str, tuple[str, int]], mix: Mix,
             dice: random.Random) -> _Ask:
        """Draw a question that can be asked after a frame."""
        kind = dice.choices(('now', 'back', 'told', 'no'), mix.shares)[0]
        if kind == 'told' and not told or kind == 'no' and (
                not mix.shares[1] or dice.random() < .5):
            kind = 'never'
        if kind in ('told', 'never'):
            keys = [key for key in KEYS if (key in told) == (kind == 'told')] or list(KEYS)
            key = dice.choice(keys)
            value, evidence = told.get(key, (NONE, 0))
            return _Ask('told' if key in told else 'no',
                        dice.choice(TOLD_QUESTIONS).format(key), value, {evidence})
        topics = [topic for topic in TOPICS[run.kind]
                  if topic.kind == ('now' if kind == 'now' else 'back')]
        for _ in range(20):
            topic = dice.choices(topics, [mix.often.get(topic.name, 1) for topic in topics])[0]
            found = (self._never(run, ordinal, topic, dice) if kind == 'no'
                     else self._about(run, ordinal, topic, dice))
            if found is not None:
                member, value, evidence = found
                said = member.split('/')
                dice.shuffle(said)
                text = dice.choice(topic.texts).format(*said)
                return _Ask(kind, text, value, evidence, ' '.join(said), topic.name in BOTH_HEADS)
        return self._ask(run, ordinal, told, Mix(1, 1, shares=(1, 0, 0, 0)), dice)

    def _never(self, run: Run, ordinal: int, topic: Topic, dice: random.Random,
               ) -> tuple[str, str, set[int]] | None:
        """Draw what was never shown of a topic; None if there is nothing."""
        unseen = [member for member, name in zip(topic.members, topic.names, strict=True)
                  if name not in run.back[ordinal]]
        return (dice.choice(unseen), NONE, {0}) if topic.never and unseen else None

    def _about(self, run: Run, ordinal: int, topic: Topic, dice: random.Random,
               ) -> tuple[str, str, set[int]] | None:
        """Draw what to ask a topic about, the answer and its evidence; None if there is none."""
        now = topic.kind == 'now'
        known = run.now[ordinal] if now else run.back[ordinal]
        members = dict(zip(topic.members, topic.names, strict=True))
        seen = [member for member, name in members.items() if known.get(name, NONE) != NONE]
        member = dice.choice(seen if seen and dice.random() < .8 else list(members))
        found = known.get(members[member])
        if now:
            value, frames = found or NONE, (ordinal,)
        elif found is None or (found[1] == (ordinal,) and dice.random() < IN_VIEW):
            return None
        else:
            value, frames = found
        if value == NONE and dice.random() > max(topic.none_rate, .1 if len(members) > 1 else 0):
            return None
        if topic.name == 'put':         # every frame of its last stand tells the place
            frames = [frames[-1]]
            while frames[-1] and run.now[frames[-1] - 1].get(value) == member:
                frames.append(frames[-1] - 1)
        if topic.name == 'taken':       # the frame after knows both: what was held, and no more
            frames = frames[-1:]
        return member, value, self._sights(run, topic, member, value, frames)

    def _sights(self, run: Run, topic: Topic, member: str, value: str, frames: Sequence[int],
                ) -> set[int]:
        """Name the vision tokens of frames that show what the answer to a question rests on."""
        facts = shown(run.kind, topic.name, value, member)
        if topic.name == 'first':       # where it stands; what is seen of a drive names itself
            facts = tuple(fact for fact in facts if run.kind == 'drive' or value in (
                run.now[frame].get(fact) for frame in frames)) or facts
        return {1 + frame * self.vision_tokens + place for frame in frames for fact in facts
                for place in self.sights.get((run.kind, fact), range(self.vision_tokens))}

    def _part(self, rows: list[_Row], refs: int) -> tuple[Part, list[str]]:
        """Pad rows to tensors."""
        stream = max(len(row.ids) for row in rows)
        marks = max(len(row.markers) for row in rows)
        asks = max(sum(len(ids) for _, ids, *_ in row.asks) for row in rows)
        batch = len(rows)

        def table(width: int, value: int) -> np.ndarray:
            return np.full((batch, width), value, np.int64)

        ids, pictures, kept = table(stream, 0), table(stream, NOTHING), table(stream, NOTHING)
        markers = table(marks, NOTHING)
        live = np.zeros((batch, marks, refs), np.float32)
        wanted = np.zeros((batch, max(len(row.asks) for row in rows), refs), bool)
        both_heads = np.zeros(wanted.shape[:2], bool)
        ask_ids, anchors, offsets = table(asks, 0), table(asks, 0), table(asks, 0)
        branches, labels = table(asks, NOTHING), table(stream + asks, IGNORE)
        keys = np.full((batch, stream + asks, 2), NOTHING, np.int64)
        kinds = []
        for place, row in enumerate(rows):
            size = len(row.ids)
            ids[place, :size], pictures[place, :size] = row.ids, row.pictures
            kept[place, :size], labels[place, :size] = row.refs, row.labels
            keys[place, :size] = np.array(row.keys).reshape(size, 2)
            markers[place, :len(row.markers)] = row.markers
            for mark, needed in enumerate(row.live):
                live[place, mark, list(needed)] = list(needed.values())
            at = 0
            for branch, (anchor, words, follow, about) in enumerate(row.asks):
                end = at + len(words)
                ask_ids[place, at:end], anchors[place, at:end] = words, anchor
                branches[place, at:end], offsets[place, at:end] = branch, range(len(words))
                labels[place, stream + at:stream + end] = follow
                wanted[place, branch, list(row.wanted[branch])] = True
                both_heads[place, branch] = row.both_heads[branch]
                keys[place, stream + at:stream + end] = bound(words, about, stream + at)
                at = end
            kinds += row.kinds
        lengths = torch.tensor([len(row.ids) for row in rows])
        tensors = (ids, pictures, kept, markers, live, ask_ids, anchors, branches, offsets, labels,
                   wanted, both_heads, keys)
        first, *rest = map(torch.from_numpy, tensors)
        return Part(first, lengths, *rest), kinds
