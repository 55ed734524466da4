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
Train the bundled model: ``python -m training.train --work FOLDER``.

``--answers-only`` trains a stand-in for a stock model: no status tokens, no word of where to look,
no eviction in training.

Five lessons, each resumed from its checkpoint in the work folder: `eyes` (the vision tower, with
throw-away classifiers), `words` (the decoder, on told facts only), `memory` (the decoder, on
streams of frames and words with the policy evicting), `polish` (the same on more worlds, most of
them benches, some for long) and `finish` (once more, with larger budgets and the policy that the
model ships with). The first two train different parameters; `memory` starts from both, each of the
others from the one before, and what is exported in the end is the mean of what `polish` and
`finish` end with. The cores of the machine share every batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
import random
from typing import Any

from infmllm_ros.engine.policies import Policy
import torch

from . import workers
from .clips import Mix, OFTEN, Writer
from .eyes import encode_all, Eyes
from .lessons import (
    draw_policy,
    EyesLesson,
    FEWEST,
    MemoryLesson,
    noise_runs,
    Phase,
    Score,
    shipped_policy,
    Turns,
)
from .model import (
    make_config,
    make_model,
    make_tokenizer,
    SHAPE,
    vision_tokens,
    write_folder,
)
from .runs import render_runs, render_stills, Run
from .trainer import reduced, Trainer

FEATURE_SIZE = .3  # standard deviation of the vision features
CRAM = 4  # frames of the streams that teach to tell facts apart
LOUD = 64  # frames at the end of a stream in which questions are asked
POLISH_MEMORY = .99  # of the mean of the weights, see `Trainer`
OLDEST = 4.  # of what came first among all that is to be kept, in the lesson `polish`
LONG = 1024  # frames of the streams whose memory is full of what has changed since
LESSONS = 'eyes', 'words', 'memory', 'polish', 'finish'
VALIDATION = 1_000_000  # first seed of the runs that are never trained on


@dataclass(frozen=True)
class Recipe:
    """
    What is trained, and for how long.

    Parameters
    ----------
    seed : int
    shape : dict
        Sizes of the model, see `training.model.SHAPE`.
    runs, run_stills : int
        Worlds to learn to see in, half of them drives, and the frames rendered of each.
    eyes_steps, eyes_batch, eyes_rate
        Steps, frames of a step, and learning rate of the lesson `eyes`.
    words_steps, words_rate
        Of the lesson `words`, which ends early once told facts are recalled (`words_enough`).
    memory_runs, memory_frames, memory_steps, memory_rate
        Of the lesson `memory`: runs to draw from, which are told and asked anew every time, and
        the frames of each.
    phases : tuple of Phase
        The curriculum of the lesson `memory`.
    budgets : tuple of int
        Of the policy in training; those of use must lie among them.
    polish_runs, long_runs, polish_steps, polish_rate
        Of the lesson `polish`: runs beside those of `memory`, and of `LONG` frames.
    polish_phase, long_phase : Phase
        Its streams of the one and of the other.
    polish_budgets : tuple of int
    polish_benches : int
        Benches drawn for each drive: there is more to keep track of.
    long_share : float
        Of its steps, with long runs.
    finish_steps, finish_budgets
        Of the lesson `finish`, which is like `polish` but for them and the shipped policy.
    guided : bool
        Status tokens, supervised attention, and eviction in training; else answers only.
    """

    seed: int = 0
    shape: dict[str, dict[str, Any]] = field(default_factory=lambda: SHAPE)
    runs: int = 16000
    run_stills: int = 16
    eyes_steps: int = 14000
    eyes_batch: int = 64
    eyes_rate: float = 1e-3
    words_steps: int = 1500
    words_rate: float = 1.5e-3
    words_enough: float = .96
    memory_runs: int = 400
    memory_frames: int = 256
    memory_steps: int = 1500
    memory_rate: float = 1.6e-3
    phases: tuple[Phase, ...] = (
        Phase(.1, (CRAM, 8), 48), Phase(.17, (CRAM, 8, 16), 48, .5),
        Phase(.4, (CRAM, 16, LOUD, LOUD), 48, .8),
        Phase(1.01, (16, 16, LOUD, 256), 48, .8))
    budgets: tuple[int, ...] = (128, 192, 384, 768, 768)
    polish_runs: int = 300
    long_runs: int = 100
    polish_steps: int = 500
    polish_rate: float = 5e-4
    polish_phase: Phase = Phase(1.01, (16, LOUD, 256, 256, 256), 48, .9)
    long_phase: Phase = Phase(1.01, (LONG,), 48, 1.)
    polish_budgets: tuple[int, ...] = (128, 160, 192, 192, 384, 384, 768, 768)
    polish_benches: int = 3
    long_share: float = .4
    finish_steps: int = 260
    finish_budgets: tuple[int, ...] = (192, 384, 768, 768)
    guided: bool = True


