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

"""The page of reliability is true: each fault names tests that are there."""

from __future__ import annotations

import ast
import json
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs/reliability.md').read_text()


def rows(title: str) -> list[list[str]]:
    """Read the cells of the table whose first header cell is `title`."""
    table = re.search(rf'^\| {re.escape(title)} \|.*?(?=\n\n)', PAGE, re.M | re.S)[0]
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in table.splitlines()[2:]]


def named_in(file: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / 'test' / file).read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith('test_')}


@pytest.mark.parametrize('row', rows('fault'), ids=lambda row: row[0])
def test_every_fault_names_what_is_seen_what_stays_and_a_test(row):
    fault, seen, stays, proof = row
    assert fault and seen and stays
    named = re.findall(r'`([\w/.]+)::(\w+)`', proof)
    assert named
    for file, name in named:
        assert name in named_in(file), f'{file} has no {name}'


def test_every_test_of_faults_is_named():
    for file in sorted((ROOT / 'test/node').glob('test_faults*.py')):
        missing = {name for name in named_in(f'node/{file.name}')
                   if f'`node/{file.name}::{name}`' not in PAGE}
        assert not missing, f'{file.name}: {missing}'


def test_watchdog_actions_are_those_of_the_node():
    watchdog = pytest.importorskip('infmllm_ros.node.watchdog')
    assert [row[0].strip('`') for row in rows('`watchdog_action`')] == list(watchdog.ACTIONS)
    assert f'status {watchdog.STATUS}' in PAGE


def test_the_soak_is_the_last_result():
    pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
    from benchmarks.soak import RESULT, table
    result = json.loads(RESULT.read_text())
    assert table(result) in PAGE
    assert result['minutes'] >= 15
    frames, questions = result['frames'], result['questions']
    assert frames['received'] == sum(frames.values()) - frames['sent'] - frames['received']
    assert questions['received'] == questions['sent'] == sum(questions['answered'])
    assert questions['without reply'] == questions['with more than one'] == 0


def test_the_recovery_is_the_last_result():
    pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
    from benchmarks.recovery import CALM, RESULT, table
    result = json.loads(RESULT.read_text())
    assert table(result) in PAGE
    assert result['status'] == result['tracebacks'] == 0
    soaked = json.loads((ROOT / 'benchmarks/soak.json').read_text())['faults']
    assert result['times_s'].keys() == {CALM, *soaked}, 'each kind of fault'
