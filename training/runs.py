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

"""Scenes as training material: rendered stretches of worlds with their truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import pickle
import random

from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.bundled.scenes.words import NONE, PLACES, TOPICS
import numpy as np

from . import workers

STILL_GAP = 8  # most frames from one still to the next

Known = dict[str, tuple[str, tuple[int, ...]]]
"""Fact -> its value, and the ordinals of the frames that show it."""


@dataclass
class Run:
    """
    A rendered stretch of a world, from its first frame on.

    Parameters
    ----------
    kind : str
        'drive' or 'bench'.
    images : numpy.ndarray
        uint8 [T, side, side, 3].
    now : list of dict
        For each frame, fact -> what the frame shows.
    back : list of Known
        For each frame, what has been shown until then.
    """

    kind: str
    images: np.ndarray
    now: list[dict[str, str]]
    back: list[Known]


def render_run(kind: str, seed: int, frames: int, size: int) -> Run:
    """Render one run; every third is calmer, and benches differ in how many things they have."""
    dice = random.Random(f'{kind}/{seed}')
    episode = Episode(kind, seed, size, pace=dice.choice((1., 1., .5)), keys=0,
                      things=dice.randint(3, 9))
    run = Run(kind, np.empty((frames, size, size, 3), np.uint8), [], [])
    for step in (next(episode) for _ in range(frames)):
        run.images[step.ordinal] = step.frame
        where = {f'where:{thing}': place for place, thing in step.truth.items()
                 if place in PLACES} if kind == 'bench' else {}
        if kind == 'bench':
            where[f'where:{step.truth["hold"]}'] = 'gripper'
            where.pop(f'where:{NONE}', None)
        run.now.append({**step.truth, **where})
        run.back.append({name: (fact.value, tuple(frame for _, frame in fact.evidence))
                         for name, fact in episode.live().items()})
    return run


def render_stills(kind: str, seed: int, count: int, size: int) -> Run:
    """
    Render single frames of a world, some time apart: more to see than in as many in a row.

    A drive without a sign is passed over half of the time, since digits need the most examples.
    """
    dice = random.Random(f'{kind}/{seed}/still')
    episode = Episode(kind, seed, size, keys=0, things=dice.randint(3, 9))
    run = Run(kind, np.empty((count, size, size, 3), np.uint8), [], [])
    for place in range(count):
        episode.skip(dice.randrange(STILL_GAP))
        while kind == 'drive' and episode.truth.get('sign') == NONE and dice.random() < .5:
            episode.skip(1)
        step = next(episode)
        run.images[place] = step.frame
        run.now.append(step.truth)
    return run


def render_runs(folder: Path, first_seed: int, count: int, frames: int, size: int,
                render: Callable[[str, int, int, int], Run] = render_run) -> list[Run]:
    """Render as many drives as benches, or read what an earlier call left in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {seed: folder / f'{render.__name__}_{frames}x{size}_{seed}.pickle'
             for seed in range(first_seed, first_seed + count // 2, 25)}
    for seed, path in workers.mine(list(paths.items())):
        if not path.exists():
            part = [render(kind, number, frames, size)
                    for number in range(seed, seed + 25) for kind in TOPICS]
            temporary = path.with_suffix('.part')
            temporary.write_bytes(pickle.dumps(part))
            temporary.rename(path)
    workers.wait()
    runs = [run for path in paths.values() for run in pickle.loads(path.read_bytes())]
    return runs[:count]
