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

"""What benchmarks write into the documentation: tables, sections of pages, figures, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / 'docs'


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table."""
    lines = ['| ' + ' | '.join(map(str, row)) + ' |' for row in (head, *rows)]
    return '\n'.join([lines[0], '|' + '---|' * len(head), *lines[1:]])


def write_between(page: Path, name: str, text: str) -> None:
    """Put text between the markers of a page, made where it has none; the rest stays."""
    first, last = f'<!-- {name}: begin, written by the script -->', f'<!-- {name}: end -->'
    old = page.read_text() if page.exists() else ''
    if first not in old or last not in old:
        old = f'{old.rstrip()}\n\n{first}\n{last}\n'.lstrip()
    before, rest = old.split(first, 1)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f'{before}{first}\n\n{text.strip()}\n\n{last}{rest.split(last, 1)[1]}')


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure small enough for a repository."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def write_json(path: Path, content: Any) -> None:
    """Write the numbers of a table and a figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + '\n')
