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
Write which budget a GPU leaves for each checkpoint, from their configs: docs/choosing.md.

    python -m docs.choosing
"""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path

from benchmarks.model_sizes import (  # noqa: I100
    CONFIGS,
    GIB,
    GPUS,
    memory_of,
    Size,
    sizes,
    spec_of,
    WORKING,
)
from benchmarks.pages import markdown, write_between

PAGE = Path(__file__).with_suffix('.md')
SHOWN = 3  # checkpoints for a GPU: those with the largest weights that leave room
LEAST = GIB  # [bytes] of memory beside the weights


def budget_of(size: Size, room: float) -> tuple[int, bool]:
    """Say how many tokens a memory of `room` bytes holds, and whether the context is the limit."""
    slot, fixed, most = memory_of(
        spec_of(size.name, json.loads(CONFIGS.read_text())[size.name]))
    tokens = int((room - fixed) // slot)
    return min(most, tokens), tokens > most


def rows() -> Iterator[list[str]]:
    """List for each GPU the checkpoints with the largest weights that leave room for a memory."""
    known = list(sizes())
    for gpu in GPUS:
        fitting = [size for size in known if gpu * 10**9 - size.weights - WORKING >= LEAST]
        for size in fitting[:-SHOWN - 1:-1]:
            room = gpu * 10**9 - size.weights - WORKING
            budget, limited = budget_of(size, room)
            frames = budget // size.frame
            if budget < 2 * size.frame:
                continue
            yield [f'{gpu} GB', f'`{size.name}`', f'{room / GIB:.1f} GiB',
                   f'{budget:,}{" (context)" if limited else ""}', f'{frames:,}',
                   f'{frames / 60:.1f} min']


def table() -> str:
    """Write the table in Markdown."""
    return markdown(('GPU', 'checkpoint', 'left for memory', '`budget_tokens` at most',
                     'whole frames', 'at one a second'), rows())


if __name__ == '__main__':
    write_between(PAGE, 'budgets', table())
