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

Offline, straight into the engine and as fast as it goes, or live into a node that runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing, ExitStack
from pathlib import Path
import signal
import sys
from typing import Any

from infmllm_ros.engine import EngineError
from infmllm_ros.node.option import ParameterError
from infmllm_ros.replay import report
from infmllm_ros.replay.bagging import BagError, open_bag, STORAGES
from infmllm_ros.replay.console import Console
from infmllm_ros.replay.offline import INTERRUPTED, Offline
from infmllm_ros.replay.plan import Plan
from infmllm_ros.replay.plan_file import PlanError, read_plan
from infmllm_ros.replay.records import End, FILE, Journal
from infmllm_ros.replay.settings import read_parameters, remapped
from infmllm_ros.replay.sources import camera_topics, open_source, Source, SourceError
from infmllm_ros.replay.terminal import Progress, Screen
from infmllm_ros.replay.thumbnails import FILE as THUMBNAILS
from infmllm_ros.replay.thumbnails import Thumbnails

OK, WRONG, INPUT, EARLY, STOPPED = 0, 1, 2, 3, 130
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
    parser.add_argument('input', nargs='?', metavar='BAG', help='bag (folder, .mcap, .db3), '
                        'video, or folder of images; default: a rendered drive')
    parser.add_argument('--questions', type=Path, metavar='FILE', help='YAML: what to ask when, '
                        'see docs/replay.md')
    parser.add_argument('--out', type=Path, metavar='FOLDER', help='where to write (default: '
                        'replay_ and the name of the input)')
    parser.add_argument('--cameras', nargs='+', default=[], metavar='NAME=TOPIC',
                        help='which image topics of a bag, or which sub-folders')
    parser.add_argument('--fps', type=float, help='of images without stamps (default: 10)')
    parser.add_argument('--seed', type=int, default=0, help='of the rendered drive (default: 0)')
    parser.add_argument('--storage', choices=STORAGES, default='mcap', help='of the bag that is '
                        'written (default: mcap)')
    parser.add_argument('--no-bag', action='store_true', help='write no bag')
    parser.add_argument('--no-report', action='store_true', help='write no report.html')
    offline = parser.add_argument_group('offline')
    offline.add_argument('--params-file', action='append', type=Path, metavar='FILE',
                         help='parameters of the node; without a model it is the bundled one')
    offline.add_argument('-p', dest='parameter', action='append', metavar='NAME:=VALUE',
                         help='one of them')
    offline.add_argument('-r', dest='remap', action='append', metavar='NAME:=TOPIC',
                         help='another name for a topic, as in path:=/plan')
    offline.add_argument('--save-memory', type=Path, metavar='FILE', help='save the memory as it '
                         'is at the end')
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
    return arguments


def replay(arguments: argparse.Namespace, source: Source, plan: Plan, given: dict[str, Any],
           screen: Screen) -> End:
    """Replay into the folder that the arguments name; returns the last record."""
    console, folder = Console(screen), folder_of(arguments)
    with ExitStack() as stack:
        run = None
        if not arguments.live:  # whatever is wrong shows before anything is written
            run = Offline(source, plan, given, progress=screen.live,
                          remap=remapped(arguments.remap or ()))
            stack.enter_context(closing(run))
        folder.mkdir(parents=True, exist_ok=True)
        bags = [] if arguments.no_bag else [stack.enter_context(closing(
            open_bag(folder / 'bag', arguments.storage)))]
        sinks = [stack.enter_context(closing(Journal(folder / FILE))), console]
        stack.callback(screen.close)
        if run is None:
            options = {name: getattr(arguments, name) for name in LIVE_ONLY
                       if getattr(arguments, name) is not None}
            end = _live(source, plan, sinks, bags, {
                **options, 'on_frame': Progress(screen, source.count).show})
        else:
            thumbnails = stack.enter_context(closing(
                Thumbnails(folder / THUMBNAILS, run.cameras)))
            end = run.replay(sinks, bags=bags, thumbnails=thumbnails,
                             save_memory=arguments.save_memory,
                             on_frame=Progress(screen, source.count).show)
    if not arguments.no_report:
        report.write(folder)
    for row in console.table():
        screen.line(row)
    return end


def _live(source: Source, plan: Plan, sinks: Sequence[Any], bags: Sequence[Any],
          options: dict[str, Any]) -> End:
    from infmllm_ros.replay.live import LiveError, replay_live  # needs a middleware
    try:
        return replay_live(source, plan, sinks, bags=bags, **options)
    except LiveError as error:
        raise SourceError(str(error)) from None


def folder_of(arguments: argparse.Namespace) -> Path:
    """Name the folder that is written to."""
    if arguments.out:
        return arguments.out
    return Path(f'replay_{Path(arguments.input).resolve().stem}' if arguments.input else 'replay')


def conclusion(end: End, folder: Path, screen: Screen) -> int:
    """Say how it ended; returns the exit status."""
    measured = end.measured
    frames = ', '.join(f'{count:,} {fate}' for fate, count in end.frames.items()) or 'none'
    screen.line(f'frames: {frames}; {measured["frames_per_second"]:.1f} a second, '
                f'{measured["speed"]:.1f} times real time')
    screen.line(f'{end.answers} answers, {end.right} of {end.judged} right; in {folder}')
    if end.problem:
        print(f'replay: ended early: {end.problem}', file=sys.stderr)
        return STOPPED if end.problem == INTERRUPTED else EARLY
    return WRONG if end.right < end.judged else OK


def main(argv: Sequence[str] | None = None) -> int:
    """Replay; the exit status is as --help says."""
    arguments = arguments_of(argv)
    screen = Screen(sys.stdout)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupt)  # as SIGINT does
    try:
        source = open_source(arguments.input, camera_topics(arguments.cameras), arguments.fps,
                             arguments.seed)
        given = read_parameters(arguments.params_file or (), arguments.parameter or ())
        plan = read_plan(arguments.questions, given.get('cameras', source.cameras)
                         ) if arguments.questions else Plan()
        end = replay(arguments, source, plan, given, screen)
    except (SourceError, PlanError, ParameterError, EngineError, BagError) as error:
        print(f'replay: {error}', file=sys.stderr)
        return INPUT
    except OSError as error:
        print(f'replay: {" ".join(str(error).split())}: see that {folder_of(arguments)} can be '
              'written', file=sys.stderr)
        return EARLY
    except KeyboardInterrupt:
        print('replay: interrupted before the first frame', file=sys.stderr)
        return STOPPED
    return conclusion(end, folder_of(arguments), screen)


if __name__ == '__main__':
    sys.exit(main())
