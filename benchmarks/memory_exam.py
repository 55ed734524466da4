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
Examine what each policy remembers of an hour, and what its budget costs.

Streams of rendered scenes through a model that can answer about them; every policy sits the same
papers (see exam.py). Prints the tables and writes them, a figure and its numbers into `docs/`.

    python -m benchmarks.memory_exam [--quick] [--model FOLDER] [--parts hour,shares,paper]

What was finished is not done again: results lie in `build/memory_exam.jsonl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infmllm_ros.bundled import MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import KEYS
from infmllm_ros.engine import load_model, StreamingModel
import torch

from .exam import exam_options, fingerprint, hold, Ledger, out_folder, Plan, Setting
from .exam_report import (
    by_age,
    by_distance,
    columns,
    draw_scores,
    FAR,
    held_by_distance,
    is_fact,
    mean_where,
    new_figure,
    plain,
    Score,
    score_where,
    share,
    Streams,
    STYLES,
)
from .pages import markdown, save_figure, write_between, write_json

HOUR, SHORT, QUICK = Plan(3600), Plan(720, every=20), Plan(700, every=20)
SHARES = (.02, .05, .1, .25)
GUIDANCE = 'what colour what digit where is the target the code the base and what was told'
SIMPLE = ('streaming_llm', 'recent_frames', 'random')
TARGETS = {'now': .98, 'back, in window': .95, 'no': .95, 'told': .9, 'again': .9,
           'overwritten': .9, 'late': .9}
READINGS: dict[str, dict[str, Any]] = {     # of the paper, which leaves these choices open
    'question window, a list per layer': {'window': 'question', 'scope': 'layer', 'bias': .01,
                                          'sinks': 0},
    'chunk window, a list per layer': {'window': 'chunk', 'scope': 'layer', 'bias': .01,
                                       'sinks': 0},
    'marker window, a list per layer': {'window': 'marker', 'scope': 'layer', 'bias': .002},
}
# A standing guidance: what somebody who waits for told facts would have watches ask.
WATCHES = ' '.join(f'what is the {key}' for key in KEYS)
WINDOWS: dict[str, dict[str, Any]] = {
    f'{window} window, {lists}': {'scope': scope, 'bias': .002, **fields}
    for window, fields in {
        'question': {'window': 'question'}, 'chunk': {'window': 'chunk'},
        'guidance': {'window': 'probe', 'probe': GUIDANCE, 'probe_every': 4},
        'watches': {'window': 'probe', 'probe': WATCHES, 'probe_every': 4}}.items()
    for scope, lists in (('all', 'one list'), ('layer', 'a list per layer'))}


@dataclass(frozen=True)
class Part:
    """One part of the exam: who sits which papers, how many streams of each world."""

    title: str
    plan: Plan
    settings: tuple[Setting, ...]
    streams: int


def make_setting(policy: str, budget: int, frame_tokens: int, own: dict[str, Any]) -> Setting:
    """Set a policy up; `own` are the fields of saddle."""
    fields = {'saddle': own, 'recent_frames': {'frames': max(1, budget // frame_tokens)}}
    return Setting(policy, policy, budget, tuple(sorted(fields.get(policy, {}).items())))


def make_parts(model: StreamingModel, budgets: Sequence[int], streams: int, quick: bool,
               policies: Sequence[str]) -> dict[str, Part]:
    """Say what the exam is made of."""
    each = model.adapter.frame_tokens
    own = MODEL_POLICY if model.adapter.status else {}
    hour, short = (QUICK, QUICK) if quick else (HOUR, SHORT)

    def settings(sizes: Sequence[int]) -> tuple[Setting, ...]:
        return tuple(make_setting(policy, size, each, own)
                     for size in sizes for policy in policies)

    whole = short.frames * each
    base = make_setting('saddle', budgets[0], each, own)
    readings = tuple(Setting(f'saddle, {label}', 'saddle', budgets[0], tuple(fields.items()))
                     for label, fields in READINGS.items()
                     if fields['window'] != 'marker' or model.adapter.status)
    windows = tuple(Setting(f'saddle, {label}', 'saddle', budgets[0],
                            tuple(sorted(fields.items()))) for label, fields in WINDOWS.items())
    plain = tuple(make_setting(policy, budgets[0], each, own) for policy in SIMPLE)
    return {
        'windows': Part(f'{short.frames} frames, who asks', short, (*windows, *plain), streams),
        'hour': Part(f'{hour.frames:,} frames, absolute budgets', hour, settings(budgets),
                     streams),
        'shares': Part(
            f'{short.frames} frames, budgets as shares of the full cache', short,
            (*settings([round(part * whole) for part in (SHARES[1:2] if quick else SHARES)]),
             Setting('full', 'full', 0)), max(1, streams - 1)),
        'paper': Part(f"{hour.frames:,} frames, the paper's reading of saddle", hour,
                      (base, *readings), streams),
    }


def scores(streams: Streams, setting: Setting, frame_tokens: int) -> dict[str, Score]:
    """Score each column of the table."""
    window = setting.budget / frame_tokens if setting.budget else float('inf')
    return {name: score_where(streams, wanted)
            for name, wanted in columns(window).items()}


def table(part: Part, results: dict[Setting, Streams], refused: dict[Setting, str],
          frame_tokens: int) -> str:
    """Write the table of a part."""
    whole = part.plan.frames * frame_tokens
    rows = []
    for setting in part.settings:
        size = f'{setting.budget} ({setting.budget / whole:.1%})' if setting.budget else 'all'
        if setting in refused:
            rows.append([size, setting.label, refused[setting], *[''] * 8])
            continue
        streams = results[setting]
        cells = scores(streams, setting, frame_tokens).values()
        layers = mean_where(streams, 'layers', lambda record: is_fact(record, FAR))
        rows.append([size, setting.label, *cells, share(layers)])
    head = ['budget (of the full cache)', 'policy', *columns(1), 'layers holding the facts']
    return markdown(head, rows)


def distances(results: dict[Setting, Streams]) -> str:
    """Write the table of facts by distance: right, and share of layers that hold them."""
    rows = []
    for setting, streams in results.items():
        held = held_by_distance(streams)
        rows.append([setting.budget or 'all', setting.label, *(
            f'{found} / {share(held[distance])}'
            for distance, found in by_distance(streams).items())])
    asked = next(iter(by_distance(streams) for streams in results.values()), {})
    return markdown(['budget', 'policy', *(f'{distance:,} frames' for distance in asked)], rows)


def topics(results: dict[Setting, Streams]) -> str:
    """Write right answers by topic: what of a kind a model cannot do."""
    found = sorted({(record['kind'], record['topic']) for streams in results.values()
                    for stream in streams for record in stream})
    return markdown(
        ['kind', 'topic', *(f'{setting.label}, {setting.budget}' for setting in results)],
        [[kind, topic, *(score_where(streams, lambda record, asked=(kind, topic): (
            record['kind'], record['topic']) == asked) for streams in results.values())]
         for kind, topic in found])


def targets(results: dict[Setting, Streams], frame_tokens: int) -> str:
    """Hold saddle to its targets, at each budget, and to itself when the budget grows."""
    ours = [setting for setting in results if setting.label == 'saddle']
    found = [scores(results[setting], setting, frame_tokens) for setting in ours]
    rows = [[name, f'>= {least:.2f}', *(
        '-' if not one[name].asked else f'{one[name].share:.3f}'
        + ('' if one[name].share >= least else ' **missed**') for one in found)]
        for name, least in TARGETS.items()]
    # of what does not depend on the budget: the same questions, whatever the window
    same = [{name: score_where(results[setting], wanted)
             for name, wanted in columns(float('inf')).items()} for setting in ours]
    falls = [max(((same[0][name].share - one[name].share, name) for name in one
                  if one[name].asked), default=(0., '')) for one in same]
    rows.append(['largest fall against the first budget', '<= 0.030', '-', *(
        f'{max(0., fall):.3f}' + (f' ({name})' if fall > 0 else '')
        + (' **missed**' if fall > .03 else '') for fall, name in falls[1:])])
    return markdown(['saddle', 'target', *(f'{setting.budget} tokens' for setting in ours)], rows)


def simple_wins(results: dict[Setting, Streams], frame_tokens: int) -> list[str]:
    """Say where a simple baseline is ahead of saddle, and whether that is clear."""
    lines = []
    for setting in results:
        if setting.label != 'saddle':
            continue
        mine = scores(results[setting], setting, frame_tokens)
        for name, own in mine.items():
            others = [(scores(streams, other, frame_tokens)[name], other.label)
                      for other, streams in results.items()
                      if other.label in SIMPLE and other.budget == setting.budget]
            best, label = max(others, key=lambda pair: pair[0].share, default=(own, ''))
            if best.share - own.share >= .005:
                how = 'clearly' if best.low > own.high else 'within the intervals'
                lines.append(f'- {setting.budget} tokens, *{name}*: `{label}` {best} against '
                             f'{own}, {how}')
    return lines


def draw(path: Path, first: Part, results: dict[Setting, Streams], frame_tokens: int) -> None:
    """Draw accuracy against distance at the first budget, a line a policy."""
    budget = first.settings[0].budget
    figure, (facts, layers, back) = new_figure(
        ('told facts, never mentioned again', 'share of layers that hold them',
         'seen, asked later'), 'frames since')
    for setting, streams in results.items():
        if setting.budget in (budget, 0):
            style = STYLES.get(setting.label, {})
            draw_scores(facts, by_distance(streams), setting.label, **style)
            draw_scores(back, by_age(streams), setting.label, **style)
            held = held_by_distance(streams)
            layers.plot(list(held), list(held.values()), ms=4, **style)
    for axes in (facts, layers, back):
        axes.set_xscale('log')
        axes.axvline(budget / frame_tokens, color='grey', ls=':', lw=1)
    facts.set_ylabel('right answers')
    facts.legend(fontsize=7)
    figure.suptitle(f'{first.plan.frames:,} frames, {budget} tokens a layer; dotted: what a '
                    'rolling window of that size holds', fontsize=9)
    save_figure(figure, path)


def numbers(part: Part, results: dict[Setting, Streams], frame_tokens: int,
            ) -> list[dict[str, Any]]:
    """Collect what the tables and the figure show."""
    return [{'frames': part.plan.frames, 'streams': len(streams), 'label': setting.label,
             'policy': setting.policy, 'budget': setting.budget, 'fields': dict(setting.fields),
             'scores': plain(scores(streams, setting, frame_tokens)),
             'facts by distance': plain(by_distance(streams)),
             'layers by distance': held_by_distance(streams),
             'back by age': plain(by_age(streams))} for setting, streams in results.items()]


def examine(model: StreamingModel, parts: dict[str, Part], ledger: Ledger, out: Path | None,
            by_topic: bool = False, section: str = 'memory_exam') -> str:
    """Hold the exam, or what is missing of it; return the page, and write it if there is `out`."""
    each, text, collected = model.adapter.frame_tokens, [], {}
    for name, part in parts.items():
        results, refused = hold(model, part.settings, part.plan, part.streams, ledger)
        collected[name] = numbers(part, results, each)
        text += [f'## {part.title}', f'{2 * part.streams} streams, {each} tokens a frame.',
                 table(part, results, refused, each)]
        if name == 'hour':
            text += ['### Targets', targets(results, each)]
        if name != 'paper':
            text += ['### Where a simple baseline wins', '\n'.join(
                simple_wins(results, each)) or 'Nowhere in this table.']
        text += ['### Told facts by distance: right answers / layers that hold the fact',
                 distances(results)]
        if by_topic:
            text += ['### By topic', topics(results)]
        if name == 'hour' and out is not None:
            draw(out / 'figures' / 'memory_exam.png', part, results, each)
            text.append('![Accuracy against distance](figures/memory_exam.png)')
    page = '\n\n'.join(text)
    if out is not None:
        write_between(out / 'memory_exam.md', section, page)
        write_json(out / 'figures' / f'{section}.json', collected)
    return page


def main() -> None:
    """Read the command line, hold the exam, print its page."""
    parser = exam_options(__doc__.splitlines()[1], 3, 'build/memory_exam.jsonl')
    parser.add_argument('--parts', default='hour,shares,paper',
                        help='of hour, shares, paper, windows (default: %(default)s)')
    parser.add_argument('--policies', default='saddle,' + ','.join(SIMPLE))
    parser.add_argument('--budgets', default=','.join(
        str(MODEL_BUDGET * factor) for factor in (1, 2, 4)), help='tokens, of hour and paper')
    parser.add_argument('--topics', action='store_true', help='also a table by topic')
    parser.add_argument('--section', default='memory_exam',
                        help='of the page, and the name of the numbers (default: %(default)s)')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    budgets = [int(size) for size in args.budgets.split(',')]
    parts = make_parts(model, budgets[:1] if args.quick else budgets,
                       1 if args.quick else args.streams, args.quick, args.policies.split(','))
    print(examine(model, {name: parts[name] for name in args.parts.split(',')},
                  Ledger(args.work, fingerprint(args.model)), out_folder(args), args.topics,
                  args.section))


if __name__ == '__main__':
    main()
