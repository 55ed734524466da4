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

"""The README is true: what it names exists, with the defaults that it states."""

from __future__ import annotations

from pathlib import Path
import re

from infmllm_ros.bundled.tiny import FAMILIES, make_tiny
from infmllm_ros.engine import load_model, POLICIES
from infmllm_ros.engine.models.load import ADAPTERS
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()


def rows(title: str) -> list[list[str]]:
    """Read the cells of the table whose first header cell is `title`."""
    table = re.search(rf'^\| {re.escape(title)} \|.*?(?=\n\n)', README, re.M | re.S)
    assert table, f'the README has no table {title!r}'
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in table[0].splitlines()[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r'`([^`]+)`', cell)


def test_make_targets_and_files_exist():
    makefile = (ROOT / 'Makefile').read_text()
    targets = re.findall(r'(?:^|`)make (\w+)', README, re.M)
    assert {'demo', 'test'} <= set(targets)
    for target in targets:
        assert re.search(rf'^{target}:', makefile, re.M), f'no target {target}'
    for link in re.findall(r'\]\(([^)]+)\)', README):
        path = link.partition('#')[0]
        assert link.startswith('https://') or (ROOT / path).exists(), f'no file {link}'
    for script in re.findall(r'python (\S+\.py)', README):
        assert (ROOT / script).exists(), f'no script {script}'


def test_parameters_have_the_defaults_it_states():
    parameters = pytest.importorskip('infmllm_ros.node.parameters')
    for name, default, _ in rows('parameter'):
        option = parameters.TABLE[names(name)[0]]
        stated = names(default)[0]
        shown = parameters.yaml_text(option.default)
        assert stated == shown, f'{option.name} is {shown} by default'


def test_topics_services_and_launch_arguments_are_those_of_the_node():
    sources = ''.join(path.read_text() for path in (ROOT / 'infmllm_ros/node').glob('*.py'))
    for cell, *_ in rows('topic or service'):
        for name in names(cell):
            assert name in sources, f'the node has no {name}'
    launch = (ROOT / 'launch/infmllm.launch.py').read_text()
    command = re.search(r'ros2 launch infmllm_ros infmllm.launch.py (.*)', README)[1]
    for argument in re.findall(r'(\w+):=', command):
        assert f"'{argument}'" in launch, f'the launch file has no argument {argument}'


def test_policies_and_families_are_all_there():
    assert {names(cell)[0] for cell, *_ in rows('name')} == set(POLICIES)
    assert len(rows('name')) == len(POLICIES)
    stated = re.search(r'Unmodified Hugging Face models.*?\*\*: (.*?)\n\*', README, re.S)[1]
    sighted, text = (
        {re.sub(r'[\W_]', '', word).lower() for word in part.split(',')}
        for part in re.split(r'; text-only,.* such as', stated, flags=re.S))
    assert sighted == {name.replace('_', '') for name in ADAPTERS if ADAPTERS[name].sees}
    assert text <= {name.replace('_', '') for name in FAMILIES}


def test_policies_have_the_results_of_the_exam():
    exam = (ROOT / 'docs/memory_exam.md').read_text().partition('policy_exam: begin')[2]
    found = {cells[0]: cells for cells in (
        [cell.strip() for cell in line.strip('|').split('|')] for line in exam.splitlines())}
    for name, _, seen, told, frame, _ in rows('name'):
        policy = names(name)[0]
        if policy != 'full':        # it cannot sit an exam of an hour
            head = found['policy']
            assert [seen, told, frame] == [
                found[policy][head.index('back, beyond')].split()[0],
                found[policy][head.index('late')].split()[0],
                f"{found[policy][head.index('frame, ms')]} ms"], policy


def test_the_picture_is_described_by_what_was_measured():
    frames, tokens, budget = re.search(
        r'drive of ([\d,]+) frames, ([\d,]+) tokens, through a memory of (\d+)', README).groups()
    page = (ROOT / 'docs/memory.md').read_text()
    assert re.search(
        rf'{frames} frames and \d+ told facts were {tokens} tokens; {budget} are held', page)
    assert re.search(r'\| what came first \| .* \| \w+ \| right \|', page)


def test_what_the_demo_prints_is_what_it_says():
    demo = (ROOT / 'infmllm_ros/demo.py').read_text()
    printed = re.findall(r'^  ok +(\w+(?: \w+)?)  ', README, re.M)
    assert len(printed) > 5
    for what in printed:
        assert f"('{what}'," in demo


def test_the_engine_example_runs(tmp_path, capsys, monkeypatch):
    example = re.search(r'```python\n(.*?)```', README, re.S)[1]
    folder = make_tiny('qwen3_vl', tmp_path / 'model')
    monkeypatch.setattr('infmllm_ros.engine.load_model', lambda name: load_model(folder))
    camera = [(number * 10 ** 9, np.full((48, 64, 3), number, np.uint8)) for number in range(3)]
    scope = {'camera': camera}
    exec(compile(example.replace('4096', '2048'), 'README.md', 'exec'), scope)
    assert scope['answer'].choice in (0, 1)
    assert scope['session'].stats().frames_seen == 3
    assert capsys.readouterr().out
