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

"""Whatever stands in a file that is replayed or asked from, it is read or refused by name."""

import json
from pathlib import Path
import tempfile

from cases import ANY, cases, HOSTILE, one_line, tried
from hypothesis import example, given
from hypothesis import strategies as st
from infmllm_ros.replay.plan import Plan
from infmllm_ros.replay.plan_file import PlanError, read_plan
from infmllm_ros.replay.sources import open_source, SourceError
from infmllm_ros.replay.sources.torn import MAGIC
from test_torn import CAMERAS, KINDS, make_sqlite, ROUNDS
import yaml

FOLDER = Path(tempfile.mkdtemp())

# ---- questions
TIMES = st.sampled_from(['end', 0, 1.5, -1, '1e-9', '1e999', 'nan', [1, 2], ['end', 'end'], []])
ENTRIES = st.dictionaries(
    st.sampled_from(['name', 'question', 'at', 'frame', 'every', 'from', 'until', 'camera',
                     'choices', 'schema', 'max_tokens', 'deadline', 'remember', 'expected', 'text',
                     'at\nfrom']),
    ANY | TIMES | HOSTILE | st.sampled_from([
        'a', 'yes', True, 7, ['yes', 'no'], {'type': 'integer'}, '{"enum": [1, 2]}', '[1', 'NaN']),
    max_size=5)
PLANS = st.fixed_dictionaries({'questions': st.lists(ENTRIES | ENTRIES.map(
    lambda entry: {'question': 'what?', 'at': 1, **entry}), max_size=3)}, optional={
        'tell': st.lists(ENTRIES, max_size=2), 'told': ANY})


def in_yaml(value):
    """Write a value as YAML, or as JSON, which YAML takes too."""
    return yaml.safe_dump(value).encode() if value else json.dumps(value).encode()


@cases(60)
@given(text=HOSTILE.map(lambda text: text.encode('utf-8', 'replace')) | st.binary(max_size=60)
       | ANY.map(json.dumps).map(str.encode) | PLANS.map(in_yaml))
@example(text=b'[' * 9000)
@example(text=b'&a [*a]')
@example(text=b'? &a [*a]\n: 1')
@example(text=b'questions: [{question: a, at: 1, schema: &a {b: *a}}]')
@example(text=b'questions: [{question: a, at: 1, expected: &a [*a]}]')
@example(text=b'questions: [{question: a, at: 1, schema: {}, expected: "%s"}]' % (b'[' * 9000))
@example(text=b'questions: [{question: a, at: 1, schema: {? [a] : 1}}]')
@example(text=b'questions: [{question: a, at: 1, ? "b\\nc" : 1}]')
@example(text=b'questions: [{question: a, at: 1, schema: {a: &a [l,l]' + b''.join(
    b', %c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]' % (98 + n, 98 + n, *[97 + n] * 8)
    for n in range(12)) + b'}}]')
@example(text=b'questions: [{question: a, at: "%s"}]' % (b'1' * 9000))
@example(text=b'# ' * 60000)
def test_any_file_of_questions(text):
    path = FOLDER / 'questions.yaml'
    path.write_bytes(text)
    tried['files of questions'] += 1
    try:
        assert isinstance(read_plan(path, ['', 'front']), Plan)
    except PlanError as error:
        one_line(error)


# ---- bags
BAGS = {f'{kind}.mcap': content for kind, content in KINDS.items()}
BAGS['sqlite.db3'] = make_sqlite(FOLDER / 'sqlite.db3', 512)


def records(content):
    """List where the lengths of an MCAP file's records are; of another file, nothing."""
    place, found = 8, [0]
    while content.startswith(MAGIC) and place < len(content):
        found.append(place + 1)
        place += 9 + int.from_bytes(content[place + 1:place + 9], 'little')
    return found


def damage(draw, content):
    """Change, cut, insert or remove some bytes, or write a wild length somewhere."""
    wild = st.sampled_from([0, 1, 21, 2**31, 2**63, 2**64 - 1]).map(
        lambda length: length.to_bytes(8, 'little'))
    places = st.sampled_from(records(content)) | st.integers(0, len(content))
    content = bytearray(content)
    for at in draw(st.lists(places, min_size=1, max_size=3)):
        some = draw(wild | st.binary(max_size=9))
        end = draw(st.sampled_from([at, at + len(some), at + 1, at + 500, len(content)]))
        content[at:end] = some
    return bytes(content)


@cases(60)
@given(data=st.data(), name=st.sampled_from(sorted(BAGS)))
def test_any_damage_of_a_bag(data, name):
    path = FOLDER / name
    path.write_bytes(damage(data.draw, BAGS[name]))
    tried['bags, damaged'] += 1
    try:
        source = open_source(path, data.draw(st.sampled_from([CAMERAS, None])))
        frames = list(source)
    except SourceError as error:
        one_line(error)
        return
    assert '\n' not in source.problem
    assert len(frames) <= 2 * ROUNDS + 3, 'no more than it had, and what an insertion may repeat'
