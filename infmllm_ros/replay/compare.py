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
The same input and questions over policies, budgets and models, offline.

``python -m infmllm_ros.replay.compare BAG --questions FILE --policies saddle streaming_llm``
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
import json
from pathlib import Path
import re
import sys
from typing import Any

from infmllm_ros.engine import EngineError
from infmllm_ros.node.loading import release
from infmllm_ros.node.option import ParameterError
from infmllm_ros.replay import report
from infmllm_ros.replay.comparison import JSON, misses, read_baseline, Row, tables
from infmllm_ros.replay.console import Console
from infmllm_ros.replay.offline import Offline
from infmllm_ros.replay.options import (
    add_input,
    add_parameters,
    EARLY,
    folder_of,
    heed_end,
    INPUT,
    OK,
    read_input,
    STOPPED,
    WRONG,
    WRONG_INPUT,
)
from infmllm_ros.replay.output import replay_into
from infmllm_ros.replay.plan import Plan
from infmllm_ros.replay.records import INTERRUPTED, read
from infmllm_ros.replay.records.headline import COMPLETE
from infmllm_ros.replay.settings import remapped
from infmllm_ros.replay.sources import Source
from infmllm_ros.replay.terminal import interrupts, Progress, Screen

MARKDOWN, PAGE = 'compare.md', 'compare.html'


