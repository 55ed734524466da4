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

"""What a watch is, and how a file of watches is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
import json
from pathlib import Path
import re
from typing import Any

import yaml

MAX_NAME = 60  # [characters] leaves room for a namespace in the longest topic that ROS allows
MAX_FILE = 100_000  # [characters]
CHANGE_KEYS = ('threshold', 'hysteresis', 'hold')


class WatchError(ValueError):
    """A file of watches that is wrong; one line: watch, key, value, limit, remedy."""


@dataclass(frozen=True)
class Watch:
    """
    A standing question.

    Parameters
    ----------
    name : str
        Of the watch, and of its topic: letters, digits and underscores, a letter first.
    question : str
        What is asked.
    choices : tuple of str
        The answers allowed: they are scored, nothing is generated; empty = free text.
    schema : str
        JSON Schema that the answer must fit; empty = free text.
    max_tokens : int
        Longest answer where it is generated; 0 = as long as the session allows.
    period : float
        [s] Between two times that it is asked; 0 = by `every`.
    every : int
        [frames] From one time that it is asked to the next; 0 = by `period`.
    camera : str
        The camera whose frames it waits for; empty = any.
    navigation : bool
        Whether what lies ahead on the path is put before the question.
    threshold, hysteresis, hold
        When a choice counts as changed: see `ChangeDetector`.

    Raises
    ------
    WatchError
        A value is out of its range, or two do not go together.
    """

    name: str
    question: str
    choices: tuple[str, ...] = ()
    schema: str = ''
    max_tokens: int = 0
    period: float = 0.0
    every: int = 0
    camera: str = ''
    navigation: bool = False
    threshold: float = 0.5
    hysteresis: float = 0.0
    hold: int = 1

    def __post_init__(self) -> None:
        """Check all values, and those that depend on each other."""
        if len(self.name) > MAX_NAME or not re.fullmatch(r'[A-Za-z][A-Za-z0-9_]*', self.name):
            raise self._error(
                'name', 'must be the end of a topic: use letters, digits and underscores, a '
                f'letter first, {MAX_NAME} at most')
        if not self.question.strip():
            raise self._error('question', 'must not be empty: write what is to be asked')
        key, problem = form_problem(self.choices, self.schema)
        if problem:
            raise self._error(key, problem)
        for key in ('threshold', 'hysteresis'):
            if not 0 <= getattr(self, key) <= 1:
                raise self._error(key, 'must be between 0 and 1: it is a probability')
        if self.hold < 1:
            raise self._error('hold', 'must be 1 or more: it counts answers, 1 = a change at once')
        if self.max_tokens < 0:
            raise self._error('max_tokens', "must be 0 or more: 0 = the node's max_answer_tokens")
        if self.period and self.every:
            raise self._error('period', f'cannot go with every {self.every}: keep one of them')
        if not 0 <= self.period < float('inf') or not self.period and self.every < 1:
            key = 'every' if self.every else 'period'
            raise self._error(key, 'must say when to ask: give a period in seconds, above 0, or '
                              'every as a number of frames, 1 or more')

    def _error(self, key: str, problem: str) -> WatchError:
        return wrong(self.name, key, getattr(self, key), problem)


def form_problem(choices: Sequence[str], schema: str) -> tuple[str, str]:
    """Say which of a question's choices and schema is wrong, and why; both empty if none is."""
    if choices and schema:
        return 'schema', 'cannot go with choices: keep one of them'
    if len(choices) == 1:
        return 'choices', ('must be two or more, or none for free text: add what else the answer '
                           'can be')
    if not all(choice.strip() for choice in choices):
        return 'choices', 'must not be empty: write each as a word'
    if len(set(choices)) < len(choices):
        return 'choices', 'must differ from each other: write each once'
    return '', ''


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that a key does not exist, and which one may be meant."""
    known, key = list(known), ' '.join(key[:MAX_NAME].split())
    close = get_close_matches(key, known, 1)
    hint = f'did you mean {close[0]}?' if close else f'known are {", ".join(known)}'
    return f'key {key} does not exist: {hint}'


def wrong(name: Any, key: str, value: Any, problem: str) -> WatchError:
    """Make an error that names watch, key and value."""
    given = list(value) if isinstance(value, tuple) else value
    text = ' '.join(repr(given).split())
    return WatchError(f'watch {name}: {key} is {text[:100]}, {problem}')


_FIELDS = {f.name: f for f in fields(Watch)}
_KINDS = {'bool': (bool,), 'str': (str,), 'int': (int,), 'float': (int, float),
          'tuple[str, ...]': (list,)}


def read_watches(path: str | Path) -> tuple[Watch, ...]:
    """
    Read the watches of a YAML file: a list with the fields of `Watch` in each item.

    Raises
    ------
    WatchError
        The file cannot be read, or one of its watches is wrong: names file, watch, key, value,
        limit and remedy.
    """
    try:
        text = file_text(path)
    except ValueError as error:
        raise WatchError(f'file of watches {path} {error}; the parameter watches names it, empty '
                         '= no watches') from None
    try:
        items = unfolded(yaml.safe_load(text))
    except Exception as error:      # YAML's own, and what values such as 2001-99-99 raise in it
        why = ' '.join(str(error).split())[:300]
        raise WatchError(f'file of watches {path} is no valid YAML: {why}: correct it there'
                         ) from None
    if not isinstance(items, list) or not items:
        raise WatchError(f'file of watches {path} holds {_kind(items)}, must hold a list of '
                         "watches: begin each with '- name: NAME'")
    try:
        watches = tuple(_watch(item, place) for place, item in enumerate(items, 1))
        for watch in watches:
            if sum(other.name == watch.name for other in watches) > 1:
                raise watch._error('name', 'must differ from all others: rename one of the two')
    except WatchError as error:
        raise WatchError(f'{path}: {error}') from None
    return watches


def file_text(path: str | Path) -> str:
    """Read a file of questions or watches; a ValueError says why that cannot be."""
    try:
        with open(path, encoding='utf-8') as file:
            text = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:      # ValueError: of its bytes, or a null in its name
        reason = getattr(error, 'strerror', None) or 'it is no text in UTF-8'
        raise ValueError(f'cannot be read: {reason}: check the path') from None
    if len(text) > MAX_FILE:
        raise ValueError(f'is longer than {MAX_FILE} characters, the most that is read: keep only '
                         'what is to be asked')
    return text


def unfolded(items: Any) -> Any:
    """
    Refuse, as ValueError, aliases that unfold to more than a file can hold, or for ever.

    Takes values of YAML or its nodes, and returns them.
    """
    count, left = 0, [items]
    while left:
        item, count = left.pop(), count + 1
        if count > MAX_FILE:
            raise ValueError('its aliases (*) unfold to too much')
        left.extend(item.values() if isinstance(item, dict)
                    else item.value if isinstance(item, yaml.CollectionNode)
                    else item if isinstance(item, (list, set, tuple)) else ())
    return items


def _watch(item: Any, place: int) -> Watch:
    if not isinstance(item, dict):
        raise WatchError(f'watch number {place} is {_kind(item)}, must be a mapping: begin it '
                         "with '- name: NAME'")
    name = item.get('name', f'number {place}')
    for key in item:
        if key not in _FIELDS:
            raise WatchError(f'watch {name}: {unknown_key(str(key), _FIELDS)}')
    for key in ('name', 'question'):
        if key not in item:
            raise WatchError(f'watch {name}: {key} is missing, but every watch needs it: add it')
    if not item.get('choices'):
        for key in CHANGE_KEYS:
            if key in item:
                raise wrong(name, key, item[key], 'but there are no choices, and only their '
                            'probabilities can change: add choices, or drop it')
    return Watch(**{key: _value(name, key, value) for key, value in item.items()})


def _value(name: Any, key: str, value: Any) -> Any:
    """Check the type of a value, and bring it into that of its field."""
    if key == 'schema' and isinstance(value, dict):
        return json.dumps(value)
    kind = str(_FIELDS[key].type)
    if isinstance(value, bool) != (kind == 'bool') or not isinstance(value, _KINDS[kind]):
        raise wrong(name, key, value, f'{_kind(value)}, but must be {_WANTED[kind]}')
    if kind.startswith('tuple'):
        for choice in value:
            if not isinstance(choice, str):
                raise wrong(name, key, choice, f'{_kind(choice)}, but must be text: put it in '
                            'quotes')
    return {'float': float, 'tuple[str, ...]': tuple}.get(kind, lambda same: same)(value)


_WANTED = {'bool': 'true or false: write it without quotes', 'str': 'text: put it in quotes',
           'int': 'a whole number: write it without a point',
           'float': 'a number: write it without quotes',
           'tuple[str, ...]': "a list of texts: write ['one', 'other']"}


def _kind(value: Any) -> str:
    """Name the type of what was in a YAML file."""
    if value is None:
        return 'nothing'
    names = {bool: 'a truth value', dict: 'a mapping', list: 'a list', str: 'text'}
    return names.get(type(value), f'of type {type(value).__name__}')
