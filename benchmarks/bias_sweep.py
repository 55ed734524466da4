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
Sweep the attention bias of policy `saddle` against the distance between fact and question.

The paper (Inf-MLLM, arXiv 2409.09086) claims that a bias that is too small lets the memory
collapse, since it is not updated any more, and that the best bias falls with the distance. Says
whether that holds here for facts that were told, and what the bias does to what was seen; prints
tables and writes them, a figure and its numbers into `docs/`.

    python -m benchmarks.bias_sweep [--quick] [--model FOLDER]

What was finished is not done again: results lie in `build/bias_sweep.jsonl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infmllm_ros.bundled import MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.engine import load_model
import torch

from .exam import exam_options, fingerprint, hold, Ledger, out_folder, Plan, Setting
from .exam_report import (
    by_distance,
    columns,
    draw_scores,
    FAR,
    is_fact,
    mean_where,
    new_figure,
    plain,
    Score,
    score_where,
    share,
    Streams,
)
from .pages import markdown, save_figure, write_between, write_json

BIASES = (0., .001, .002, .005, .01, .02, .05, .1)
LONG, QUICK = Plan(1800, every=15, distances=(10, 30, 100, 300, 1000)), Plan(700, every=100)
PAPER = {'window': 'question', 'scope': 'layer', 'reduce': 'mean', 'sinks': 0}
CLOSE = .02  # as good as the best

Sweep = dict[float, Streams]


def settings(fields: dict[str, Any], budget: int, biases: Sequence[float]) -> list[Setting]:
    """Make a setting for each bias."""
    return [Setting(f'bias {bias:g}', 'saddle', budget,
                    tuple(sorted({**fields, 'bias': bias}.items()))) for bias in biases]


def best(found: dict[float, Score]) -> tuple[float, float]:
    """Give the lowest and the highest bias that are as good as the best."""
    most = max(one.share for one in found.values())
    good = [bias for bias, one in found.items() if one.share >= most - CLOSE]
    return min(good), max(good)


def turned(sweep: Sweep) -> dict[int, dict[float, Score]]:
    """Score by distance, then by bias."""
    scores = {bias: by_distance(streams) for bias, streams in sweep.items()}
    return {distance: {bias: found[distance] for bias, found in scores.items()}
            for distance in next(iter(scores.values()), {})}


def verdict(sweep: Sweep) -> list[str]:
    """Say whether the paper's claim holds in a sweep."""
    found = turned(sweep)
    far = {bias: score_where(streams, lambda record: is_fact(record, FAR))
           for bias, streams in sweep.items()}
    if not found or not all(one.asked for one in far.values()):
        return ['- Too few questions to say anything.']
    lowest = min(far)
    top = max(far, key=lambda bias: far[bias].share)
    collapse = far[lowest].high < far[top].low
    near_low, near_high = best(found[min(found)])
    far_low, far_high = best(found[max(found)])
    falls = far_high < near_low
    edge = far_high < near_high
    return [
        f'- *Collapse when the bias is too small*: {"holds" if collapse else "does not show"}. '
        f'Facts at least {FAR} frames old: bias {lowest:g} {far[lowest]}, best bias {top:g} '
        f'{far[top]}.',
        f'- *Optimum falling with distance*: '
        f'{"holds" if falls else "only its upper edge" if edge else "does not show"}. Within '
        f'{CLOSE:.0%} of the best: bias {near_low:g} to {near_high:g} after {min(found)} frames, '
        f'{far_low:g} to {far_high:g} after {max(found):,}.']


def table(sweep: Sweep, window: float) -> str:
    """Write right answers by bias and distance, the layers that hold old facts, what was seen."""
    found, seen = turned(sweep), {
        name: wanted for name, wanted in columns(window).items() if name.startswith('back')}
    rows = [[f'{bias:g}', *(found[distance][bias] for distance in found),
             share(mean_where(streams, 'layers', lambda record: is_fact(record, FAR))),
             *(score_where(streams, wanted) for wanted in seen.values())]
            for bias, streams in sweep.items()]
    return markdown(['bias', *(f'{distance:,} frames' for distance in found),
                     f'layers holding facts of {FAR} frames and more', *seen], rows)


def draw(path: Path, sweeps: dict[str, Sweep]) -> None:
    """Draw accuracy against the bias, a line a distance."""
    figure, panels = new_figure(list(sweeps), 'attention bias')
    for axes, sweep in zip(panels, sweeps.values()):
        for number, (distance, found) in enumerate(turned(sweep).items()):
            draw_scores(axes, found, f'{distance:,} frames', color=f'C{number}',
                        marker='o')
        axes.set_xscale('symlog', linthresh=.001, linscale=.5)
    panels[0].set_ylabel('told facts recalled')
    panels[0].legend(fontsize=7)
    save_figure(figure, path)


def main() -> None:
    """Read the command line, sweep, print and write."""
    parser = exam_options(__doc__.splitlines()[1], 2, 'build/bias_sweep.jsonl')
    parser.add_argument('--budget', type=int, default=MODEL_BUDGET, help='tokens')
    parser.add_argument('--biases', default=','.join(f'{bias:g}' for bias in BIASES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    ledger = Ledger(args.work, fingerprint(args.model))
    plan, count = (QUICK, 1) if args.quick else (LONG, args.streams)
    biases = [float(bias) for bias in args.biases.split(',')]
    readings = {'marker window, one list (ours)': MODEL_POLICY} if model.adapter.status else {}
    readings["question window, a list per layer (the paper's)"] = PAPER
    window = args.budget / model.adapter.frame_tokens
    sweeps, text, numbers = {}, [], {}
    for title, fields in readings.items():
        made = settings(fields, args.budget, biases)
        results, _ = hold(model, made, plan, count, ledger)
        sweep = dict(zip(biases, (results[setting] for setting in made)))
        sweeps[title] = sweep
        numbers[title] = {f'{bias:g}': plain(by_distance(streams))
                          for bias, streams in sweep.items()}
        text += [f'### {title}', table(sweep, window), '\n'.join(verdict(sweep))]
    text.insert(0, f'{plan.frames:,} frames, {2 * count} streams, {args.budget} tokens.')
    out = out_folder(args)
    if out is not None:
        draw(out / 'figures' / 'bias_sweep.png', sweeps)
        write_json(out / 'figures' / 'bias_sweep.json', numbers)
        text.append('![Accuracy against the bias](figures/bias_sweep.png)')
        write_between(out / 'memory_exam.md', 'bias_sweep', '\n\n'.join(text))
    print('\n\n'.join(text))


if __name__ == '__main__':
    main()