def mix(frames: int) -> Mix:
    """Say what streams of this length are made of: in the shortest, many facts at once."""
    if frames == CRAM:
        return Mix(frames, part=4, asks=4., shares=(.25, .05, .6, .1), tells=.4, first=10)
    if frames >= LONG:      # few facts, as there is room for
        return Mix(frames, part=4, asks=2.5, shares=(.46, .36, .1, .08), tells=.006, first=6,
                   quiet=frames - LOUD, remembered=.02)
    if frames > LOUD:
        return Mix(frames, part=4, asks=2.5, tells=.04, first=6, quiet=frames - LOUD)
    return Mix(frames, part=4, asks=2.5)


def polish_mix(frames: int) -> Mix:
    """
    Say the same for the lesson `polish`.

    What came first is one token, to last for ever; cones of several groups are to be added up.
    """
    return replace(mix(frames), oldest=OLDEST, often={**OFTEN, 'cones_since': 6})


def words_mix(frames: int) -> Mix:
    """Say what the streams of the lesson `words` are made of."""
    return Mix(frames, part=frames, asks=3., shares=(0, 0, .85, .15), tells=.3, first=6,
               remembered=.05)


@torch.no_grad()
def settle(model: Any, runs: Sequence[Run]) -> None:
    """Bring what the projector hands to the decoder to the size of its words."""
    factor = FEATURE_SIZE / encode_all(model, runs[:20]).std()
    last = model.model.multi_modal_projector.linear_2
    last.weight *= factor
    last.bias *= factor


def train(recipe: Recipe, work: Path, out: Path, only: Iterable[str], device: torch.device,
          every: int = 100) -> None:
    """
    Train what is not finished yet.

    Parameters
    ----------
    recipe : Recipe
    work : Path
        Rendered runs and checkpoints.
    out : Path
        Where the model goes, as it is at the last checkpoint.
    only : iterable of str
        Which lessons.
    device : torch.device
    every : int
        Steps between two checkpoints.
    """
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    model = make_model(make_config(tokenizer, recipe.shape, recipe.guided), recipe.seed).to(device)
    tokens = vision_tokens(model.config)
    hidden = model.config.text_config.hidden_size
    writer = Writer(tokenizer.get_vocab(), tokens, recipe.guided)
    eyes = torch.nn.ModuleDict({
        'tower': model.model.vision_tower, 'projector': model.model.multi_modal_projector,
        'heads': Eyes(tokenizer.get_vocab(), model.get_input_embeddings().weight).to(device)})
    words = torch.nn.ModuleDict({'decoder': model.get_decoder()})
    seeing = Trainer('eyes', eyes, work, recipe.seed, recipe.eyes_steps, recipe.eyes_rate, device)
    reading = Trainer('words', words, work, recipe.seed, recipe.words_steps, recipe.words_rate,
                      device)

    if 'words' in only and not reading.finished:
        runs = noise_runs(50, 8, recipe.seed)
        noise = torch.randn(50, 8, tokens, hidden, generator=torch.Generator().manual_seed(0))
        lesson = MemoryLesson(model, writer, runs, noise, [Phase(1.01, (4, 6, 8), 48)],
                              recipe.budgets, words_mix, recipe.guided)
        reading.run(lesson, every, lambda: reading.score.share('told') > recipe.words_enough)
    if set(only) <= {'words'}:
        return
    if 'eyes' in only and not seeing.finished:
        _see(recipe, work, model, eyes['heads'], seeing, every)
    if set(only) - {'eyes', 'words'}:
        writer.sights = eyes['heads'].sights()
        _remember(recipe, work, out, model, tokenizer, writer, only, device, every)


def _see(recipe: Recipe, work: Path, model: Any, heads: Eyes, seeing: Trainer,
         every: int) -> None:
    """Train the lesson `eyes`, and let go of its pictures."""
    size = model.config.vision_config.image_size
    runs, unseen = (
        render_runs(work / 'runs', seed, count, recipe.run_stills, size, render_stills)
        for seed, count in ((0, recipe.runs), (VALIDATION, 200)))
    lesson = EyesLesson(model, heads, runs, recipe.eyes_batch)
    test = EyesLesson(model, heads, unseen, 800)

    def check() -> bool:
        score = Score()
        with torch.no_grad(), reduced(seeing.device):
            test.step(random.Random(0), 0, score)
        print(f'  unseen: {score}', flush=True)
        return False

    seeing.run(lesson, every, check)


