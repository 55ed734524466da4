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

import ast
from importlib.util import find_spec
from pathlib import Path
import re
import runpy
import sys

from catkin_pkg.package import parse_package
import infmllm_ros
import pytest
import setuptools

pytestmark = pytest.mark.linter
ROOT = Path(__file__).parents[1]
# The rosdep keys of modules that are no ROS packages; None: comes with another one.
KEYS = {
    'PIL': 'python3-pil',
    'apsw': None,           # with rosbags, as the next is
    'backports': None,
    'compression': None,    # of Python 3.14
    'cv2': 'python3-opencv',
    'huggingface_hub': None,
    'jinja2': 'python3-jinja2',
    'jsonschema': 'python3-jsonschema',
    'llguidance': None,     # optional, and no rosdep key
    'triton': None,         # likewise
    'ray': None,            # likewise
    'lz4': None,            # with rosbags
    'markupsafe': None,     # of jinja2
    'numpy': 'python3-numpy',
    'referencing': None,    # of jsonschema
    'regex': None,          # of transformers
    'rosbags': 'python3-rosbags-pip',
    'safetensors': None,
    'tf2_ros': 'tf2_ros_py',
    'tokenizers': None,
    'torch': 'python3-pytorch-pip',
    'transformers': 'python3-transformers-pip',
    'yaml': 'python3-yaml',
}


@pytest.fixture
def setup(monkeypatch):
    """Return what setup.py hands to setuptools."""
    given = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, 'setup', lambda **fields: given.update(fields))
    runpy.run_path('setup.py')
    return given


def imported(*folders):
    """Collect the top-level names of all absolute imports in the folders."""
    names = set()
    for file in (f for folder in folders for f in (ROOT / folder).rglob('*.py')):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module)
    return {name.split('.')[0] for name in names}


def test_one_version_everywhere(setup):
    version = setup['version']
    assert infmllm_ros.__version__ == version
    for folder in (ROOT, ROOT / 'infmllm_msgs'):
        assert parse_package(str(folder / 'package.xml')).version == version
        heading = re.search(r'^(.+)\n-+$', (folder / 'CHANGELOG.rst').read_text(), re.M)[1]
        assert heading == 'Forthcoming' or heading.split()[0] == version
    assert f'version = "{version}"' in (ROOT / 'infmllm_msgs/pyproject.toml').read_text()


def test_every_console_script_exists(setup):
    makefile = (ROOT / 'Makefile').read_text()
    linked = re.search(r'addprefix \.\./\.\./bin/,([\w ]+)', makefile)[1]
    for script in setup['entry_points']['console_scripts']:
        module, function = re.fullmatch(r'\w+ = ([\w.]+):(\w+)', script).groups()
        body = ast.parse(Path(find_spec(module).origin).read_text()).body
        assert function in {node.name for node in body if isinstance(node, ast.FunctionDef)}
        assert script.split()[0] in linked.split(), f'`make setup` links no {script}'


def test_every_file_that_runs_is_installed(setup):
    installed = {file for _, files in setup['data_files'] for file in files}
    wanted = {*ROOT.glob('config/*'), *ROOT.glob('launch/*.py'), ROOT / 'package.xml'}
    assert {str(file.relative_to(ROOT)) for file in wanted} <= installed
    patterns = setup['package_data']['infmllm_ros']
    shipped = {file for pattern in patterns for file in (ROOT / 'infmllm_ros').glob(pattern)}
    data = {file for file in (ROOT / 'infmllm_ros').rglob('*') if file.is_file()
            and file.suffix not in ('.py', '.pyc')}
    assert shipped == data != set()
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / 'infmllm_ros').rglob('*.py')}
    assert {'.'.join(folder.parts) for folder in folders} == set(setup['packages'])


def test_package_xml_names_what_is_imported():
    mine = {'infmllm_ros'} | sys.stdlib_module_names
    needed = {KEYS.get(name, name) for name in imported('infmllm_ros', 'launch') - mine} - {None}
    declared = {d.name for d in parse_package(str(ROOT / 'package.xml')).exec_depends}
    assert declared == needed


def test_messages_are_built_against_the_wheels_that_run():
    build = (ROOT / 'infmllm_msgs/pyproject.toml').read_text()
    for pin in re.findall(r'ros-kilted-\w+-(?:interfaces|msgs)==[\d.]+', build):
        assert pin in (ROOT / 'requirements-ros.txt').read_text()


def test_no_file_but_the_bundled_model_is_larger_than_a_megabyte():
    skip = {'build', 'install', 'log'}
    files = (f for f in ROOT.rglob('*') if not {p for p in f.relative_to(ROOT).parts
                                                if p[0] == '.' or p in skip})
    large = [f for f in files if f.is_file() and f.stat().st_size > 1_000_000]
    model = ROOT / 'infmllm_ros/bundled/model'
    assert not [f for f in large if f.parent != model]
    assert sum(f.stat().st_size for f in large) <= 12_000_000
