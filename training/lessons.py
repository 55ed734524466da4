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

"""The lessons of the bundled model: each is a loss for a step, seeded by its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
import random
from typing import Any

from infmllm_ros.bundled import MODEL_POLICY
from infmllm_ros.engine import make_policy
from infmllm_ros.engine.policies import Policy
import numpy as np
import torch
from torch import nn

from . import workers
from .clips import Mix, Writer
from .eyes import Eyes, look, truths
from .part import Outcome, Part
from .runs import Run
from .stream import Memory

ATTENTION = .3  # weight of the attention loss against that of the answers
POINTING = .2   # weight of the pointing loss
FEWEST = 8      # streams in a step


class Score:
    """How many answers were right, by kind of question."""

    def __init__(self) -> None:
        self.right: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    def add(self, kind: str, right: bool) -> None:
        """Count one answer."""
        self.right[kind] += right
        self.asked[kind] += 1

    def share(self, kind: str) -> float:
        """Return the share of right answers, 0 where none was asked."""
        return self.right[kind] / max(1, self.asked[kind])

    def __str__(self) -> str:
        """Write the shares."""
        return ' '.join(f'{kind} {self.share(kind):.3f}' for kind in sorted(self.asked))


def noise_runs(count: int, frames: int, seed: int) -> list[Run]:
    """Make runs that show nothing: for learning words before there are eyes."""
    images = np.random.default_rng(seed).integers(
        0, 255, (count, frames, 1, 1, 3), dtype=np.uint8)
    return [Run('drive', image, [{}] * frames, [{}] * frames) for image in images]


def mark(part: Part, kinds: Sequence[str], outcome: Outcome, score: Score) -> None:
    """Count the answers of a part: one is right when all its tokens, and its end, are."""
    stream = part.ids.shape[1]
    right = outcome.logits.argmax(-1) == outcome.targets
    answers: dict[tuple[int, int], bool] = {}
    for (row, place), good in zip(outcome.places.tolist(), right.tolist(), strict=True):
        if place >= stream:
            branch = row, int(part.branches[row, place - stream])
            answers[branch] = answers.get(branch, True) and good
    for kind, good in zip(kinds, answers.values(), strict=True):
        score.add(kind, good)


@dataclass(frozen=True)
class Phase:
    """
    A stretch of the memory lesson.

    Parameters
    ----------
    share : float
        Of the lesson's steps, up to which the phase lasts.
    frames : tuple of int
        Stream lengths to draw from.
    batch : int
        Streams in a step, of all workers; beyond 10 frames fewer, the longer they are, but at
        least `FEWEST`.
    streaming : float
        Share of the steps in which the policy evicts.
    """

    share: float
    frames: tuple[int, ...]
    batch: int
    streaming: float = 0.


def draw_policy(dice: random.Random, budgets: Sequence[int]) -> Policy:
    """Draw the shipped policy with the settings it may be used with."""
    return make_policy(
        'saddle', budget=dice.choice(budgets), window='marker', scope='all', reduce='mean',
        recent=dice.choice((.25, .35, .5)), discount=dice.choice((0., .5, .9, .97)),
        bias=dice.choice((0., .002, .004)))


def shipped_policy(dice: random.Random, budgets: Sequence[int]) -> Policy:
    """Draw no more than the budget of the policy: the rest is what the model ships with."""
    return make_policy('saddle', budget=dice.choice(budgets), **MODEL_POLICY)


class MemoryLesson:
    """
    Streams of frames and words, questions about them, and what must be kept.

    Parameters
    ----------
    model : transformers.LlavaOnevisionForConditionalGeneration
    writer : Writer
    runs : sequence of Run
    features : torch.Tensor
        Of every frame of the runs, [runs, T, vision tokens, hidden].
    phases : sequence of Phase
    budgets : sequence of int
        Of the policy, to draw from.
    mix : Callable
        Frames -> mix of a batch.
    guided : bool
        Whether attention is supervised; else answers are all that it learns from.
    benches : int
        How often a bench is drawn for each drive.
    draw : Callable
        Dice, budgets -> policy of a stream.
    """

    def __init__(self, model: Any, writer: Writer, runs: Sequence[Run], features: torch.Tensor,
                 phases: Sequence[Phase], budgets: Sequence[int],
                 mix: Callable[[int], Mix], guided: bool = True, benches: int = 1,
                 draw: Callable[[random.Random, Sequence[int]], Policy] = draw_policy) -> None:
        self.model, self.writer, self.runs, self.features = model, writer, runs, features
        self.phases, self.budgets, self.mix, self.guided = phases, budgets, mix, guided
        self.draw = draw
        self.deck = [place for place, run in enumerate(runs)
                     for _ in range(benches if run.kind == 'bench' else 1)]

    def step(self, dice: random.Random, progress: float, score: Score) -> torch.Tensor:
        """Return the loss of one step; `progress` is the share of the lesson that is over."""
        phase = next((phase for phase in self.phases if progress < phase.share), self.phases[-1])
        frames = dice.choice(phase.frames)
        batch = min(phase.batch, max(FEWEST, phase.batch * 10 // frames))
        streaming = self.guided and dice.random() < phase.streaming
        policies = [self.draw(dice, self.budgets) if streaming else None for _ in range(batch)]
        dice = random.Random(f'{dice.random()}/{workers.rank()}')
        return self.run(dice, frames, workers.mine(policies), score)[0]

    def run(self, dice: random.Random, frames: int, policies: Sequence[Policy | None],
            score: Score) -> tuple[torch.Tensor, float, float]:
        """Stream one batch: its loss, the mean attention loss, the mean pointing loss."""
        chosen = [dice.choice(self.deck) for _ in policies]
        features = self.features[chosen, :frames].flatten(0, 2).to(self.model.device)
        memory = Memory(self.model, policies, protected=1)
        answers = attention = pointing = torch.zeros((), device=self.model.device)
        count, parts, mix = 0, 0, self.mix(frames)
        quiet = 1 + mix.quiet // mix.part       # the opening of the streams, and the quiet part
        for number, (part, kinds) in enumerate(self.writer.batch(
                [self.runs[place] for place in chosen], mix, dice)):
            part = part.to(self.model.device)
            if number < quiet:
                with torch.no_grad():
                    memory.read(part, features)
                continue
            outcome = memory.read(part, features)
            answers = answers + nn.functional.cross_entropy(
                outcome.logits, outcome.targets, reduction='sum')
            attention = attention + outcome.attention
            pointing = pointing + outcome.pointing
            count, parts = count + len(outcome.targets), parts + 1
            mark(part, kinds, outcome, score)
        attention, pointing = attention / parts, pointing / parts
        loss = answers / max(1, count)
        if self.guided:
            loss = loss + ATTENTION * attention + POINTING * pointing
        return loss, attention.item(), pointing.item()


class Turns:
    """
    Lessons by turns.

    Parameters
    ----------
    lessons : sequence
    shares : sequence of float
        How often each has its turn.
    """

    def __init__(self, lessons: Sequence[MemoryLesson], shares: Sequence[float]) -> None:
        self.lessons, self.shares = lessons, shares

    def step(self, dice: random.Random, progress: float, score: Score) -> torch.Tensor:
        """Return the loss of one step of the lesson whose turn it is."""
        lesson, = dice.choices(self.lessons, self.shares)
        return lesson.step(dice, progress, score)


class EyesLesson:
    """
    Single frames, and a classifier for each fact that they show.

    Parameters
    ----------
    model : transformers.LlavaOnevisionForConditionalGeneration
    eyes : Eyes
    runs : sequence of Run
    batch : int
        Frames of a step.
    """

    def __init__(self, model: Any, eyes: Eyes, runs: Sequence[Run], batch: int) -> None:
        self.model, self.eyes, self.batch = model, eyes, batch
        self.images = [torch.from_numpy(run.images) for run in runs]
        self.truth = [torch.from_numpy(truths(run)) for run in runs]

    def step(self, dice: random.Random, progress: float, score: Score) -> torch.Tensor:
        """Return the loss of one step."""
        places = []
        for _ in range(self.batch):
            run = dice.randrange(len(self.images))
            places.append((run, dice.randrange(len(self.images[run]))))
        places = workers.mine(places)
        images = torch.stack([self.images[run][frame] for run, frame in places])
        truth = torch.stack([self.truth[run][frame] for run, frame in places])
        truth = truth.to(self.model.device)
        loss, right = self.eyes.loss(look(self.model, images), truth)
        for good in right[truth >= 0].tolist():
            score.add('seen', good)
        return loss