def _remember(recipe: Recipe, work: Path, out: Path, model: Any, tokenizer: Any, writer: Writer,
              only: Iterable[str], device: torch.device, every: int) -> None:
    """Train `memory` and what follows; export at every checkpoint."""
    size = model.config.vision_config.image_size
    decoder = torch.nn.ModuleDict({'decoder': model.get_decoder()})

    def render(seed: int, count: int, frames: int = recipe.memory_frames) -> list[Run]:
        return render_runs(work / 'runs', seed, count, frames, size)

    def encoded(runs: list[Run]) -> tuple[list[Run], torch.Tensor]:
        with reduced(device):
            return runs, encode_all(model, runs).float()

    def lesson(seen: tuple[list[Run], torch.Tensor], phases: Sequence[Phase],
               budgets: Sequence[int], made_of: Callable[[int], Mix] = mix, benches: int = 1,
               draw: Callable[..., Policy] = draw_policy) -> MemoryLesson:
        return MemoryLesson(model, writer, *seen, phases, budgets, made_of, recipe.guided,
                            benches, draw)

    def check() -> bool:
        score, dice = Score(), random.Random(0)
        frames = recipe.memory_frames if recipe.guided else LOUD
        policies = [draw_policy(random.Random(row), recipe.budgets[1:3]) if recipe.guided else None
                    for row in range(16)]
        with torch.no_grad(), reduced(device):
            _, attention, pointing = test.run(dice, frames, policies, score)
        print(f'  unseen, {frames} frames: {score} attention {attention:.2f} '
              f'pointing {pointing:.2f}', flush=True)
        write_folder(model, tokenizer, out)
        return False

    runs = render(0, recipe.memory_runs)
    memory = Trainer('memory', decoder, work, recipe.seed, recipe.memory_steps,
                     recipe.memory_rate, device)
    settle(model, runs)
    test = lesson(encoded(render(VALIDATION, 50)), recipe.phases, recipe.budgets)
    if 'memory' in only:
        memory.run(lesson(encoded(runs), recipe.phases, recipe.budgets), every, check)
    if not memory.finished or not {'polish', 'finish'} & set(only):
        return

    @cache
    def worlds() -> tuple[tuple[list[Run], torch.Tensor], ...]:
        """Encode once what both lessons draw from."""
        return (encoded(runs + render(recipe.memory_runs, recipe.polish_runs)),
                encoded(render(recipe.memory_runs, recipe.long_runs, LONG)))

    def longer(name: str, steps: int, budgets: Sequence[int], draw: Callable[..., Policy],
               beside: dict[str, torch.Tensor] | None = None) -> Trainer:
        trainer = Trainer(name, decoder, work, recipe.seed, steps, recipe.polish_rate, device,
                          POLISH_MEMORY, beside)
        if name in only and not trainer.finished:
            rest = budgets, polish_mix, recipe.polish_benches, draw
            near, far = worlds()
            trainer.run(Turns((lesson(near, [recipe.polish_phase], *rest),
                               lesson(far, [recipe.long_phase], *rest)),
                              (1 - recipe.long_share, recipe.long_share)), every, check)
        return trainer

    polish = longer('polish', recipe.polish_steps, recipe.polish_budgets, draw_policy)
    if polish.finished:
        polished = polish.mean.module.state_dict()
        polish.modules.load_state_dict(polished)        # where `finish` begins
        longer('finish', recipe.finish_steps, recipe.finish_budgets, shipped_policy, polished)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train the bundled model.')
    parser.add_argument('--work', type=Path, required=True, help='rendered runs and checkpoints')
    parser.add_argument('--out', type=Path, default=Path('infmllm_ros/bundled/model'),
                        help='where the model goes (default: %(default)s)')
    parser.add_argument('--only', nargs='+', default=LESSONS, choices=LESSONS,
                        help='lessons (default: all)')
    parser.add_argument('--answers-only', action='store_true', help='a stand-in for a stock model')
    parser.add_argument('--steps', type=int, help='of the lesson memory (default: as long as it '
                        'takes the bundled model)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--every', type=int, default=100, help='steps between checkpoints')
    parser.add_argument('--workers', type=int, help='processes that share every batch '
                        f'(default: one a core, {FEWEST} at most; with a GPU, 1)')
    options = parser.parse_args()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if options.workers is None:
        options.workers = 1 if device.type == 'cuda' else min(FEWEST, torch.get_num_threads())
    if not 1 <= options.workers <= FEWEST:
        parser.error(f'--workers {options.workers}: must be 1 to {FEWEST}, as a batch has '
                     f'{FEWEST} streams at least')
    recipe = Recipe(seed=options.seed)
    if options.answers_only:
        recipe = replace(recipe, guided=False, phases=recipe.phases[:3])
        options.only = [name for name in options.only if name not in ('polish', 'finish')]
    if options.steps:
        recipe = replace(recipe, memory_steps=options.steps)
    workers.spread(options.workers, train, recipe, options.work, options.out, options.only,
                   device, options.every)


if __name__ == '__main__':
    main()
