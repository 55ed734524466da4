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
"""Whatever stands in a file or a text, it is taken or refused by name, and the memory is safe."""

from contextlib import suppress
import json
from pathlib import Path
import shutil

from cases import ANY, cases, HOSTILE, one_line, tried
from hypothesis import example, given
from hypothesis import strategies as st
from infmllm_ros.engine import (
    EngineError,
    inspect_model,
    MemoryFileError,
    ModelError,
    persist,
    QuestionError,
    StreamingSession,
    TextError,
)
from infmllm_ros.engine.schema import Schema
from infmllm_ros.watches import read_watches, Watch, WatchError
from machine import same, snapshot
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
import yaml
from zoo import folder, load, session, show, words

SMALL = st.none() | st.booleans() | st.integers(-3, 3000) | st.floats(-9, 9) | st.text(
    max_size=9) | st.lists(st.integers(-1, 9), max_size=3) | st.dictionaries(
        st.text(max_size=5), st.integers(-1, 9), max_size=2)


def places(value, way=()):
    """List the ways to every value of nested lists and mappings."""
    yield way
    inner = (value.items() if isinstance(value, dict)
             else enumerate(value) if isinstance(value, list) else ())
    for key, part in inner:
        yield from places(part, (*way, key))


def put(value, way, other):
    """Write `other` at a place."""
    if not way:
        return other
    at = value
    for key in way[:-1]:
        at = at[key]
    at[way[-1]] = other
    return value


# ---- memory files
@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Save a memory; give the folder, the session, and another one to restore into."""
    place = tmp_path_factory.mktemp('fuzz')
    targets = [session('smolvlm', 'saddle', 160) for _ in range(2)]
    for number, target in enumerate(targets):
        for frame in range(3):
            show(target, frame + number)
            target.tell(words(load('smolvlm'), 20, frame))
    targets[0].save(place / 'whole', {'note': b'x'})
    return place, *targets


def refused_or_same(path: Path, whole: StreamingSession, target: StreamingSession) -> None:
    """Restore: what comes is what was saved, or a refusal that leaves the memory as it was."""
    before = snapshot(target)
    try:
        target.restore(path)
    except MemoryFileError as error:
        one_line(error)
        same(snapshot(target), before)
    else:
        same(snapshot(target), snapshot(whole))


@cases(60)
@given(data=st.data())
def test_any_damage_of_a_memory_file(saved, data):
    place, whole, target = saved
    content = bytearray((place / 'whole').read_bytes())
    header = 8 + int.from_bytes(content[:8], 'little')
    at = data.draw(st.integers(0, header + 40) | st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(['change', 'cut', 'insert', 'remove', 'append']))
    some = data.draw(st.binary(min_size=1, max_size=9))
    end = {'change': at + len(some), 'cut': len(content), 'insert': at, 'remove': at + len(some),
           'append': len(content)}[kind]
    at = len(content) if kind == 'append' else at
    content[at:end] = some if kind in ('change', 'insert', 'append') else b''
    (place / 'damaged').write_bytes(content)
    tried['memory files, damaged'] += 1
    refused_or_same(place / 'damaged', whole, target)


@cases(60)
@given(data=st.data())
def test_any_header_of_a_memory_file(saved, data):
    """With a digest that fits: whoever writes a file can compute it."""
    place, whole, target = saved
    with safe_open(place / 'whole', 'pt') as file:
        header = json.loads(file.metadata()['infmllm'])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    way = data.draw(st.sampled_from(list(places(header))))
    text = json.dumps(put(header, way, data.draw(ANY)))
    save_file(tensors, place / 'forged', {
        'infmllm': text, 'digest': persist._digest(text, tensors)})
    tried['memory files, forged'] += 1
    before, counted = snapshot(target), target.cache.nbytes()
    for take in (target.restore, lambda path: StreamingSession.load(path, load('smolvlm'))):
        try:
            target = take(place / 'forged') and target
        except MemoryFileError as error:
            one_line(error)
        else:       # another counter or stamp: no lie that could break anything
            other = target
            assert other.stats().kv_bytes == counted
            assert other.answer('Where?', max_tokens=2).latency_s > 0
            show(other, 3)
            other.restore(place / 'whole')
            before = snapshot(other)
        same(snapshot(target), before)


# ---- model folders
@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Copy a checkpoint without its weights."""
    place = tmp_path_factory.mktemp('fuzz') / 'smolvlm'
    shutil.copytree(folder('smolvlm'), place, ignore=shutil.ignore_patterns('*.safetensors'))
    return place


