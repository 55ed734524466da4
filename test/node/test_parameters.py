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

"""The table of parameters, and all that is made from it."""

from dataclasses import fields, FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

from infmllm_ros.engine import FlexPrefill, make_policy, POLICIES
from infmllm_ros.node import parameters, parameters_page
from infmllm_ros.node.parameters import Option, ParameterError, Settings, TABLE
import pytest
from stand_ins import Node
import yaml

FILE = Path(__file__).parents[2] / 'config' / 'infmllm.yaml'
PAGE = Path(__file__).parents[2] / 'docs' / 'parameters.md'


def test_the_parameter_file_is_the_table():
    assert FILE.read_text() == parameters.render(), (
        'config/infmllm.yaml differs from the table: python -m infmllm_ros.node.parameters > it')


def test_the_page_is_the_table():
    assert PAGE.read_text() == parameters_page.render(), (
        'docs/parameters.md differs from the table: python -m infmllm_ros.node.parameters_page > '
        'it')


def test_the_page_names_every_parameter_once_with_its_default_and_when_it_may_change():
    when = {'autostart': 'start', 'model': 'configure', 'temperature': 'any time',
            'budget_tokens': 'lower: any time'}
    lines = [[cell.strip() for cell in line.strip('|').split(' | ')]
             for line in PAGE.read_text().splitlines() if line.startswith('| `')]
    assert sorted(cells[0] for cells in lines) == sorted(f'`{name}`' for name in TABLE)
    for name, default, _, changes, *_ in lines:
        option = TABLE[name.strip('`')]
        value = yaml.safe_load(default.strip('`'))
        assert (tuple(value) if isinstance(value, list) else value) == option.default
        assert changes == when.get(option.name, changes)
    assert max(map(len, lines)) == min(map(len, lines)) == 5


def test_the_parameter_file_holds_every_parameter_with_its_default_and_type():
    values = yaml.safe_load(parameters.render())['/**']['ros__parameters']
    flat = {}
    for name, value in values.items():
        inner = value if isinstance(value, dict) else {None: value}
        flat.update({f'{name}.{k}' if k else name: tuple(v) if isinstance(v, list) else v
                     for k, v in inner.items()})
    assert flat == {name: option.default for name, option in TABLE.items()}
    assert {n: type(v) for n, v in flat.items()} == {
        n: type(o.default) for n, o in TABLE.items()}
    assert max(map(len, parameters.render().splitlines())) <= 99


def test_every_parameter_is_described_and_its_default_is_allowed():
    for option in TABLE.values():
        assert option.description.strip().endswith('.'), option.name
        assert not option.problem(option.default), option.name


def test_every_hyper_parameter_of_every_policy_is_a_parameter():
    for name, policy in POLICIES.items():
        for field in fields(policy):
            assert field.name == 'budget' or f'{name}.{field.name}' in TABLE


@pytest.mark.parametrize('policy', POLICIES)
def test_the_settings_make_every_policy(policy):
    settings = parameters.snapshot(Node(policy=policy))
    assert make_policy(settings.policy, budget=500, **settings.policy_fields).budget == 500


def test_the_settings_make_the_prefill():
    settings = parameters.snapshot(Node(flex__gamma=0.9, flex__slash='one'))
    assert settings.prefill == 'dense'
    assert FlexPrefill(**settings.flex_fields) == FlexPrefill(gamma=0.9, slash='one')


def test_settings_are_a_frozen_copy():
    settings = parameters.snapshot(Node(model='a model', saddle__sinks=7))
    assert settings.model == 'a model'
    assert settings.policy_fields['sinks'] == 7
    assert Settings() == parameters.snapshot(Node()) or settings.policy == 'saddle'
    with pytest.raises(FrozenInstanceError):
        settings.model = 'another'


@pytest.mark.parametrize(('value', 'named'), [
    (2.5, ['2.5', '0.0 to 2.0', 'default is 1.0']),
    (-0.1, ['-0.1', '0.0 to 2.0']),
    (float('nan'), ['nan', '0.0 to 2.0']),
    (1, ['1', 'integer', 'double', 'like 1.0']),
    ('1', ["'1'", 'string', 'double', 'like 1.0']),
    (True, ['True', 'bool', 'double']),
    ([1.0], ['array', 'double']),
])
def test_a_wrong_value_is_named_with_its_limit_and_a_remedy(value, named):
    problem = Option('x', 1.0, 'A number.', 0.0, 2.0).problem(value)
    assert '\n' not in problem
    for text in ['parameter x', *named]:
        assert text in problem


def test_an_unknown_choice_names_the_known_ones():
    problem = TABLE['dtype'].problem('int3')
    for text in ('dtype', 'int3', 'bfloat16'):
        assert text in problem
    assert not TABLE['dtype'].problem('bfloat16')


def test_check_finds_the_wrong_choice():
    parameters.check(Node())
    with pytest.raises(ParameterError, match='nonsense'):
        parameters.check(Node(policy='nonsense'))


def test_when_a_parameter_may_change():
    refusal, worker = parameters.refusal, SimpleNamespace(
        misfit=lambda budget: '' if budget < 200 else 'too much')
    assert not refusal('temperature', 0.5, worker)
    assert not refusal('model', 'm', None)
    assert 'clean up' in refusal('model', 'm', worker)
    assert 'restart' in refusal('autostart', True, None)
    assert '5.0' in refusal('temperature', 9.0, None)
    assert not refusal('use_sim_time', True, worker)
    assert not refusal('budget_tokens', 100, worker)
    assert not refusal('budget_tokens', 300, None)
    assert 'too much; for a larger memory' in refusal('budget_tokens', 300, worker)
    assert '16777216' in refusal('budget_tokens', -1, worker)


def test_a_misspelt_parameter_is_pointed_out_and_those_of_others_are_not():
    lines = parameters.misspelt(['saddle.sink', 'budget_token', 'use_sim_time', 'robot_width',
                                 'model', 'qos_overrides./image.subscription.depth'])
    assert len(lines) == 2
    assert 'saddle.sinks' in lines[0]
    assert 'budget_tokens' in lines[1]
