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

"""A hook of MkDocs: the pages that lie beside `docs/`, and the files that pages link to."""

from __future__ import annotations

from pathlib import Path
import re
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {'README.md': 'index.md', 'CONTRIBUTING.md': 'contributing.md',
         'QUALITY_DECLARATION.md': 'quality.md', 'SECURITY.md': 'security.md'}
OUTSIDE = re.compile(r'\]\(\.\./([^)#]+)')


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside `docs/`."""
    for name, page in PAGES.items():
        text = re.sub(r'\]\((?!https?:|#|docs/)', '](../', (ROOT / name).read_text())
        files.append(File.generated(config, page, content=text.replace('](docs/', '](')))
    linked = {link for page in [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')]
              for link in re.findall(r'\]\((?:\.\./)?([^):#]+)', page.read_text())
              if (ROOT / link).is_file() and not link.startswith('docs/')}
    for name in sorted(linked - PAGES.keys()):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links that leave `docs/` to where those files are in the site."""
    return OUTSIDE.sub(lambda link: f']({PAGES.get(link[1], link[1])}', markdown)