def variants(models: Sequence[str], policies: Sequence[str], budgets: Sequence[int],
             ) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Combine all, models outermost.

    Yields
    ------
    str
        Name: what sets the variant apart, its policy if nothing does.
    dict
        Its parameters.
    """
    for model in models or [None]:
        for policy in policies or [None]:
            for budget in budgets or [None]:
                name = [*([Path(model).name] if len(models) > 1 else []), *([policy] if policy
                        else []), *([str(budget)] if budget else [])]
                yield ' '.join(name) or 'as given', {
                    key: value for key, value in (
                        ('model', model), ('policy', policy), ('budget_tokens', budget))
                    if value is not None}


class Comparison:
    """
    Replays one input many times.

    Parameters
    ----------
    source : Source
    plan : Plan
    given : dict
        Parameters that all share.
    folder : Path
        Each run has its own in it.
    screen : Screen
        Shows how far it is.
    remap : dict of str to str
        Other names of topics.
    heed : callable
        Called now and then; KeyboardInterrupt from it ends a run.

    Attributes
    ----------
    rows : list of Row
        One for each run.
    refused : list of str
        Variants that the engine cannot run, and why.
    stopped : bool
        Whether a person ended it.
    """

    def __init__(self, source: Source, plan: Plan, given: dict[str, Any], folder: Path,
                 screen: Screen, remap: dict[str, str], heed: Callable[[], None]):
        """Have run nothing."""
        self._source, self._plan, self._given = source, plan, given
        self._folder, self._screen, self._remap, self._heed = folder, screen, remap, heed
        self._model: tuple[str, Any] = ('', None)  # that is loaded, and its name
        self.rows: list[Row] = []
        self._folders: list[Path] = []
        self.refused: list[str] = []
        self.stopped = False

    def run(self, name: str, parameters: dict[str, Any], page: bool = True) -> None:
        """Replay with these parameters; the model of the last time is used again if it is one."""
        self._screen.line(self._screen.paint(name, 'bold'))
        given = {**self._given, **parameters}
        wanted = given.get('model', '')
        if wanted != self._model[0]:
            self._model = wanted, None
            release()
        try:
            run = Offline(self._source, self._plan, given, self._model[1], self._screen.live,
                          self._remap, self._heed)
        except (EngineError, ParameterError) as error:
            self.refused.append(f'{name}: {error}')
            self._screen.line(self._screen.paint(f'  refused: {error}', 'red'))
            return
        self._model = wanted, run.model
        console = Console(self._screen)
        # a number, as two names may be one when cut down to what a folder can be called
        folder = self._folder / f'{len(self.rows):02}_{re.sub(r"[^A-Za-z0-9.]+", "_", name)}'
        with closing(run):
            end = replay_into(folder, run, [console], storage=None, page=page,
                              on_frame=Progress(self._screen, self._source.count).show)
        self._screen.close()
        self.rows.append(Row.of(name, read(folder)))
        self._folders.append(folder)
        self.stopped = end.problem == INTERRUPTED

    def write(self, notes: Sequence[str] = (), page: bool = True) -> None:
        """Write what came of it: JSON, tables and a page with a figure."""
        (self._folder / JSON).write_text(json.dumps({
            'source': self._source.name, 'questions': self._plan.name, 'notes': list(notes),
            'refused': self.refused, 'runs': [row.numbers() for row in self.rows]},
            indent=1, ensure_ascii=False, allow_nan=False) + '\n', encoding='utf-8')
        (self._folder / MARKDOWN).write_text(tables(self.rows), encoding='utf-8')
        links = [f'{folder.name}/{report.FILE}' if page else '' for folder in self._folders]
        report.summary([report.Entry(row.name, row.headline, link)
                        for row, link in zip(self.rows, links)], self._folder / PAGE,
                       f'Comparison on {self._source.name}', [*notes, *self.refused])


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is no share: give one from 0 to 1')
    return value


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m infmllm_ros.replay.compare', description='Replay the same input and '
        'questions with several policies, budgets or models, and compare.',
        epilog='Exit status: 0; 1 if a run is not as good as it must be, each miss is named; 2 on '
        'wrong input, or if a variant was refused; 3 if a run ended early; 130 when interrupted. '
        'What there is is written in any case.')
    add_input(parser)
    parser.add_argument('--policies', nargs='+', default=[], metavar='POLICY')
    parser.add_argument('--budgets', nargs='+', type=int, default=[], metavar='TOKENS')
    parser.add_argument('--models', nargs='+', default=[], metavar='MODEL')
    add_parameters(parser)
    parser.add_argument('--out', type=Path, metavar='FOLDER', help='where to write (default: '
                        'compare_ and the name of the input)')
    parser.add_argument('--no-report', action='store_true', help='write no report of each run')
    must = parser.add_argument_group('what must hold')
    must.add_argument('--min-accuracy', type=_share, metavar='SHARE',
                      help='least share of right answers')
    must.add_argument('--max-latency-ms', type=float, metavar='MS',
                      help='longest 95th percentile of the time of an answer')
    must.add_argument('--baseline', type=Path, metavar='FOLDER', help='of an earlier comparison, '
                      'or of one replay: no accuracy may be lower')
    must.add_argument('--tolerance', type=_share, default=0.0, metavar='SHARE',
                      help='than that of the baseline by more than this (default: 0)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; the exit status is as --help says."""
    arguments = arguments_of(argv)
    screen, page = Screen(sys.stdout), not arguments.no_report
    heed_end()
    try:
        source, plan, given = read_input(arguments)
        remap = remapped(arguments.remap or ())
        baseline = read_baseline(arguments.baseline) if arguments.baseline else None
        folder = folder_of(arguments, 'compare')
        folder.mkdir(parents=True, exist_ok=True)
    except (*WRONG_INPUT, ValueError, OSError) as error:
        print(f'compare: {" ".join(str(error).split())}', file=sys.stderr)
        return INPUT
    with interrupts() as check:
        comparison = Comparison(source, plan, given, folder, screen, remap, check)
        try:
            for name, parameters in variants(
                    arguments.models, arguments.policies, arguments.budgets):
                check()
                comparison.run(name, parameters, page)
        except KeyboardInterrupt:
            comparison.stopped = True
        except OSError as error:
            screen.close()
            print(f'compare: {" ".join(str(error).split())}: see that {folder} can be written',
                  file=sys.stderr)
            return EARLY
    found = misses(comparison.rows, min_accuracy=arguments.min_accuracy,
                   max_latency_ms=arguments.max_latency_ms, baseline=baseline,
                   tolerance=arguments.tolerance)
    comparison.write(found, page)
    screen.close()
    screen.line('\n' + tables(comparison.rows))
    screen.line(f'in {folder / PAGE}')
    for line in (*comparison.refused, *found):
        print(f'compare: {line}', file=sys.stderr)
    if comparison.stopped:
        return STOPPED
    if comparison.refused:
        return INPUT
    early = any(row.headline.state != COMPLETE for row in comparison.rows)
    return EARLY if early else WRONG if found else OK


if __name__ == '__main__':
    sys.exit(main())
