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

"""The file of questions, and what is due when."""

import json
from pathlib import Path
import re

from hypothesis import given
from hypothesis import strategies as st
from infmllm_ros.replay.plan import Entry, Plan, Telling, Turn
from infmllm_ros.replay.plan_file import PlanError, read_plan
import pytest

FILE = """\
tell:
  - {at: 2.0, text: the code is seven}
questions:
  - name: ahead            # a comment
    question: What is ahead?
    at: [12.5, 3]
  - question: Is the light red?
    every: 5.0
    from: 1
    until: 11
    choices: [yes, no]
    expected: no
  - {question: 'What came first?', frame: 120, camera: front, expected: [Blue  cup, 7],
     remember: true}
  - {question: Say it as JSON, at: end, max_tokens: 64, deadline: 2.0,
     schema: {type: object, properties: {n: {type: integer, minimum: 0}}},
     expected: {n: 3}}
"""


def write(folder, text):
    path = folder / 'questions.yaml'
    path.write_text(text)
    return path


@pytest.fixture
def plan(tmp_path):
    return read_plan(write(tmp_path, FILE), ['front', 'rear'])


def test_texts_stay_what_was_written(plan):
    assert plan.name == 'questions.yaml'
    assert plan.tellings == (Telling(2.0, 'the code is seven'),)
    ahead, light, first, form = plan.questions
    assert ahead == Entry('ahead', 'What is ahead?', at=(3.0, 12.5))
    assert light == Entry('question-2', 'Is the light red?', every=5.0, begin=1.0, until=11.0,
                          choices=('yes', 'no'), expected=('no',))
    assert first == Entry('question-3', 'What came first?', frame=120, camera='front',
                          expected=('Blue  cup', '7'), remember=True)
    assert (form.at, form.max_tokens, form.deadline) == ((float('inf'),), 64, 2.0)
    assert json.loads(form.schema) == {
        'type': 'object', 'properties': {'n': {'type': 'integer', 'minimum': 0}}}


def test_which_answers_are_right(plan):
    ahead, light, first, form = plan.questions
    assert ahead.judge('anything') is None
    assert (light.judge(' No\n'), light.judge('yes')) == (True, False)
    assert (first.judge('blue CUP'), first.judge('7'), first.judge('cup')) == (True, True, False)
    assert form.judge('{ "n":3 }') is True
    assert form.judge('{"n": 4}') is form.judge('no JSON') is form.judge('') is False


def test_the_file_in_the_docs_can_be_read(tmp_path):
    page = (Path(__file__).parents[2] / 'docs' / 'replay.md').read_text()
    text, = re.findall(r'```yaml\n(.*?)```', page, re.S)
    plan = read_plan(write(tmp_path, text), ['front'])
    assert [len(part) for part in (plan.tellings, plan.questions)] == [1, 4]
    assert plan.questions[1].expected == ('no',)


def ids(items):
    return [item.id if isinstance(item, Turn) else item.text for item in items]


def test_what_is_due_as_frames_go_by(plan):
    """Compare with a table by hand: frames at 0, 1.0, 2.5, 11.0 and 12.5 s."""
    agenda = plan.agenda()
    assert ids(agenda.before(0.0)) == []
    assert ids(agenda.before(1.0)) == [], 'asked at 1.0 sees the frame of 1.0'
    assert ids(agenda.before(2.5)) == ['question-2@1', 'the code is seven']
    assert ids(agenda.before(11.0)) == ['ahead@3', 'question-2@6']
    assert ids(agenda.before(12.5)) == ['question-2@11']
    assert ids(agenda.after(119)) == []
    assert ids(agenda.after(120)) == ['question-3']
    due, lost = agenda.end(12.5)
    assert (ids(due), lost) == (['ahead@12.5', 'question-4'], [])


def test_what_the_source_is_too_short_for_is_told(plan):
    agenda = plan.agenda()
    due, lost = agenda.end(4.0, whole=False)
    assert ids(due) == ['question-2@1', 'the code is seven', 'ahead@3', 'question-4']
    assert len(lost) == 2
    assert 'question-3' in lost[0] and 'frame 120' in lost[0]
    assert 'ahead@12.5' in lost[1] and '12.5 s' in lost[1] and '4 s' in lost[1]
    agenda = plan.agenda()
    assert ids(agenda.after(120)) == ['question-3']
    due, lost = agenda.end(4.0)
    assert ids(due)[-2:] == ['ahead@12.5', 'question-4'], 'the last frame is the last before 12.5'
    assert not lost


times = st.integers(0, 40).map(lambda n: n / 4)


@given(st.lists(times, max_size=6), st.lists(times, unique=True, max_size=6),
       st.sampled_from([0.25, 0.75, 2.0]), times, st.lists(times, min_size=1, max_size=12))
