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

"""What the benchmarks of speed share: rivals by turns, medians, the machine, numbers on disk."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
import json
import os
from pathlib import Path
import platform
import resource
from statistics import median
import sys
from time import perf_counter, process_time
from typing import Any, NamedTuple

from infmllm_ros.engine import FlexPrefill
import torch
import transformers

from .pages import DOCS, write_json

DATA = DOCS / 'figures'
PAGE_BYTES = resource.getpagesize()


class Spent(NamedTuple):
    """Seconds of a call: on the wall, and of this process's threads together."""

    wall: float
    processor: float


def timed(call: Callable[[], object], device: str | torch.device = 'cpu') -> Spent:
    """Time a call, with all that it leaves to a GPU."""
    wall, processor = perf_counter(), process_time()
    call()
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
    return Spent(perf_counter() - wall, process_time() - processor)


def by_turns(calls: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1,
             device: str | torch.device = 'cpu') -> dict[str, list[Spent]]:
    """
    Time rivals one after the other, round after round, each round beginning with another one.

    What else the machine does meanwhile then falls on all of them alike.

    Parameters
    ----------
    calls : mapping of str to Callable
    rounds : int
        That count.
    warm : int
        Rounds before them that do not.
    device : str or torch.device
        Where the calls compute.
    """
    times: dict[str, list[Spent]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(warm + rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            spent = timed(calls[name], device)
            if number >= warm:
                times[name].append(spent)
    return times


def milliseconds(times: list[Spent]) -> dict[str, float]:
    """Give the medians, in milliseconds."""
    wall, processor = (1e3 * median(column) for column in zip(*times, strict=True))
    return {'wall_ms': round(wall, 4), 'processor_ms': round(processor, 4)}


def resident() -> float:
    """Measure this process's resident memory, in MiB."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * PAGE_BYTES / 2 ** 20


def processor() -> str:
    """Name the processor."""
    cpuinfo = Path('/proc/cpuinfo')
    lines = [line.split(':', 1)[1].strip() for line in cpuinfo.read_text().splitlines()
             if line.startswith('model name')] if cpuinfo.exists() else []
    return lines[0] if lines else platform.processor() or platform.machine()


def machine(device: str | torch.device = 'cpu') -> dict[str, Any]:
    """Say what the numbers were measured on, and with which versions."""
    found = {
        'processor': processor(), 'cores': os.cpu_count(), 'threads': torch.get_num_threads(),
        'load': [round(load, 1) for load in os.getloadavg()],
        'python': platform.python_version(), 'torch': torch.__version__,
        'transformers': transformers.__version__}
    if torch.device(device).type == 'cuda':
        found |= {'gpu': torch.cuda.get_device_name(device), 'cuda': torch.version.cuda}
    return found


def parser(doc: str) -> ArgumentParser:
    """Make a parser that knows what all these benchmarks can be told."""
    made = ArgumentParser(description=doc.strip().splitlines()[0])
    made.add_argument('--dtype', default='bfloat16', choices=('bfloat16', 'float32'))
    made.add_argument('--threads', type=int, default=1)
    made.add_argument('--out', type=Path, default=DATA, help='folder of the JSON')
    return made


def add_flex(made: ArgumentParser) -> None:
    """Let a parser take fields of FlexPrefill; see :func:`read_flex`."""
    made.add_argument('--set', nargs='*', default=[], metavar='FIELD=VALUE',
                      help='fields of FlexPrefill')


def read_flex(given: Sequence[str]) -> FlexPrefill:
    """Make a FlexPrefill of ``FIELD=VALUE`` texts."""
    kinds = {name: type(spec.default) for name, spec in FlexPrefill.__dataclass_fields__.items()}
    values = dict(item.split('=', 1) for item in given)
    return FlexPrefill(**{name: kinds[name](value) for name, value in values.items()})


def write(name: str, content: Mapping[str, Any], folder: Path) -> None:
    """Write a benchmark's numbers as `name`.json: docs/performance.md is made from them."""
    write_json(folder / f'{name}.json', {'command': command(), **content})


def write_shape(name: str, shape: str, content: Mapping[str, Any], folder: Path) -> None:
    """Write what was measured at a shape into `name`.json; what is there of others stays."""
    path = folder / f'{name}.json'
    known = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, known | {
        shape: {'command': command(), 'machine': machine(), **content}})


def command() -> str:
    """Say how this script was called, but for where it writes."""
    words = sys.argv[1:]
    if '--out' in words:
        place = words.index('--out')
        words = words[:place] + words[place + 2:]
    return ' '.join((f'python -m benchmarks.{Path(sys.argv[0]).stem}', *words))