@cases(25)
@given(data=st.data())
def test_any_settings_of_a_checkpoint(checkpoint, data):
    name = data.draw(st.sampled_from(
        ['config.json', 'preprocessor_config.json', 'generation_config.json',
         'tokenizer_config.json']))
    path = checkpoint / name
    text = path.read_text() if path.exists() else '{}'
    form = json.loads(text)
    way = data.draw(st.sampled_from(list(places(form))))
    tried['settings of checkpoints'] += 1
    try:
        path.write_text(json.dumps(put(form, way, data.draw(SMALL))))
        inspect_model(checkpoint)
    except ModelError as error:
        one_line(error)
    finally:
        path.write_text(text)


# ---- watches
@cases(150)
@given(text=HOSTILE.map(lambda text: text.encode('utf-8', 'replace'))
       | st.binary(max_size=60) | st.lists(st.dictionaries(
           st.sampled_from(['name', 'question', 'choices', 'period', 'every', 'hold', 'schema',
                            'threshold', 'camera', 'max_tokens', 'hysteresis']),
           ANY | st.sampled_from(['a', 'b c', 1.0, ['yes', 'no']])), max_size=2).map(
               lambda watches: yaml.safe_dump(watches).encode()))
@example(text=b'- 2001-99-99')
@example(text=b'- !!int ""')
@example(text=b'- !!bool x')
@example(text=b'- ' * 9000)
@example(text=b'- &a [*a]')
@example(text=b'- {name: a, question: b, period: 1, schema: &a {b: *a}}')
@example(text=b'- &a [l,l]\n' + b''.join(
    b'- &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n' % (98 + n, *[97 + n] * 8) for n in range(12))
    + b'- {name: *m}')
def test_any_file_of_watches(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / 'watches.yaml'
    path.write_bytes(text)
    tried['files of watches'] += 1
    try:
        assert all(isinstance(watch, Watch) for watch in read_watches(path))
    except WatchError as error:
        one_line(error)


# ---- words
@cases(60)
@given(text=HOSTILE, other=HOSTILE)
@example(text='\ud800', other='')
@example(text='what?', other='\udfff')
def test_any_words(saved, text, other):
    *_, target = saved
    before = snapshot(target)
    tried['questions and texts'] += 1
    for call in (lambda: target.answer(text, max_tokens=1),
                 lambda: target.answer('what?', choices=[text, other]),
                 lambda: target.answer('what?', schema=text, max_tokens=1)):
        try:
            call()
        except QuestionError as error:
            one_line(error)
        before['answers'] = target.answers
        same(snapshot(target), before)
    try:
        target.tell(text)
    except TextError as error:
        one_line(error)
        same(snapshot(target), before)


KEYWORDS = st.sampled_from([
    'type', 'properties', 'items', 'enum', 'const', 'pattern', 'minLength', 'maxLength', 'minimum',
    'required', 'additionalProperties', 'anyOf', 'allOf', 'not', '$ref', '$defs', '$schema', '$id',
    'format', 'multipleOf', 'minItems', 'maxItems', 'uniqueItems', 'patternProperties'])
VALUES = ANY | st.sampled_from([
    'string', 'object', 'integer', ['string'], '#', '#/x', 'http://127.0.0.1:9/', '(', '[a-z]+',
    0, 3, 10**9, {'type': 'string'}, [{'type': 'null'}], {'a': {'$ref': '#'}}])


@cases(100)
@given(form=st.dictionaries(KEYWORDS, VALUES | st.dictionaries(
    KEYWORDS | st.text(max_size=2), VALUES, max_size=3), max_size=4), said=ANY)
@example(form={'type': 'string', '$schema': {}}, said=None)
def test_any_schema(form, said):
    pytest.importorskip('jsonschema')
    tried['schemas'] += 1
    model = load('smolvlm')
    try:
        schema = Schema(json.dumps(form))
    except QuestionError as error:
        one_line(error)
        return
    problem = schema.problem(json.dumps(said))
    assert '\n' not in problem and len(problem) < 1000
    guide = schema.guide(model.tokenizer, model.adapter.prompt.stop_ids, len(model.tokenizer))
    if guide:
        import torch
        logits = guide(torch.zeros(len(model.tokenizer)))
        assert logits.shape == (len(model.tokenizer),)


def test_every_refusal_here_is_the_engines():
    assert issubclass(MemoryFileError, EngineError) and issubclass(ModelError, EngineError)
    with suppress(WatchError):
        read_watches('no\0path')
