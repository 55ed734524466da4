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
Let every policy of the engine sit the memory exam, and time what it costs.

    python -m benchmarks.policy_exam [--quick] [--model FOLDER] [--budget TOKENS]

Each policy has its paper's settings, with sizes that the papers give in tokens or seconds scaled
down to the budget. Writes a table and a figure into `docs/`. What was finished is not done again:
results lie in `build/memory_exam.jsonl`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infmllm_ros.bundled import MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.engine import load_model, StreamingModel
import torch

from .exam import (
    exam_options,
    fingerprint,
    FIRST_SEED,
    hold,
    Ledger,
    out_folder,
    Plan,
    Setting,
    write_paper,
)
from .exam_report import (
    by_age,
    by_distance,
    columns,
    FAR,
    is_fact,
    mean_where,
    new_figure,
    plain,
    share,
    Streams,
)
from .memory_exam import GUIDANCE, HOUR, QUICK, scores
from .pages import markdown, save_figure, write_between, write_json
from .policy_cost import Cost, cost

KINDS = ('now', 'back, in window', 'told', 'again', 'overwritten', 'late')


def make_settings(budget: int, frame_tokens: int, own: Mapping[str, Any]) -> list[Setting]:
    """Set every policy up; `own` are the fields of saddle that the model was trained with."""
    sink = window = budget // 6     # the paper's 512 each, of a memory about six times as large
    fields: dict[str, tuple[str, Mapping[str, Any]]] = {
        'saddle': ('saddle', own),
        "saddle, the paper's reading": (
            'saddle', {'window': 'question', 'scope': 'layer', 'bias': .01, 'sinks': 0}),
        'streaming_llm': ('streaming_llm', {}),
        'h2o': ('h2o', {}),
        'streaming_vlm': ('streaming_vlm', {
            'text_sink': sink, 'text_window': window,
            'vision_window': float((budget - sink - window) // frame_tokens)}),
        'live_vlm': ('live_vlm', {}),
        'infinipot_v': ('infinipot_v', {}),
        'hermes': ('hermes', {'probe': GUIDANCE}),      # in words that this model has
        'recent_frames': ('recent_frames', {'frames': max(1, budget // frame_tokens)}),
        'random': ('random', {}),
    }
    return [Setting(label, policy, budget, tuple(sorted(options.items())))
            for label, (policy, options) in fields.items()]


def table(results: Mapping[Setting, Streams], costs: Mapping[Setting, Cost],
          frame_tokens: int) -> str:
    """Write what each policy knows and what it costs."""
    rows = []
    for setting, streams in results.items():
        layers = mean_where(streams, 'layers', lambda record: is_fact(record, FAR))
        rows.append([setting.label, *scores(streams, setting, frame_tokens).values(),
                     share(layers), f'{costs[setting].frame:.1f}',
                     f'{costs[setting].question:.1f}'])
    return markdown(['policy', *columns(1), 'layers holding the facts', 'frame, ms',
                     'question, ms'], rows)


def draw(path: Path, results: Mapping[Setting, Streams], costs: Mapping[Setting, Cost],
         frame_tokens: int) -> None:
    """Draw accuracy against distance, and against what a frame costs."""
    figure, (facts, back, price) = new_figure(
        ('told facts, never mentioned again', 'seen, asked later', 'mean of all kinds'),
        'frames since')
    for number, (setting, streams) in enumerate(results.items()):
        style = {'color': f'C{number}', 'marker': 'osv^<>Dxp*'[number % 10]}
        for axes, points in ((facts, by_distance(streams)), (back, by_age(streams))):
            axes.plot(list(points), [one.share for one in points.values()], ms=4, **style)
        found = scores(streams, setting, frame_tokens)
        shares = [found[kind].share for kind in KINDS if found[kind].asked]
        price.plot(costs[setting].frame, sum(shares) / len(shares), label=setting.label,
                   ls='', **style)
    for axes in (facts, back):
        axes.set_xscale('log')
    facts.set_ylabel('right answers')
    price.set(xlabel='milliseconds a frame, vision apart')
    price.legend(fontsize=6)
    save_figure(figure, path)


def examine(model: StreamingModel, plan: Plan, budget: int, streams: int, ledger: Ledger,
            out: Path | None) -> str:
    """Hold the exam, or what is missing of it; return the page, and write it if there is `out`."""
    each = model.adapter.frame_tokens
    settings = make_settings(budget, each, MODEL_POLICY if model.adapter.status else {})
    results, refused = hold(model, settings, plan, streams, ledger)
    costs = cost(model, list(results), list(write_paper(Plan(240), 'drive', FIRST_SEED)))
    text = [f'{plan.frames:,} frames, {2 * streams} streams, {budget} tokens '
            f'({budget / plan.frames / each:.1%} of the full cache). Times are medians of this '
            'model, in turns in one run, once the memory is full; vision is apart.',
            table(results, costs, each),
            *(f'`{setting.label}`: {reason}' for setting, reason in refused.items())]
    if out is not None:
        draw(out / 'figures' / 'policy_exam.png', results, costs, each)
        text.append('![Every policy](figures/policy_exam.png)')
        write_between(out / 'memory_exam.md', 'policy_exam', '\n\n'.join(text))
        write_json(out / 'figures' / 'policy_exam.json', [
            {'label': setting.label, 'policy': setting.policy, 'budget': budget,
             'fields': dict(setting.fields), 'scores': plain(scores(found, setting, each)),
             'frame_ms': costs[setting].frame, 'question_ms': costs[setting].question}
            for setting, found in results.items()])
    return '\n\n'.join(text)


def main() -> None:
    """Read the command line, hold the exam, print its page."""
    parser = exam_options(__doc__.splitlines()[1], 2, 'build/memory_exam.jsonl')
    parser.add_argument('--budget', type=int, default=2 * MODEL_BUDGET, help='tokens')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(examine(load_model(args.model), QUICK if args.quick else HOUR, args.budget,
                  1 if args.quick else args.streams, Ledger(args.work, fingerprint(args.model)),
                  out_folder(args)))


if __name__ == '__main__':
    main()
