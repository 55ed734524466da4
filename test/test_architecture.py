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

"""The imports of the package point one way, as docs/architecture.md says."""

from __future__ import annotations

import ast
from pathlib import Path
import re
import runpy

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'infmllm_ros'
ROS = {'rclpy', 'std_msgs', 'std_srvs', 'sensor_msgs', 'geometry_msgs', 'nav_msgs', 'tf2_ros',
       'diagnostic_msgs', 'infmllm_msgs', 'rcl_interfaces', 'lifecycle_msgs', 'builtin_interfaces',
       'rosgraph_msgs', 'cv_bridge', 'ament_index_python'}
# what each part may never import, by the first words of the module's full name
FORBIDDEN = {
    'engine': ROS | {'infmllm_ros.node', 'infmllm_ros.replay', 'infmllm_ros.demo',
                     'infmllm_ros.images', 'infmllm_ros.bundled'},
    'bundled': ROS | {'infmllm_ros.node', 'infmllm_ros.replay', 'infmllm_ros.demo'},
    'engine/policies': {'infmllm_ros.engine.session', 'infmllm_ros.engine.asking',
                        'infmllm_ros.engine.cache', 'infmllm_ros.engine.models', 'transformers'},
    'engine/prefill': {'infmllm_ros.engine.session', 'infmllm_ros.engine.cache',
                       'infmllm_ros.engine.positions', 'infmllm_ros.engine.models',
                       'transformers'},
    'engine/models': {'infmllm_ros.engine.session', 'infmllm_ros.engine.asking',
                      'infmllm_ros.engine.cache', 'infmllm_ros.engine.policies'},
    'engine/rope.py': {'infmllm_ros.engine.cache', 'infmllm_ros.engine.positions'},
    'engine/attention.py': {'infmllm_ros.engine.cache', 'infmllm_ros.engine.positions',
                            'infmllm_ros.engine.prefill'},
    'engine/positions.py': {'infmllm_ros.engine.cache', 'infmllm_ros.engine.session'},
    'engine/cache.py': {'infmllm_ros.engine.session', 'infmllm_ros.engine.policies'},
    'engine/decode.py': {'infmllm_ros.engine.session', 'infmllm_ros.engine.cache'},
    'node': {'infmllm_ros.replay', 'infmllm_ros.demo'},
    'replay': {'infmllm_ros.demo'},
    'replay/sources': ROS | {'infmllm_ros.node', 'infmllm_ros.engine', 'torch',
                             *(f'infmllm_ros.replay.{part}' for part in (
                                 'records', 'report', 'plan', 'live', 'offline', 'batch'))},
    'replay/records': ROS | {'infmllm_ros.node', 'infmllm_ros.engine', 'torch',
                             'infmllm_ros.replay.sources', 'infmllm_ros.replay.report'},
    'replay/report': ROS | {'infmllm_ros.node', 'infmllm_ros.engine', 'torch',
                            'infmllm_ros.replay.sources'},
    'replay/live': {'infmllm_ros.replay.offline', 'infmllm_ros.replay.batch'},
    'replay/offline': {'infmllm_ros.replay.live', 'infmllm_ros.replay.batch'},
    'navigation': ROS | {'infmllm_ros.node', 'infmllm_ros.engine', 'torch'},
    'watches': ROS | {'infmllm_ros.node', 'infmllm_ros.engine', 'torch'},
    'images.py': ROS - {'cv_bridge'} | {'infmllm_ros.node', 'infmllm_ros.engine'},
}


def imported(path: Path) -> set[str]:
    """Name every module that a file imports when it runs, `if TYPE_CHECKING` left out."""
    package = ('infmllm_ros', *path.relative_to(PACKAGE).parts[:-1])
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            module = '.'.join((*base, *filter(None, [node.module])))
            names.update({module, *(f'{module}.{alias.name}' for alias in node.names)})
    return names


def refuse_imports(part: str, forbidden: set[str]) -> None:
    """Hold a file or a folder of the package to what it may never import."""
    place = PACKAGE / part
    files = [place] if place.is_file() else list(place.rglob('*.py'))
    assert files, f'{part} is not there: is docs/architecture.md still true?'
    for path in files:
        wrong = {name for name in imported(path) for banned in forbidden
                 if name == banned or name.startswith(banned + '.')}
        assert not wrong, f'{path.relative_to(PACKAGE)} imports {sorted(wrong)}'