def test_each_is_due_once_after_the_last_frame_of_its_time_or_earlier(
        tellings, at, every, begin, frames):
    """Compare with a walk over all (time, item) pairs."""
    frames = sorted(frames)
    plan = Plan((Entry('list', '?', at=tuple(sorted(at))),
                 Entry('series', '?', every=every, begin=begin)),
                tuple(Telling(time, f'told {time}') for time in tellings))
    heard = []
    agenda = plan.agenda()
    for number, time in enumerate(frames):
        heard += [(number - 1, item) for item in agenda.before(time)]
    due, lost = agenda.end(frames[-1])
    heard += [(len(frames) - 1, item) for item in due]
    series = [t for n in range(60) if (t := begin + n * every) <= frames[-1]]
    expected = sorted((t, kind) for kind, all_of_it in enumerate((tellings, at, series))
                      for t in all_of_it)
    assert [item.at for _, item in heard] == [t for t, _ in expected]
    assert [0 if isinstance(item, Telling) else 1 + (item.entry.name == 'series')
            for _, item in heard] == [kind for _, kind in expected]
    for number, item in heard:
        assert number == max((n for n, t in enumerate(frames) if t <= item.at), default=-1)
    assert not lost
    turns = [item.id for _, item in heard if isinstance(item, Turn)]
    assert len(set(turns)) == len(turns)


@pytest.mark.parametrize('text, line, parts', [
    ('', 0, ['empty', 'questions:']),
    ('{}', 1, ['nothing to tell']),
    ('- question: a', 1, ['the file must be a mapping']),
    ('question: []', 1, ['question', 'did you mean questions']),
    ('questions: []', 1, ['questions must be a list']),
    ('questions:\n  - {question: a, at: 1, camra: x}', 2, ['camra', 'did you mean camera?']),
    ('questions:\n  - {question: a, at: 1, colour: x}', 2, ['colour', 'known are name, question']),
    ('questions:\n  - {question: a, at: 1, at: 2}', 2, ['key at stands there twice']),
    ('questions:\n  - at: 1', 2, ['question is missing']),
    ('questions:\n  - {question: , at: 1}', 2, ['question is empty']),
    ('questions:\n  - {question: [a], at: 1}', 2, ['question must be one text']),
    ('questions:\n  - just text', 2, ['must be a mapping']),
    ('questions:\n  - {question: a}', 2, ['exactly one of at, frame, every', 'none']),
    ('questions:\n  - {question: a, at: 1, frame: 2}', 2, ['at and frame']),
    ('questions:\n  - {question: a, at: 1, until: 2}', 2, ['until goes with every only']),
    ('questions:\n  - {question: a, every: 1, from: 3, until: 2}', 2, ['until is 2 s', '3 s']),
    ('questions:\n  - question: a\n    at: soon', 3, ["at is 'soon'", 'seconds', "'end'"]),
    ('questions:\n  - {question: a, at: -1}', 2, ["at is '-1'", '0 or more']),
    ('questions:\n  - {question: a, at: .nan}', 2, ["at is '.nan'"]),
    ('questions:\n  - {question: a, at: []}', 2, ['list of times']),
    ('questions:\n  - {question: a, at: [1, 1.0]}', 2, ['each once']),
    ('questions:\n  - {question: a, every: 0}', 2, ["every is '0'", 'above 0']),
    ('questions:\n  - {question: a, frame: 1.5}', 2, ["frame is '1.5'", 'whole number']),
    ('questions:\n  - {question: a, at: 1, camera: fornt}', 2, ["'fornt'", "'front', 'rear'"]),
    ('questions:\n  - {question: a, at: 1, remember: 2}', 2, ["remember is '2'", 'true or false']),
    ('questions:\n  - {question: a, at: 1, name: a b}', 2, ["name is 'a b'", 'rename']),
    ('questions:\n  - {question: a, at: 1, name: x}\n  - {question: b, at: 1, name: x}', 3,
     ['name x']),
    ('questions:\n  - {question: a, at: 1, choices: [one]}', 2, ['choices', 'two or more']),
    ('questions:\n  - {question: a, at: 1, choices: [a, b], schema: {}}', 2, ['keep one of them']),
    ('questions:\n  - {question: a, at: 1, choices: [yes, no], expected: nope}', 2,
     ["'nope'", "'yes', 'no'"]),
    ('questions:\n  - {question: a, at: 1, schema: {type: objct}}', 2, ['no JSON Schema']),
    ('questions:\n  - {question: a, at: 1, schema: {type: object}, expected: 3}', 2,
     ['expected', 'does not fit']),
    ('tell: [{at: 1}]', 1, ['text is missing']),
    ('questions: [', 0, ['no valid YAML', 'correct']),
    ('questions:\n  - {question: why?, at: 1}', 0, ['line 2', 'put texts with a ? ']),
])
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, line, parts):
    with pytest.raises(PlanError) as error:
        read_plan(write(tmp_path, text), ['front', 'rear'])
    message = str(error.value)
    assert '\n' not in message
    assert (f'questions.yaml, line {line}:' if line else 'questions.yaml') in message
    for part in parts:
        assert part in message


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(PlanError, match='none.yaml cannot be read: No such file'):
        read_plan(tmp_path / 'none.yaml')
    path = tmp_path / 'bytes.yaml'
    path.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(PlanError, match='bytes.yaml'):
        read_plan(path)


def test_an_endless_alias_is_refused(tmp_path):
    with pytest.raises(PlanError, match='its aliases .* unfold to too much: correct it'):
        read_plan(write(tmp_path, 'questions:\n- {question: a, at: 1, schema: &a {x: *a}}'))
