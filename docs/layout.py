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
Write what each file of the package is for, as its docstring says: docs/layout.md.

    python docs/layout.py
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs/layout.md'
FOLDERS = ('infmllm_ros', 'training', 'benchmarks', 'examples', 'launch')
HEAD = """\
# Layout

What each file is for, in its own words; `python docs/layout.py` writes this page, and a test
compares it with the code. How they work together: [architecture](architecture.md).
"""


def idea(file: Path) -> str:
    """Return the first sentence of a program's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text())) or ''
    return ' '.join(text.split('\n\n')[0].split()).rstrip('.:').replace('|', '\\|')


def layout() -> str:
    """Write the page."""
    parts = [HEAD.rstrip()]
    for top in FOLDERS:
        files = sorted((ROOT / top).rglob('*.py'), key=lambda f: (f.parent, f.name))
        for folder in dict.fromkeys(file.parent for file in files):
            parts += [f'\n## {folder.relative_to(ROOT)}\n', '| file | |', '|---|---|']
            parts += [f'| `{file.name}` | {idea(file)} |' for file in files
                      if file.parent == folder and (file.name != '__init__.py' or idea(file))]
    return '\n'.join(parts) + '\n'


if __name__ == '__main__':
    PAGE.write_text(layout())
