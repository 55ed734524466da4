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
Examine what a bounded memory still knows: one paper, sat by every policy.

A paper is a stream of a rendered world with facts told in between and questions whose answers are
known. It is written before anybody sits it, so that all policies see the same frames and are asked
the same questions; an answer is right if it is right word for word.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
import hashlib
import inspect
import json
from pathlib import Path
import sys
from time import perf_counter
from typing import Any

from infmllm_ros.bundled import MODEL
from infmllm_ros.bundled.scenes import Episode, KEYS, TOPICS
from infmllm_ros.bundled.scenes.world import Dice
from infmllm_ros.engine import BudgetError, make_policy, POLICIES, StreamingModel, StreamingSession
import numpy as np
import torch

from .pages import DOCS

WORLDS = ('drive', 'bench')
FIRST_SEED = 3_000_000  # training, and the choice of what to train, use seeds below
EARLY = 2  # frame after which the first facts are told
AGES = (1, 1, 10, 30, 100, 300)  # least ages that *back* questions are drawn with, if any are
FACTS = ('told', 'overwritten', 'late')  # kinds of facts that are never mentioned again


@dataclass(frozen=True)
class Plan:
    """
    How long a paper is, and when it asks.

    Parameters
    ----------
    frames : int
        Of the stream.
    every : int
        Frames between two moments at which *now*, *back* and *no* are asked.
    gap : int
        Frames between two askings of the fact that is asked again and again.
    distances : tuple of int
        Frames after the telling at which a fact that is never mentioned again is probed.
    """

    frames: int = 3600
    every: int = 30
    gap: int = 100
    distances: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000)


@dataclass(frozen=True)
class Ask:
    """
    One question of a paper.

    Parameters
    ----------
    kind : str
        'now', 'back', 'no'; of told facts 'told' (at the start, silent since), 'overwritten' (told
        at the start, another value in the middle), 'late' (told after a third and two thirds) and
        'again' (told at the start, asked all along).
    topic, text, answer : str
    distance : int or None
        Frames since its evidence or, for told facts, since the last mention; None for 'no'.
    key : str
        Of the told fact, or ''.
    remember : bool
        Whether question and answer enter the memory.
    """

    kind: str
    topic: str
    text: str
    answer: str
    distance: int | None
    key: str = ''
    remember: bool = False


@dataclass(frozen=True)
class Moment:
    """A frame, uint8 [64, 64, 3], what is told after it (key, sentence), and what is asked."""

    image: np.ndarray
    tells: tuple[tuple[str, str], ...]
    asks: tuple[Ask, ...]


