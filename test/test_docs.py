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

"""The documentation hangs together: every link leads somewhere, every page is in the site."""

from pathlib import Path
import re

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')])
FENCE = re.compile(r'^```.*?^```', re.M | re.S)


def anchors(page: Path) -> set[str]:
    """List the anchors that GitHub makes of a page's headings."""
    found: dict[str, int] = {}
    for heading in re.findall(r'^#+ (.*)$', FENCE.sub('', page.read_text()), re.M):
        text = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading)
        name = re.sub(r'[^\w\- ]', '', text.lower()).strip().replace(' ', '-')
        found[name] = found.get(name, -1) + 1
    return {name if not number else f'{name}-{number}'
            for name, count in found.items() for number in range(count + 1)}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = re.sub(r'`[^`\n]*`', '', FENCE.sub('', page.read_text()))
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        if re.match(r'https?://', link):
            continue
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f'{page.name} links to {link}, which does not exist'
        assert ROOT in target.parents, f'{page.name} links out of the repository: {link}'
        if anchor:
            assert anchor in anchors(target), f'{page.name}: {target.name} has no #{anchor}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_module_that_is_run_exists_with_its_options(page):
    for module, rest in re.findall(
            r'python -m ((?:infmllm_ros|benchmarks|training|docs)[\w.]*)([^\n`#|;]*)',
            page.read_text()):
        place = ROOT.joinpath(*module.split('.'))
        files = [place.with_suffix('.py'), place / '__main__.py']
        files = [file for file in files if file.is_file()]
        assert files, f'{page.name}: there is no {module} to run'
        folder = place.parent if place.parent != ROOT else place
        source = ''.join(file.read_text() for file in [*files, *folder.glob('*.py')])
        for option in re.findall(r'(?<!\S)--[a-z][\w-]*', rest.partition('--ros-args')[0]):
            assert f"'{option}'" in source, f'{page.name}: {module} has no {option}'


def test_every_page_is_in_the_site_once():
    def leaves(entry):
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values() if isinstance(entry, dict) else entry:
                yield from leaves(value)

    listed = sorted(leaves(yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav']))
    pages = re.search(r'PAGES = ({.*?})', (ROOT / 'docs/site.py').read_text(), re.S)[1]
    made = yaml.safe_load(pages)
    linked = re.findall(r'\]\((\w+\.md)\)', (ROOT / 'README.md').read_text())
    assert linked and made.keys() == {'README.md', *linked}
    assert listed == sorted([*made.values(), *(page.name for page in ROOT.glob('docs/*.md'))])


def test_every_figure_is_shown():
    text = ''.join(page.read_text() for page in PAGES)
    for figure in ROOT.glob('docs/figures/*.png'):
        assert f'figures/{figure.name})' in text, f'no page shows {figure.name}'