def reached(path: Path, seen: set[Path]) -> set[str]:
    """Name every module that a file imports, and those of this package that it imports."""
    seen.add(path)
    names = imported(path)
    for name in list(names):
        words = name.split('.')[1:] if name.startswith('infmllm_ros.') else []
        places = [PACKAGE.joinpath(*words[:count + 1]) for count in range(len(words))]
        for file in (f for p in places for f in (p / '__init__.py', p.with_suffix('.py'))):
            if file.exists() and file not in seen:
                names |= reached(file, seen)
    return names


def test_what_says_to_know_no_ros_imports_none_by_any_way():
    found = [path for path in PACKAGE.rglob('*.py') if 'Nothing here knows ROS' in ' '.join(
        (ast.get_docstring(ast.parse(path.read_text())) or '').split())]
    assert {'worker.py', 'plan.py', 'picture.py'} <= {path.name for path in found}
    for path in found:
        wrong = {name for name in reached(path, set()) if name.split('.')[0] in ROS}
        assert not wrong, f'{path.relative_to(PACKAGE)} reaches {sorted(wrong)}'


@pytest.mark.parametrize('part', FORBIDDEN)
def test_imports_point_one_way(part):
    refuse_imports(part, FORBIDDEN[part])


def test_the_tiers_of_the_engine_import_downwards_as_the_page_says():
    page = (ROOT / 'docs/architecture.md').read_text()
    sentence = re.search(r'`engine\.session`(?:\s→\s`engine\.\{[^}]*\}`)+', page)[0]
    tiers = [re.findall(r'\w+', tier.replace('engine', '')) for tier in sentence.split('→')]
    assert tiers[0] == ['session'] and len(tiers) == 4 and 'rope' in tiers[-1]
    for number, tier in enumerate(tiers):
        above = {f'infmllm_ros.engine.{name}' for upper in tiers[:number] for name in upper}
        for name in tier:
            file = f'engine/{name}.py'
            refuse_imports(file if (PACKAGE / file).exists() else f'engine/{name}', above)


def test_outsiders_use_only_the_public_surface_of_the_engine():
    for path in PACKAGE.rglob('*.py'):
        if path.relative_to(PACKAGE).parts[0] in ('engine', 'bundled'):
            continue        # bundled makes checkpoints, with the tools that read them
        deep = {name for name in imported(path) if name.startswith('infmllm_ros.engine.')}
        public = {f'infmllm_ros.engine.{name}' for name in _surface()}
        assert deep <= public, f'{path.relative_to(PACKAGE)} reaches into {sorted(deep - public)}'


def _surface() -> set[str]:
    tree = ast.parse((PACKAGE / 'engine' / '__init__.py').read_text())
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign)
             and node.targets[0].id == '__all__']
    return {item.value for item in lists[0].elts}


def test_the_page_of_the_layout_is_what_the_code_says():
    make = runpy.run_path(str(ROOT / 'docs/layout.py'))
    assert (ROOT / 'docs/layout.md').read_text() == make['layout'](), 'run python docs/layout.py'


def test_every_program_says_what_it_is_for():
    for top in ('infmllm_ros', 'training', 'benchmarks', 'examples'):
        for file in (ROOT / top).rglob('*.py'):
            tree = ast.parse(file.read_text())
            assert ast.get_docstring(tree) or not tree.body, f'{file.relative_to(ROOT)} does not'


def test_files_that_the_architecture_names_exist():
    page = (ROOT / 'docs/architecture.md').read_text()
    places = (ROOT, PACKAGE, *(PACKAGE / part for part in ('engine', 'node', 'replay')))
    named = re.findall(r'`((?:\w+/)*\w+(?:\.py|/))`', page)
    assert {'cache.py', 'policies/', 'models/examine.py', 'test/test_architecture.py'} <= {*named}
    for name in named:
        assert any((place / name).exists() for place in places), f'no {name}'
    diagram = page.split('```')[1]
    for name in re.findall(r'\b(?:engine|node)/\w+', diagram):
        assert (PACKAGE / name).exists() or (PACKAGE / f'{name}.py').exists(), f'no {name}'


def test_the_architecture_names_every_part():
    page = (ROOT / 'docs/architecture.md').read_text()
    parts = {part.name for part in PACKAGE.iterdir() if (part / '__init__.py').exists()}
    assert parts >= {'engine', 'node', 'replay'}
    for part in parts:
        assert re.search(rf'`{part}/?`|`{part}\.', page), f'{part} is not in it'