def timetable(plan: Plan) -> list[tuple[int, str]]:
    """List the frames after which something is told, and its kind: one key each but 'first'."""
    return [(EARLY, 'told'), (EARLY, 'told'), (EARLY, 'again'), (EARLY, 'first'),
            (plan.frames // 2, 'overwritten'),
            (plan.frames // 3, 'late'), (2 * plan.frames // 3, 'late')]


def write_paper(plan: Plan, world: str, seed: int) -> Iterator[Moment]:
    """Write the paper of one stream, moment by moment; the same for every policy."""
    episode, dice = Episode(world, seed, keys=0), Dice('exam', world, seed)
    facts = [(kind, frame) for frame, kind in timetable(plan)]
    keys = dice.few(tuple(KEYS), len(facts) - 1)
    keys.insert(4, keys[3])     # what is told first is what is overwritten
    mentioned: dict[str, int] = {}
    values: dict[str, str] = {}
    for step in (next(episode) for _ in range(plan.frames)):
        now, tells, asks = step.ordinal, [], []
        for (_, frame), key in zip(facts, keys):
            if frame == now:
                values[key] = dice.pick([v for v in KEYS[key] if v != values.get(key)])
                tells.append((key, episode.tell(key, values[key]).text))
                mentioned[key] = now
        if now > EARLY and now % plan.every == 0:
            asks += _look_around(episode, dice)
        for (kind, frame), key in zip(facts, keys):
            due = kind in FACTS and now - frame in plan.distances
            again = kind == 'again' and now > EARLY and now % plan.gap == 0
            if due or again:
                asks.append(Ask(kind, 'told', _wording(episode, key), values[key],
                                now - mentioned[key], key, remember=again))
                mentioned[key] = now if again else mentioned[key]
        yield Moment(step.frame, tuple(tells), tuple(asks))


def _look_around(episode: Episode, dice: Dice) -> Iterator[Ask]:
    """Ask one question about now, one about then, and one about what never was."""
    then = [topic.name for topic in TOPICS[episode.kind] if topic.kind == 'back']
    kinds = ('back', 'again')     # the scenes' 'again': a *back* question that was asked before
    for question, kind in (
            (episode.ask(('now',)), 'now'),
            (episode.ask(kinds, then, dice.pick(AGES)) or episode.ask(kinds, then, 1), 'back'),
            (episode.ask(('no',)), 'no')):
        if question is not None:
            yield Ask(kind, question.topic, question.text, question.answer, question.age_frames)


def _wording(episode: Episode, key: str) -> str:
    return next(question.text for question in episode.questions(('told', 'again'))
                if question.name == f'told:{key}')


# ---- sitting it


def held(session: StreamingSession, span: range) -> tuple[float, float]:
    """Share of layers (of their KV heads) that hold all of some tokens; share of those tokens."""
    wanted = torch.tensor(list(span))
    whole, tokens = [], []
    for layer in range(len(session.cache.layers)):
        there = torch.stack([torch.isin(wanted, kept.cpu()) for kept in session.kept(layer)])
        whole.append(there.all(1).float().mean().item())
        tokens.append(there.float().mean().item())
    return sum(whole) / len(whole), sum(tokens) / len(tokens)


def sit(session: StreamingSession, paper: Iterable[Moment], backlog: int = 1,
        ) -> list[dict[str, Any]]:
    """Let a memory sit a paper, so many frames at a time; one record a question."""
    records, spans, waiting = [], {}, []
    for ordinal, moment in enumerate(paper):
        waiting.append(moment.image)
        if len(waiting) < backlog and not (moment.tells or moment.asks):
            continue
        stamps = [at * 10**9 for at in range(ordinal + 1 - len(waiting), ordinal + 1)]
        if len(waiting) == 1:
            session.observe(waiting[0], stamps[0])
        else:
            session.observe_many(waiting, stamps)
        waiting = []
        for key, text in moment.tells:
            first = session.stats().tokens_seen
            session.tell(text)
            spans[key] = range(first, session.stats().tokens_seen)
        for ask in moment.asks:
            share = held(session, spans[ask.key]) if ask.key else None
            said = session.answer(ask.text, max_tokens=4, remember=ask.remember).text.strip()
            records.append({'kind': ask.kind, 'topic': ask.topic, 'distance': ask.distance,
                            'right': said == ask.answer, 'said': said, 'answer': ask.answer})
            if share is not None:
                records[-1].update(layers=round(share[0], 4), tokens=round(share[1], 4))
    return records


@dataclass(frozen=True)
class Setting:
    """
    A memory that sits the exam: its name, policy, budget, fields and layout.

    `backlog` are the frames that it takes together, where nothing is told or asked between them;
    `flex` are the fields of its FlexPrefill, None: it prefills densely.
    """

    label: str
    policy: str
    budget: int
    fields: tuple[tuple[str, Any], ...] = ()
    layout: str = 'fast'
    backlog: int = 1
    flex: tuple[tuple[str, Any], ...] | None = None


class SharedEyes:
    """
    An adapter that encodes each frame of a paper once, for all who sit it.

    Encoding does not depend on the memory, and takes as long as the rest of a frame.
    """

    def __init__(self, adapter: Any) -> None:
        self._adapter, self._seen = adapter, {}

    def __getattr__(self, name: str) -> Any:
        """Leave all else to the adapter."""
        return getattr(self._adapter, name)

    def encode(self, model: Any, image: np.ndarray, seconds: float, *rest: Any) -> Any:
        """Turn a frame into a chunk, or find the one of this moment."""
        if seconds not in self._seen:
            self._seen[seconds] = self._adapter.encode(model, image, seconds, *rest)
        return self._seen[seconds]


def enter(model: StreamingModel, setting: Setting, plan: Plan,
          room: tuple[int, int] = (16, 16)) -> StreamingSession:
    """
    Make the session of a setting, with room for that many tokens of question and of text.

    Raises
    ------
    BudgetError
        If its budget does not work, or its policy cannot take a stream of this length.
    """
    policy = make_policy(setting.policy, budget=setting.budget, **dict(setting.fields))
    each = model.adapter.frame_tokens or 0
    session = StreamingSession(
        model, policy, max_question=room[0], max_answer=8,
        chunk=max(room[1], setting.backlog * each if setting.backlog > 1 else 0),
        layout=setting.layout, prefill=None if setting.flex is None else dict(setting.flex))
    needed = plan.frames * each
    if policy.refuses and needed > session.plan.budget:
        raise BudgetError(f'{plan.frames} frames are {needed} tokens, {setting.policy} holds '
                          f'{session.plan.budget}')
    return session


def fingerprint(folder: str | Path) -> str:
    """Name the weights of a folder by their content; a name on the hub stands for itself."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob('*.safetensors')):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12] if Path(folder).is_dir() else str(folder)


def exam_options(purpose: str, streams: int, work: str) -> argparse.ArgumentParser:
    """Make the command line of all exams: so many streams by default, results in `work`."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument('--model', default=str(MODEL), help='a folder; default: the bundled one')
    parser.add_argument('--streams', type=int, default=streams, help='of each world')
    parser.add_argument('--quick', action='store_true',
                        help='short streams, one of each world; writes nothing unless --out')
    parser.add_argument('--work', type=Path, default=Path(work),
                        help='file of the results so far, to go on where it stopped; delete it '
                             'when scenes or engine have changed (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='folder of page and figures; default: docs')
    parser.add_argument('--threads', type=int, default=1)
    return parser


def out_folder(args: argparse.Namespace) -> Path | None:
    """Say where page and figures go: `--out`, by default docs; None for a quick exam."""
    return args.out or (None if args.quick else DOCS)


class Ledger:
    """
    The results so far, a JSON line for each paper that was sat: what is there is not sat again.

    A policy whose class has changed sits again.

    Parameters
    ----------
    path : Path
        The file; it is appended to, by several processes if need be. To be deleted by hand when
        scenes or engine have changed.
    model : str
        Which weights: results of others are left alone.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        self.lines: dict[str, list[dict[str, Any]]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                result = json.loads(line)
            except ValueError:      # torn by an interruption
                continue
            self.lines[json.dumps(result['key'], sort_keys=True)] = result['records']

    def find(self, setting: Setting, plan: Plan, world: str, seed: int,
             ) -> list[dict[str, Any]] | None:
        """Find the records of a paper that was sat; None if it was not."""
        return self.lines.get(json.dumps(self._key(setting, plan, world, seed), sort_keys=True))

    def add(self, setting: Setting, plan: Plan, world: str, seed: int,
            records: list[dict[str, Any]], seconds: float) -> None:
        """Write the records down."""
        key = self._key(setting, plan, world, seed)
        self.lines[json.dumps(key, sort_keys=True)] = records
        with self.path.open('a') as file:
            file.write(json.dumps({'key': key, 'seconds': round(seconds, 1),
                                   'records': records}) + '\n')

    def _key(self, setting: Setting, plan: Plan, world: str, seed: int) -> dict[str, Any]:
        source = inspect.getsource(POLICIES[setting.policy])
        own = {'policy': setting.policy, 'budget': setting.budget,
               'fields': sorted(map(list, setting.fields)),
               'source': hashlib.sha256(source.encode()).hexdigest()[:12]}
        if setting.layout != 'fast':
            own['layout'] = setting.layout
        if setting.backlog > 1:
            own |= {'backlog': setting.backlog, 'flex': setting.flex}
        return json.loads(json.dumps(
            {'model': self.model, **own, 'world': world, 'seed': seed, **asdict(plan)}))


def streams(count: int) -> list[tuple[str, int]]:
    """List the streams of an exam: so many of each world."""
    return [(world, FIRST_SEED + number) for number in range(count) for world in WORLDS]


def hold(model: StreamingModel, settings: Sequence[Setting], plan: Plan, count: int,
         ledger: Ledger) -> tuple[dict[Setting, list[list[dict[str, Any]]]], dict[Setting, str]]:
    """
    Let every setting sit the papers of `count` streams of each world.

    Returns
    -------
    results : dict
        Setting -> records of each stream.
    refused : dict
        Setting -> why it could not sit.
    """
    results: dict[Setting, list[list[dict[str, Any]]]] = {}
    refused: dict[Setting, str] = {}
    for setting in settings:
        try:
            enter(model, setting, plan)
            results[setting] = []
        except BudgetError as reason:
            refused[setting] = str(reason)
    for world, seed in streams(count):
        paper: list[Moment] = []      # rendered and encoded once for all who have not sat it
        eyes = SharedEyes(model.adapter)
        for setting, sat in results.items():
            records = ledger.find(setting, plan, world, seed)
            if records is None:
                paper = paper or list(write_paper(plan, world, seed))
                start = perf_counter()
                session = enter(model, setting, plan, _room(model, paper))
                session.adapter = eyes
                records = sit(session, paper, setting.backlog)
                seconds = perf_counter() - start
                ledger.add(setting, plan, world, seed, records, seconds)
                rights = sum(record['right'] for record in records)
                print(f'{setting.label}, {setting.budget} tokens, {world} {seed}: {rights} of '
                      f'{len(records)} right, {seconds:.0f} s', file=sys.stderr, flush=True)
            sat.append(records)
    return results, refused


def _room(model: StreamingModel, paper: list[Moment]) -> tuple[int, int]:
    """Count the tokens of the longest question and of the longest telling."""
    prompt = model.adapter.prompt
    asks = {ask.text for moment in paper for ask in moment.asks}
    tells = {text for moment in paper for _, text in moment.tells}
    return (max((len(prompt.question(text)) for text in asks), default=16),
            max((len(prompt.text(text)) for text in tells), default=16))
