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
Runs side by side: their numbers in tables, and whether they are good enough.

Nothing here knows ROS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from infmllm_ros.replay.records import Answer, FILE, read, Record
from infmllm_ros.replay.records.headline import Headline

JSON = 'compare.json'
NONE = '-'  # in a table, of what there is nothing to tell
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """
    One run.

    Parameters
    ----------
    name : str
        What sets it apart from the others.
    headline : Headline
        Its numbers.
    questions : dict of str to (int, int)
        How many answers to each question were right, and how many were judged.
    """

    name: str
    headline: Headline
    questions: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, name: str, records: Iterable[Record]) -> Row:
        """Sum up the records of a run."""
        records, questions = list(records), {}
        for record in records:
            if isinstance(record, Answer) and not record.watch and record.right is not None:
                right, judged = questions.get(record.name, (0, 0))
                questions[record.name] = right + record.right, judged + 1
        return cls(name, Headline.of(records), questions)

    def numbers(self) -> dict[str, Any]:
        """Give all as what JSON can hold."""
        head = self.headline
        return {
            'name': self.name, 'model': head.run.model, 'policy': head.run.policy,
            'budget': head.run.budget, 'state': head.state, 'problems': list(head.problems),
            'accuracy': head.accuracy, 'right': head.right, 'judged': head.judged,
            'questions': {name: {'right': right, 'judged': judged}
                          for name, (right, judged) in self.questions.items()},
            'frames_per_second': head.fps, 'speed': head.speed,
            'latency_ms': head.latency_ms, 'first_token_ms': head.first_ms,
            'frame_ms': head.frame_ms, 'tokens': head.tokens, 'tokens_seen': head.tokens_seen,
            'process_bytes': head.process_bytes}


def tables(rows: Sequence[Row]) -> str:
    """Write two tables as markdown: the runs, and how each did on each question."""
    runs = [['run', 'right', 'accuracy', 'frames/s', 'frame p50 ms', 'answer p50 ms', 'p95 ms',
             'tokens', 'process MiB', 'ended']]
    for row in rows:
        head = row.headline
        runs.append([row.name, f'{head.right} of {head.judged}', share(head.accuracy),
                     number(head.fps), number(head.frame_ms and head.frame_ms[0]),
                     *(number(head.latency_ms and head.latency_ms[i]) for i in (0, 1)),
                     number(head.tokens, '{:,}'),
                     number(head.process_bytes and head.process_bytes / MIB, '{:,.0f}'),
                     head.state])
    names = list(dict.fromkeys(name for row in rows for name in row.questions))
    questions = [['question', *(row.name for row in rows)], *(
        [name, *(_score(row.questions.get(name)) for row in rows)] for name in names)]
    return _table(runs) + ('\n' + _table(questions) if names else '')


def _score(score: tuple[int, int] | None) -> str:
    return NONE if score is None else f'{score[0]} of {score[1]}'


def share(value: float | None) -> str:
    """Write a share of 1; a dash for none."""
    return number(value, '{:.1%}')


def number(value: float | None, form: str = '{:.1f}') -> str:
    """Write a number; a dash for none."""
    return NONE if value is None else form.format(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace('|', '\\|').replace('\n', ' ') for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    # names to the left, numbers to the right
    lines = ['| ' + ' | '.join(f'{cell:{"<>"[place > 0]}{width}}' for place, (cell, width)
                               in enumerate(zip(row, widths))) + ' |' for row in cells]
    rule = '|' + '|'.join('-' * (width + 1) + (':' if place else '-')
                          for place, width in enumerate(widths)) + '|'
    return '\n'.join([lines[0], rule, *lines[1:]]) + '\n'


def misses(rows: Sequence[Row], *, min_accuracy: float | None = None,
           max_latency_ms: float | None = None, baseline: dict[str, float | None] | None = None,
           tolerance: float = 0.0) -> list[str]:
    """
    Name what is not good enough, and by how much.

    Parameters
    ----------
    rows : sequence of Row
        The runs.
    min_accuracy : float, optional
        Least share of the judged answers that must be right.
    max_latency_ms : float, optional
        [ms] Longest 95th percentile of the time of an answer.
    baseline : dict of str to float, optional
        From `read_baseline`.
    tolerance : float
        How much the accuracy may be below that of the baseline.

    Returns
    -------
    list of str
        A line for each.
    """
    found = []
    for row in rows:
        accuracy, latency = row.headline.accuracy, row.headline.latency_ms
        if min_accuracy is not None:
            if accuracy is None:
                found.append(f'{row.name}: no answer was judged: give the questions expected '
                             'answers')
            elif accuracy < min_accuracy:
                found.append(f'{row.name}: accuracy {accuracy:.1%}, by '
                             f'{min_accuracy - accuracy:.1%} below --min-accuracy '
                             f'{min_accuracy:.1%}')
        if max_latency_ms is not None and latency is not None and latency[1] > max_latency_ms:
            found.append(f'{row.name}: 95 % of the answers within {latency[1]:.1f} ms, '
                         f'{latency[1] - max_latency_ms:.1f} ms above --max-latency-ms '
                         f'{max_latency_ms:g}')
        if baseline is not None:
            found += _worse(row, baseline, tolerance)
    return found


def _worse(row: Row, baseline: dict[str, float | None], tolerance: float) -> list[str]:
    if row.name not in baseline and '' not in baseline:
        return [f'{row.name}: the baseline has no run of that name, only '
                f'{", ".join(baseline)}: compare the same policies, budgets and models']
    before, now = baseline.get(row.name, baseline.get('')), row.headline.accuracy
    if before is None or now is None:
        return [] if before is None else [f'{row.name}: no answer was judged, but in the baseline']
    # a sum of shares is not exact
    if now < before - tolerance - 1e-9:
        return [f'{row.name}: accuracy {now:.1%}, {before - now:.1%} below the {before:.1%} of '
                f'the baseline: more than --tolerance {tolerance:.1%}']
    return []


def read_baseline(folder: Path) -> dict[str, float | None]:
    """
    Read the accuracies of an earlier comparison, or of a single run, which has no name.

    Raises
    ------
    ValueError
        The folder holds neither.
    """
    if (folder / JSON).exists():
        try:
            runs = json.loads((folder / JSON).read_text(encoding='utf-8'))['runs']
            return {run['name']: run['accuracy'] for run in runs}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{folder / JSON}: not written by a comparison ({error}): compare '
                             'again') from None
    if (folder / FILE).exists():
        return {'': Headline.of(read(folder)).accuracy}
    raise ValueError(f'{folder}: holds neither {JSON} nor {FILE}: name a folder that was written '
                     'by compare or replay')
