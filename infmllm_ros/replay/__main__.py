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
Replay a bag, a video or images: ``python -m infmllm_ros.replay BAG [--questions FILE]``.

Offline, straight into the engine and as fast as it goes, or live into a node that runs. Several
inputs go one after the other, or, with ``--ray``, to the workers of a Ray cluster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
import sys
from typing import Any

from infmllm_ros.replay.bagging import STORAGES
from infmllm_ros.replay.batch import replay_many
from infmllm_ros.replay.batch.cluster import ClusterError
from infmllm_ros.replay.console import Console
from infmllm_ros.replay.live import Live
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
from infmllm_ros.replay.records import End, INTERRUPTED
from infmllm_ros.replay.report import FILE
from infmllm_ros.replay.settings import remapped
from infmllm_ros.replay.sources import Source
from infmllm_ros.replay.terminal import interrupts, Progress, Screen

OFFLINE_ONLY = ('params_file', 'parameter', 'remap', 'save_memory')
LIVE_ONLY = ('rate', 'namespace', 'hold')


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m infmllm_ros.replay', description='Replay a bag, a video or a folder of '
        'images: ask it questions, and write answers, statistics and a report.',
        epilog='Exit status: 0; 1 if an answer was not the expected one; 2 on wrong input, '
        'nothing is done; 3 if the replay ended early, what there was is kept; 130 when '
        'interrupted, likewise.')
    add_input(parser, several=True)
    parser.add_argument('--out', type=Path, metavar='FOLDER', help='where to write (default: '
                        'replay_ and the name of the input)')
    parser.add_argument('--storage', choices=STORAGES, default='mcap', help='of the bag that is '
                        'written (default: mcap)')
    parser.add_argument('--no-bag', action='store_true', help='write no bag')
    parser.add_argument('--no-report', action='store_true', help='write no report.html')
    offline = parser.add_argument_group('offline')
    add_parameters(offline)
    offline.add_argument('--save-memory', type=Path, metavar='FILE', help='save the memory as it '
                         'is at the end')
    many = parser.add_argument_group('many inputs', 'A folder for each, below --out, and a page '
                                     'about all; what is done already is not done again.')
    many.add_argument('--ray', nargs='?', const='', metavar='ADDRESS', help='replay on a Ray '
                      'cluster: that at the address, or one on this machine; write --ray last, or '
                      '--ray=ADDRESS')
    many.add_argument('--workers', type=int, default=0, help='of the cluster (default: a GPU '
                      'each, or a processor core)')
    live = parser.add_argument_group('live')
    live.add_argument('--live', action='store_true', help='play into a node that runs, with '
                      '/clock')
    live.add_argument('--rate', type=float, help='speed (default: 1)')
    live.add_argument('--namespace', help='of the node (default: /)')
    live.add_argument('--hold', action='store_true', default=None, help='wait for the node, so '
                      'that it drops nothing')
    arguments = parser.parse_args(argv)
    for name in OFFLINE_ONLY if arguments.live else LIVE_ONLY:
        if getattr(arguments, name) is not None:
            option = {'parameter': '-p', 'remap': '-r'}.get(name, f'--{name.replace("_", "-")}')
            parser.error(f'{option}: only {"without" if arguments.live else "with"} --live')
    arguments.input = arguments.inputs[0] if arguments.inputs else None
    if several(arguments) and (arguments.live or arguments.save_memory):
        parser.error(f'{"--live" if arguments.live else "--save-memory"}: for one input only')
    return arguments


def several(arguments: argparse.Namespace) -> bool:
    """Whether each input gets a folder of its own."""
    return len(arguments.inputs) > 1 or arguments.ray is not None


def replay(arguments: argparse.Namespace, source: Source, plan: Plan, given: dict[str, Any],
           screen: Screen) -> End:
    """Replay into the folder that the arguments name; returns the last record."""
    console = Console(screen)
    with interrupts() as check, closing(
            _run(arguments, source, plan, given, screen, check)) as run:
        try:
            end = replay_into(
                folder_of(arguments), run, [console],
                storage=None if arguments.no_bag else arguments.storage,
                page=not arguments.no_report, on_frame=Progress(screen, source.count).show,
                **{'save_memory': arguments.save_memory} if arguments.save_memory else {})
        finally:
            screen.close()
    for row in console.table():
        screen.line(row)
    return end


def _run(arguments: argparse.Namespace, source: Source, plan: Plan, given: dict[str, Any],
         screen: Screen, check: Callable[[], None]) -> Offline | Live:
    """Make ready; whatever is wrong shows before anything is written."""
    if not arguments.live:
        return Offline(source, plan, given, progress=screen.live,
                       remap=remapped(arguments.remap or ()), heed=check)
    return Live(source, plan, heed=check, **{
        name: getattr(arguments, name) for name in LIVE_ONLY
        if getattr(arguments, name) is not None})


def conclusion(end: End, place: Path, screen: Screen) -> int:
    """Say how it ended; returns the exit status."""
    measured = end.measured
    frames = ', '.join(f'{count:,} {fate}' for fate, count in end.frames.items()) or 'none'
    screen.line(f'frames: {frames}; {measured["frames_per_second"]:.1f} a second, '
                f'{measured["speed"]:.1f} times real time')
    screen.line(f'{end.answers} answers, {end.right} of {end.judged} right; in {place}')
    if end.problem:
        print(f'replay: ended early: {end.problem}', file=sys.stderr)
        return STOPPED if end.problem == INTERRUPTED else EARLY
    return WRONG if end.right < end.judged else OK


def main(argv: Sequence[str] | None = None) -> int:
    """Replay; the exit status is as --help says."""
    arguments = arguments_of(argv)
    screen = Screen(sys.stdout)
    heed_end()
    try:
        if several(arguments):
            return replay_many(arguments, arguments.out or Path('replays'), screen)
        source, plan, given = read_input(arguments)
        end = replay(arguments, source, plan, given, screen)
    except (*WRONG_INPUT, ClusterError) as error:
        print(f'replay: {error}', file=sys.stderr)
        return INPUT
    except OSError as error:
        print(f'replay: {" ".join(str(error).split())}: see that {folder_of(arguments)} can be '
              'written', file=sys.stderr)
        return EARLY
    except KeyboardInterrupt:
        what = 'some are not done' if several(arguments) else 'before the first frame'
        print(f'replay: interrupted, {what}', file=sys.stderr)
        return STOPPED
    folder = folder_of(arguments)
    return conclusion(end, folder if arguments.no_report else folder / FILE, screen)


if __name__ == '__main__':
    sys.exit(main())
