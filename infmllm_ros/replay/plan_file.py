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

"""
The file of questions: YAML, read so that an answer ``no`` stays the text that it is.

YAML would take it for a truth value, and 7 for a number. So the nodes of the file are read, which
hold what was written and where: an error names its line. Nothing here knows ROS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
import json
from math import inf
from pathlib import Path
import re
from typing import Any

from infmllm_ros.replay.plan import END, Entry, Plan, Telling
from infmllm_ros.watches.definition import file_text, form_problem, unfolded, unknown_key
import yaml

MAX_NAME = 60  # [characters]
_WHEN = ('at', 'frame', 'every')
_KEYS = ('name', 'question', *_WHEN, 'from', 'until', 'camera', 'choices', 'schema', 'max_tokens',
         'deadline', 'remember', 'expected')
_TRUTH = {'true': True, 'yes': True, 'false': False, 'no': False}


class PlanError(ValueError):
    """A file of questions that is wrong; one line: file, line, key, value, limit, remedy."""


def read_plan(path: str | Path, cameras: Sequence[str] | None = None) -> Plan:
    """
    Read a file of questions.

    Parameters
    ----------
    path : str or Path
    cameras : sequence of str, optional
        Names of the cameras that there are, if a question about another one is an error.

    Raises
    ------
    PlanError
        The file cannot be read, or something in it is wrong.
    """
    path = Path(path)
    try:
        text = file_text(path)
    except ValueError as error:
        raise PlanError(f'file of questions {path} {error}') from None
    try:
        root = unfolded(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        # YAML 1.1 ends a text at a question mark there, where all questions have one
        hint = 'put texts with a ? within { } in quotes' if "'?'" in str(error) else \
            'correct it there'
        raise PlanError(f'file of questions {path} is no valid YAML: '
                        f'{" ".join(str(error).split())}: {hint}') from None
    try:
        return _plan(root, path.name, cameras)
    except _Wrong as error:
        raise PlanError(f'{path}, line {error.line}: {error}') from None


class _Wrong(Exception):
    """What is wrong with a node of the file: a line whose remedy, at the end, is always seen."""

    def __init__(self, node: yaml.Node, text: str):
        text = ' '.join(text.split())
        super().__init__(text if len(text) < 600 else f'{text[:300]} ... {text[-200:]}')
        self.line = node.start_mark.line + 1


def _plan(root: yaml.Node | None, name: str, cameras: Sequence[str] | None) -> Plan:
    if root is None:
        raise PlanError(f"file of questions {name} is empty: begin it with 'questions:'")
    parts = _mapping(root, 'the file', ('tell', 'questions'))
    if not parts:
        raise _Wrong(root, "there is nothing to tell or to ask: begin with 'questions:'")
    tellings = [_telling(node) for node in _list(parts, 'tell')]
    entries: dict[str, Entry] = {}
    for number, node in enumerate(_list(parts, 'questions'), 1):
        entry = _entry(node, f'question-{number}', cameras)
        if entry.name in entries:
            raise _Wrong(node, f'name {entry.name} is that of an earlier question: give each a '
                         'name of its own')
        entries[entry.name] = entry
    return Plan(tuple(entries.values()), tuple(tellings), name)


def _telling(node: yaml.Node) -> Telling:
    parts = _mapping(node, 'a text to tell', ('at', 'text'), needed=('at', 'text'))
    return Telling(_number(parts['at'], 'at'), _text(parts['text'], 'text'))


def _entry(node: yaml.Node, name: str, cameras: Sequence[str] | None) -> Entry:
    parts = _mapping(node, 'a question', _KEYS, needed=('question',))

    def read(key: str, how: Callable[[yaml.Node, str], Any], default: Any) -> Any:
        return how(parts[key], key) if key in parts else default

    name = read('name', _name, name)
    schema = read('schema', _schema, '')
    entry = Entry(
        name, _text(parts['question'], 'question'), **_when(node, parts),
        choices=read('choices', _texts, ()), schema=schema, camera=read('camera', _text, ''),
        max_tokens=read('max_tokens', _whole, 0), deadline=read('deadline', _positive, 0.0),
        remember=read('remember', _truth, None),
        expected=read('expected', _expected_json if schema else _texts, ()))
    key, problem = form_problem(entry.choices, entry.schema)
    if problem:
        raise _Wrong(parts[key], f'{key} of question {name} {problem}')
    if cameras is not None and entry.camera not in ('', *cameras):
        raise _Wrong(parts['camera'], f'camera of question {name} is {entry.camera!r}, but the '
                     f'cameras are {", ".join(map(repr, cameras))}: name one of them, or none '
                     'for all')
    _check_expected(entry, parts)
    return entry


def _when(node: yaml.Node, parts: dict[str, yaml.Node]) -> dict[str, Any]:
    """Read when a question is asked."""
    given = [key for key in _WHEN if key in parts]
    if len(given) != 1:
        raise _Wrong(node, f'a question needs exactly one of {", ".join(_WHEN)}, but has '
                     f'{" and ".join(given) or "none"}: say once when it is asked')
    for key in ('from', 'until'):
        if key in parts and given != ['every']:
            raise _Wrong(parts[key], f'{key} goes with every only, not with {given[0]}: drop it')
    if given == ['frame']:
        return {'frame': _whole(parts['frame'], 'frame')}
    if given == ['every']:
        begin, until = (_number(parts[key], key) if key in parts else default
                        for key, default in (('from', 0.0), ('until', inf)))
        if until < begin:
            raise _Wrong(parts['until'], f'until is {until:g} s, before from at {begin:g} s: it '
                         'is never asked: give a later time')
        return {'every': _positive(parts['every'], 'every'), 'begin': begin, 'until': until}
    several = isinstance(parts['at'], yaml.SequenceNode)
    times = [inf if _is_end(item) else _number(item, 'at')
             for item in (parts['at'].value if several else [parts['at']])]
    if not times or len(set(times)) < len(times):
        raise _Wrong(parts['at'], 'at must be a time, or a list of times that differ, in seconds '
                     f"from the first frame, or '{END}': write each once")
    return {'at': tuple(sorted(times))}


def _is_end(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == END


def _check_expected(entry: Entry, parts: dict[str, yaml.Node]) -> None:
    """Find answers that the question does not allow, and a schema that is none."""
    if entry.schema:
        from infmllm_ros.engine import QuestionError, Schema  # it takes seconds to import
        try:
            schema = Schema(entry.schema)
        except QuestionError as error:
            raise _Wrong(parts['schema'], f'question {entry.name}: {error}') from None
        for right in entry.expected:
            problem = schema.problem(right)
            if problem:
                raise _Wrong(parts['expected'], f'expected of question {entry.name} is {right}, '
                             f'but {problem}: correct one of them')
    elif entry.choices:
        for right in entry.expected:
            if not any(replace(entry, expected=(right,)).judge(one) for one in entry.choices):
                raise _Wrong(parts['expected'], f'expected of question {entry.name} is {right!r}, '
                             f'but the choices are {", ".join(map(repr, entry.choices))}: name '
                             'one of them')


# From nodes to values.

def _mapping(node: yaml.Node, what: str, known: Sequence[str], needed: Iterable[str] = (),
             ) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _Wrong(node, f'{what} must be a mapping: write {known[0]}: ...')
    parts: dict[str, yaml.Node] = {}
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node.value)
        if key not in known:
            raise _Wrong(key_node, unknown_key(key, known))
        if key in parts:
            raise _Wrong(key_node, f'key {key} stands there twice: keep one of them')
        parts[key] = value
    for key in needed:
        if key not in parts:
            raise _Wrong(node, f'{key} is missing, but {what} needs it: add it')
    return parts


def _list(parts: dict[str, yaml.Node], key: str) -> list[yaml.Node]:
    node = parts.get(key)
    if node is None:
        return []
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise _Wrong(node, f"{key} must be a list with something in it: begin each with '- '")
    return node.value


def _text(node: yaml.Node, key: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _Wrong(node, f'{key} must be one text, not a list or a mapping: put it in quotes')
    if not node.value.strip():
        raise _Wrong(node, f'{key} is empty: write some text, or drop the key')
    return node.value


def _texts(node: yaml.Node, key: str) -> tuple[str, ...]:
    """Read a text or a list of texts."""
    if not isinstance(node, yaml.SequenceNode):
        return (_text(node, key),)
    if not node.value:
        raise _Wrong(node, f'{key} is empty: write some text, or drop the key')
    return tuple(_text(item, key) for item in node.value)


def _name(node: yaml.Node, key: str) -> str:
    name = _text(node, key)
    if len(name) > MAX_NAME or not re.fullmatch(r'[\w.-]+', name):
        raise _Wrong(node, f'name is {name[:MAX_NAME]!r}, but must be letters, digits, points, '
                     f'hyphens and underscores, {MAX_NAME} at most: rename it')
    return name


def _number(node: yaml.Node, key: str) -> float:
    """Read a time or a span [s], to the microsecond."""
    text = _text(node, key)
    try:
        number = round(float(text), 6)
    except ValueError:
        number = inf
    if not 0 <= number < inf:
        ends = f", or '{END}'" if key == 'at' else ''
        raise _Wrong(node, f'{key} is {text!r}, but must be a number of seconds, 0 or more{ends}: '
                     'write it like 12.5')
    return number


def _positive(node: yaml.Node, key: str) -> float:
    number = _number(node, key)
    if not number:
        raise _Wrong(node, f'{key} is {node.value!r}, but must be above 0, in seconds, at least a '
                     'microsecond: write it like 5.0')
    return number


def _whole(node: yaml.Node, key: str) -> int:
    text = _text(node, key)
    if not re.fullmatch(r'\d{1,9}', text, re.ASCII):
        raise _Wrong(node, f'{key} is {text!r}, but must be a whole number, 0 or more: write it '
                     'like 120')
    return int(text)


def _truth(node: yaml.Node, key: str) -> bool:
    text = _text(node, key)
    if text.lower() not in _TRUTH:
        raise _Wrong(node, f'{key} is {text!r}, but must be true or false: write one of them')
    return _TRUTH[text.lower()]


def _schema(node: yaml.Node, key: str) -> str:
    if isinstance(node, yaml.MappingNode):
        return _json(node, key)
    return _text(node, key)


def _expected_json(node: yaml.Node, key: str) -> tuple[str, ...]:
    """Read an answer or a list of them as JSON; a text may be JSON already."""
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    texts = []
    for item in items:
        try:
            texts.append(json.dumps(json.loads(item.value)))
        except (TypeError, ValueError, RecursionError):
            texts.append(_json(item, key))
    return tuple(texts)


def _json(node: yaml.Node, key: str) -> str:
    """Write a node as JSON: what JSON knows as number, truth value or null is one."""
    def value(node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {_text(name, key): value(part) for name, part in node.value}
        if isinstance(node, yaml.SequenceNode):
            return [value(part) for part in node.value]
        if node.style is None:  # not in quotes
            try:
                return json.loads(node.value)
            except ValueError:
                pass
        return node.value

    try:
        return json.dumps(value(node), allow_nan=False)
    except (RecursionError, ValueError):
        raise _Wrong(node, f'{key} cannot be written as JSON: correct it') from None
