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

"""What the commands that replay have in common: the input, its questions, the parameters."""

from __future__ import annotations

import argparse
from pathlib import Path
import signal
from typing import Any

from infmllm_ros.engine import EngineError
from infmllm_ros.node.option import ParameterError
from infmllm_ros.replay.bagging import BagError
from infmllm_ros.replay.live.meeting import LiveError
from infmllm_ros.replay.plan import Plan
from infmllm_ros.replay.plan_file import PlanError, read_plan
from infmllm_ros.replay.settings import read_parameters
from infmllm_ros.replay.sources import camera_topics, open_source, Source, SourceError

OK, WRONG, INPUT, EARLY, STOPPED = 0, 1, 2, 3, 130  # exit statuses
WRONG_INPUT = (SourceError, PlanError, ParameterError, EngineError, LiveError, BagError)
"""What ends a command with status `INPUT`, on one line."""


def add_input(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Declare what is replayed, one `input` or several `inputs`, and what is asked of it."""
    name, count = ('inputs', '*') if several else ('input', '?')
    parser.add_argument(name, nargs=count, metavar='BAG', help='bag (folder, .mcap, .db3), '
                        'video, or folder of images; default: a rendered drive')
    parser.add_argument('--questions', type=Path, metavar='FILE', help='YAML: what to ask when, '
                        'see docs/replay.md')
    parser.add_argument('--cameras', nargs='+', default=[], metavar='NAME=TOPIC',
                        help='which image topics of a bag, or which sub-folders')
    parser.add_argument('--fps', type=float, help='of images without stamps (default: 10)')
    parser.add_argument('--seed', type=int, default=0, help='of the rendered drive (default: 0)')


def add_parameters(parser: Any) -> None:
    """Declare the parameters of the node; `parser` may be a group of one."""
    parser.add_argument('--params-file', action='append', type=Path, metavar='FILE',
                        help='parameters of the node; without a model it is the bundled one')
    parser.add_argument('-p', dest='parameter', action='append', metavar='NAME:=VALUE',
                        help='one of them')
    parser.add_argument('-r', dest='remap', action='append', metavar='NAME:=TOPIC',
                        help='another name for a topic, as in path:=/plan')


def read_input(arguments: argparse.Namespace) -> tuple[Source, Plan, dict[str, Any]]:
    """
    Open what the arguments name: the source, the questions, the parameters.

    Raises
    ------
    SourceError, PlanError, ParameterError
        Something is wrong with them.
    """
    source = open_source(arguments.input, camera_topics(arguments.cameras), arguments.fps,
                         arguments.seed)
    given = read_parameters(arguments.params_file or (), arguments.parameter or ())
    plan = read_plan(arguments.questions, given.get('cameras', source.cameras)
                     ) if arguments.questions else Plan()
    return source, plan, given


def folder_of(arguments: argparse.Namespace, what: str = 'replay') -> Path:
    """Name the folder that is written to."""
    if arguments.out:
        return arguments.out
    return Path(f'{what}_{Path(arguments.input).resolve().stem}' if arguments.input else what)


def heed_end() -> None:
    """Have SIGTERM end a command as Ctrl-C does: what there is is kept."""
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupt)
