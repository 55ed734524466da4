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
Show that a frame costs the same however long the robot has been watching, and an answer too.

Streams frames through a model and prints one table: the time per frame and the resident memory, in
windows over the stream. On a machine that others use too, the second window and the last are far
apart in time; so the last frames, and the last questions, also take turns with those of a young
session of the same kind, which leaves only the age to tell them apart.

    python -m benchmarks.flatness [--frames 100000] [--family smolvlm | --model FOLDER]
    [--policy saddle] [--budget 192]
"""

from __future__ import annotations

from collections.abc import Iterator
import gc
from itertools import cycle, islice
from statistics import median
import sys
import tempfile
from typing import Any

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.engine import load_model, make_policy, POLICIES, StreamingModel, StreamingSession
import numpy as np
import torch

from .timing import by_turns, machine, milliseconds, parser, resident, Spent, timed, write

IMAGES = 256            # rendered once, shown again and again
QUESTION = 'what color is the car ahead?'
ASKS = 100              # how often, for a time to first token
EARLY = 100             # frames before the first of these


class Watcher:
    """A session that is shown frames one after the other, and asked now and then."""

    def __init__(self, model: StreamingModel, policy: str, budget: int,
                 images: list[np.ndarray]) -> None:
        fields = MODEL_POLICY if policy == 'saddle' and model.adapter.status else {}
        self.session = StreamingSession(
            model, make_policy(policy, budget, **fields), max_question=64, max_answer=16)
        self._frames: Iterator[np.ndarray] = cycle(images)

    def see(self) -> None:
        """Observe the next frame."""
        self.session.observe(next(self._frames), self.session.frames_seen * 10 ** 9)

    def see_more(self, frames: int) -> list[Spent]:
        """Observe some; time each."""
        return [timed(self.see) for _ in range(frames)]

    def ask(self) -> None:
        """Ask, and wait for the first token."""
        self.session.answer(QUESTION, max_tokens=1, remember=False)


def summary(times: list[Spent], mib: float) -> dict[str, float]:
    """Sum up a window of frames."""
    late = float(np.percentile([one.wall for one in times], 95))
    return {**milliseconds(times), 'p95_ms': round(1e3 * late, 4), 'resident_mib': round(mib, 2)}


def paired(times: dict[str, list[Spent]]) -> dict[str, float]:
    """Compare what took turns: the ratio of the medians, old over young."""
    return {clock: round(median(one[place] for one in times['old'])
                         / median(one[place] for one in times['young']), 4)
            for place, clock in enumerate(Spent._fields)}


def growth(windows: dict[int, dict[str, float]], window: int) -> float:
    """Give the MiB by which the process grew since the second window."""
    return round(windows[max(windows)]['resident_mib'] - windows[2 * window]['resident_mib'], 2)


def measure(model: StreamingModel, policy: str, budget: int, frames: int, window: int,
            asks: int = ASKS) -> dict[str, Any]:
    """
    Stream through one session, and compare it with a young one.

    Parameters
    ----------
    model : StreamingModel
    policy : str
    budget : int
        [tokens]
    frames, window : int
        In all, and in a window that is summed up: at least three windows.
    asks : int
        Questions for a time to first token.
    """
    images = [step.frame for step in islice(Episode('drive', seed=0), IMAGES)]
    old, young = (Watcher(model, policy, budget, images) for _ in range(2))
    young.see_more(EARLY)
    early = by_turns({'ask': young.ask}, asks)['ask']
    gc.collect()
    windows = {}
    for end in range(window, frames, window):
        times = old.see_more(window)
        windows[end] = summary(times, resident())
        print(end, windows[end], file=sys.stderr, flush=True)
    late = by_turns({'ask': old.ask}, asks)['ask']
    turns = by_turns({'old': old.ask, 'young': young.ask}, asks)
    young.see_more(window - EARLY)
    last = by_turns({'old': old.see, 'young': young.see}, window, warm=0)
    windows[end + window] = summary(last['old'], resident())
    stats = old.session.stats()
    return {
        'machine': machine(), 'model': model.spec.config.model_type, 'policy': policy,
        'budget': stats.budget, 'frames': stats.frames_seen, 'tokens': stats.tokens_seen,
        'evictions': stats.evictions, 'kv_mib': round(stats.kv_bytes / 2 ** 20, 3),
        'window': window, 'windows': windows,
        'growth_mib': growth(windows, window),
        'first_token': {EARLY: milliseconds(early), frames: milliseconds(late)},
        'old_over_young': {'frame': paired(last), 'first_token': paired(turns)}}


def main() -> None:
    """Stream, measure, print."""
    options = parser(__doc__)
    options.add_argument('--frames', type=int, default=20000)
    options.add_argument('--family', help='a tiny random model instead of the bundled one')
    options.add_argument('--model', help='a checkpoint instead of the bundled one')
    options.add_argument('--policy', default='saddle', choices=POLICIES)
    options.add_argument('--budget', type=int, default=MODEL_BUDGET)
    options.add_argument('--window', type=int, default=1000, help='frames per measured window')
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    if args.frames < 3 * args.window:
        options.error(f'--frames is {args.frames}, must be at least 3 windows of {args.window}')
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(make_tiny(args.family, folder) if args.family else args.model or MODEL)
    found = measure(model, args.policy, args.budget, args.frames, args.window)
    write('speed_flatness', found, args.out)
    print(f'{found["machine"]}\n{found["model"]}, policy {args.policy}, budget '
          f'{found["budget"]}, {found["tokens"]} tokens seen, {found["evictions"]} evictions, '
          f'KV buffers {found["kv_mib"]} MiB\n')
    print(f'{"frames":>16} {"wall ms":>8} {"p95 ms":>8} {"processor ms":>13} '
          f'{"resident MiB":>13}')
    for end, line in found['windows'].items():
        if end in (args.window, 2 * args.window) or end * 5 % args.frames == 0:
            print(f'{end - args.window:>7}..{end:<7} {line["wall_ms"]:>8.3f} '
                  f'{line["p95_ms"]:>8.3f} {line["processor_ms"]:>13.3f} '
                  f'{line["resident_mib"]:>13.2f}')
    early, late = (list(found['windows'].values())[place] for place in (1, -1))
    print(f'\nlast window over the second: wall {late["wall_ms"] / early["wall_ms"]:.4f}, '
          f'processor {late["processor_ms"] / early["processor_ms"]:.4f}; resident memory grew '
          f'by {found["growth_mib"]:.2f} MiB\ntime to first token: {found["first_token"]}\n'
          f'old over young, by turns: {found["old_over_young"]}')


if __name__ == '__main__':
    main()
