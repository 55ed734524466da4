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

"""Answers that must be JSON of a given form: enforced, or checked with the raw text kept."""

import json
import sys
import urllib.request

from hypothesis import given
from hypothesis import strategies as st
from infmllm_ros.engine import QuestionError
from infmllm_ros.engine.schema import Schema
import pytest
from tape import says
from test_answers import lived, QUESTION
from zoo import load

jsonschema = pytest.importorskip('jsonschema')
FORM = {
    'type': 'object', 'additionalProperties': False, 'required': ['light', 'cars'],
    'properties': {'light': {'enum': ['red', 'green', 'none']},
                   'cars': {'type': 'integer', 'minimum': 0, 'maximum': 99}}}
SCHEMA = json.dumps(FORM)


@pytest.mark.parametrize('family', ['llama', 'qwen3', 'smolvlm', 'gemma3'])
def test_random_words_become_json_of_the_form(family):
    target = lived(family, max_answer=64)
    held = target.kept(0)
    for seed in range(4):
        asking = target.ask(QUESTION, schema=SCHEMA, temperature=5.0, seed=seed)
        pieces = ''.join(asking)
        answer = asking.answer
        value = json.loads(answer.text)
        assert value.keys() == {'light', 'cars'} and value['cars'] in range(100)
        assert value['light'] in ('red', 'green', 'none')
        assert (answer.finish, answer.problem, answer.valid) == ('stop', '', True)
        assert pieces == answer.text == json.dumps(value, ensure_ascii=False)
    assert target.kept(0).equal(held)


def test_json_that_does_not_come_to_its_end_is_not_valid():
    target = lived('llama')
    answer = target.answer(QUESTION, schema=SCHEMA, max_tokens=3)
    assert answer.finish == 'length' and not answer.valid
    assert answer.text.startswith('{') and 'no JSON' in answer.problem
    assert not target.answer(QUESTION, max_tokens=3).valid


@pytest.mark.parametrize(('said', 'problem'), [
    ('{"light": "red", "cars": 3}', ''), ('{"light": "red"}', "'cars' is a required"),
    ('{"light": "blue", "cars": 3}', '$.light'), ('The light is red.', 'no JSON'),
    ('{"light": "red", "cars": NaN}', 'NaN'), ('[' * 30, 'no JSON')])
def test_without_a_guide_the_answer_is_checked_and_kept_as_it_is(monkeypatch, said, problem):
    monkeypatch.setitem(sys.modules, 'llguidance', None)    # an import of it fails
    model = load('llama')
    tokens = model.tokenizer(said, add_special_tokens=False).input_ids
    target = lived('llama', max_answer=len(tokens))
    with says(model, tokens):
        answer = target.answer(QUESTION, schema=SCHEMA)
    assert answer.text == said
    assert answer.valid == (not problem)
    assert problem in answer.problem and '\n' not in answer.problem
    assert len(answer.problem) < 300


@pytest.mark.parametrize('schema', [
    'no JSON', '[]', '"text"', '{"type": "no such type"}', '{"type": ', '[' * 100000,
    '{"properties": 3}'])
def test_what_is_no_schema_is_refused(schema):
    target = lived('llama', frames=1)
    held = target.kept(0)
    with pytest.raises(QuestionError, match='no JSON Schema') as refusal:
        target.answer(QUESTION, schema=schema)
    assert '\n' not in str(refusal.value) and len(str(refusal.value)) < 300
    assert target.kept(0).equal(held)


def test_a_schema_and_choices_are_refused():
    with pytest.raises(QuestionError, match='one of them'):
        lived('llama', frames=1).answer(QUESTION, schema=SCHEMA, choices=['yes', 'no'])


def test_nothing_is_fetched_for_a_reference(monkeypatch):
    fetched = []
    monkeypatch.setattr(urllib.request, 'urlopen', lambda *args, **_: fetched.append(args))
    answer = lived('llama', frames=1).answer(
        QUESTION, schema='{"$ref": "http://127.0.0.1:9/form.json"}', max_tokens=2)
    assert not fetched and not answer.valid


def test_without_jsonschema_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'jsonschema', None)
    with pytest.raises(QuestionError, match='pip install jsonschema'):
        lived('llama', frames=1).answer(QUESTION, schema=SCHEMA)


DOUBLING = {'$ref': '#/$defs/30', '$defs': {'0': {'type': 'string'}, **{
    str(n): {'allOf': [{'$ref': f'#/$defs/{n - 1}'}] * 2} for n in range(1, 31)}}}


@pytest.mark.parametrize(('form', 'said'), [
    ({'pattern': '^(a|a)*$'}, 'a' * 40 + 'b'),
    ({'patternProperties': {'^(a|a)*$': {}}}, {'a' * 40 + 'b': 1}),
    ({'patternProperties': {'^(a|a)*$': {}}, 'additionalProperties': False}, {'a' * 40 + 'b': 1}),
    (DOUBLING, 'a'),
], ids=['pattern', 'names', 'other names', 'references'])
def test_a_check_that_would_take_for_ever_ends(form, said):
    assert 'takes longer than' in Schema(json.dumps(form)).problem(json.dumps(said))


@pytest.mark.parametrize(('form', 'enforced'), [
    ({'multipleOf': 0.25}, True), ({'multipleOf': 1000}, True), ({'multipleOf': 999983}, False),
    ({'allOf': [{'multipleOf': 997}, {'multipleOf': 991}]}, False)])
def test_a_multiple_with_many_remainders_is_checked_but_not_enforced(form, enforced):
    model = load('llama')
    schema = Schema(json.dumps({'type': 'number', **form}))
    guide = schema.guide(model.tokenizer, model.adapter.prompt.stop_ids, len(model.tokenizer))
    assert (guide is not None) == enforced
    assert not schema.problem('0') and 'multiple' in schema.problem('1.1')


@pytest.mark.parametrize('form', [
    {'unevaluatedProperties': False}, {'allOf': [{'items': {'unevaluatedItems': False}}]}])
def test_a_keyword_whose_check_has_no_bound_is_refused_with_a_remedy(form):
    with pytest.raises(QuestionError, match='unevaluated.* write (additionalProperties|items)'):
        Schema(json.dumps(form))


@given(form=st.dictionaries(st.sampled_from('pqr'), st.just({'type': 'integer'})),
       patterns=st.dictionaries(st.sampled_from(['^a', 'b+$', '[xy]', '^p']), st.sampled_from([
           {'type': 'integer'}, {'pattern': '^[0-9]+$'}, {'pattern': 'x|yy'}])),
       other=st.sampled_from([True, False, {'type': 'string'}]),
       said=st.dictionaries(st.text('abpqxy', max_size=3), st.integers() | st.text('0xy')))
def test_bounded_checks_find_what_those_of_jsonschema_find(form, patterns, other, said):
    form = {'properties': form, 'patternProperties': patterns, 'additionalProperties': other}
    right = jsonschema.Draft202012Validator(form).is_valid(said)
    assert (not Schema(json.dumps(form)).problem(json.dumps(said))) == right
