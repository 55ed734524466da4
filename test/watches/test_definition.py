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

"""Files of watches: what is read, and what is said of one that is wrong."""

from dataclasses import fields, MISSING
from pathlib import Path
import re

from hypothesis import given
from hypothesis import strategies as st
from infmllm_ros.watches import read_watches, Watch, WatchError
import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / 'config' / 'watches.yaml'
PAGE = (ROOT / 'docs' / 'watches.md').read_text()
GOOD = {'name': 'light', 'question': 'Which?', 'period': 1.0}


@pytest.fixture
def file(tmp_path):
    """Write a file of watches."""
    def write(text):
        path = tmp_path / 'watches.yaml'
        path.write_text(text)
        return path
    return write


def test_the_example_is_read():
    light, gripper = read_watches(EXAMPLE)
    assert light == Watch('traffic_light', 'What colour is the light?',
                          ('red', 'yellow', 'green', 'none'), period=0.5, threshold=0.6,
                          hysteresis=0.2)
    assert (gripper.name, gripper.every, gripper.hold) == ('gripper', 5, 2)


def test_every_key_arrives(file):
    [watch] = read_watches(file(
        '- {name: a, question: Where, schema: {type: object}, max_tokens: 9, period: 2,'
        ' camera: front}'))
    assert watch == Watch('a', 'Where', schema='{"type": "object"}', max_tokens=9, period=2.0,
                          camera='front')
    [watch] = read_watches(file(
        '- {name: a, question: Where, choices: [l, r], every: 3, threshold: 1, hysteresis: 0,'
        ' hold: 4}'))
    assert watch == Watch('a', 'Where', ('l', 'r'), every=3, threshold=1.0, hold=4)


@pytest.mark.parametrize(('watch', 'named'), [
    ('name: a, question: Q, perod: 1', ['a', 'perod', 'did you mean period']),
    ('name: a, question: Q, banana: 1', ['a', 'banana', 'known are', 'hysteresis']),
    ('name: a, period: 1', ['a', 'question', 'add it']),
    ('question: Q, period: 1', ['number 1', 'name', 'add it']),
    ('name: a, question: " ", period: 1', ['a', 'question', 'empty']),
    ('name: 7, question: Q, period: 1', ['7', 'name', 'int', 'quotes']),
    ('name: a/b, question: Q, period: 1', ["'a/b'", 'letters']),
    ('name: 1st, question: Q, period: 1', ["'1st'", 'a letter first']),
    (f'name: {"a" * 61}, question: Q, period: 1', ['60']),
    ('name: a, question: Q', ['a', 'period', 'every']),
    ('name: a, question: Q, period: 1, every: 2', ['period is 1.0', 'every 2', 'one of them']),
    ('name: a, question: Q, period: -1', ['period is -1.0', 'above 0']),
    ('name: a, question: Q, period: .nan', ['nan']),
    ('name: a, question: Q, period: 1 s', ["period is '1 s'", 'a number']),
    ('name: a, question: Q, every: -2', ['every is -2', '1 or more']),
    ('name: a, question: Q, every: 1.5', ['every is 1.5', 'whole number']),
    ('name: a, question: Q, every: true', ['every is True', 'a truth value']),
    ('name: a, question: Q, period: 1, choices: [b]', ["['b']", 'two or more']),
    ('name: a, question: Q, period: 1, choices: b', ["choices is 'b'", 'list']),
    ('name: a, question: Q, period: 1, choices: [yes, no]', ['True', 'quotes']),
    ('name: a, question: Q, period: 1, choices: [b, b]', ["['b', 'b']", 'differ']),
    ('name: a, question: Q, period: 1, choices: [b, ""]', ['empty']),
    ('name: a, question: Q, period: 1, threshold: 0.5', ['threshold is 0.5', 'add choices']),
    ('name: a, question: Q, period: 1, hold: 2', ['hold is 2', 'add choices']),
    ('name: a, question: Q, period: 1, choices: [b, c], threshold: 1.5', ['1.5', '0 and 1']),
    ('name: a, question: Q, period: 1, choices: [b, c], hysteresis: -1', ['-1', '0 and 1']),
    ('name: a, question: Q, period: 1, choices: [b, c], hold: 0', ['hold is 0', '1 or more']),
    ('name: a, question: Q, period: 1, choices: [b, c], schema: "{}"', ['schema', 'choices']),
    ('name: a, question: Q, period: 1, max_tokens: -1', ['max_tokens is -1', '0 or more']),
])
def test_a_wrong_watch_is_named_with_key_value_and_remedy(file, watch, named):
    with pytest.raises(WatchError) as error:
        read_watches(file('- {' + watch + '}'))
    assert '\n' not in str(error.value)
    for text in ['watches.yaml', *named]:
        assert text in str(error.value)


@pytest.mark.parametrize(('text', 'named'), [
    ('', ['nothing', '- name']), ('watches: []', ['a mapping', '- name']),
    ('- light', ['number 1', 'text']), ('- [', ['no valid YAML']),
    ('- {name: a, question: Q, period: 1}\n- {name: a, question: R, every: 1}',
     ["'a'", 'differ', 'rename'])])
def test_a_wrong_file_is_named(file, text, named):
    with pytest.raises(WatchError) as error:
        read_watches(file(text))
    for part in ['watches.yaml', *named]:
        assert part in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(WatchError, match='/no/such.yaml.*parameter watches'):
        read_watches('/no/such.yaml')


@given(st.text('aZ_09/~{} -.é', max_size=8))
def test_what_is_allowed_as_a_name_ros_allows_as_a_topic(name):
    topics = pytest.importorskip('rclpy.validate_topic_name', reason='needs ROS 2 (rclpy)')
    try:
        Watch(**{**GOOD, 'name': name})
    except WatchError:
        return
    assert topics.validate_topic_name(f'watch/{name}')


def test_the_page_lists_every_key_with_its_default_and_an_example_that_is_true():
    stated = dict(re.findall(r'^\| `(\w+)` \| (.*?) ?\|', PAGE, re.M))
    assert list(stated) == [field.name for field in fields(Watch)]
    for field in fields(Watch):
        if stated[field.name] not in ('', 'none', 'any'):
            assert str(field.default).lower() == stated[field.name]
        else:
            assert field.default is MISSING or not field.default
    [shown] = yaml.safe_load(re.search(r'```yaml\n(.*?)```', PAGE, re.S)[1])
    assert shown == yaml.safe_load(EXAMPLE.read_text())[0]
