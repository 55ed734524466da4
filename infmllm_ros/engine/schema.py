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
Answers that are JSON of a given form: enforced while decoding where possible, checked afterwards.

The form is a JSON Schema. Checking is done by jsonschema, enforcing by llguidance, a parser that
says after each token which may follow. Both are optional: ``pip install infmllm_ros[schema]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from decimal import Decimal
from functools import cache, wraps
import json
from math import lcm
import time
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .errors import QuestionError

LONGEST = 1.0  # [s] for one check: patterns and references can be made to take for ever
REMAINDERS = 10_000  # of a multipleOf: llguidance tells each apart, 100,000 take it a second
# Their check looks through references on its own, where no time can be kept.
UNBOUNDED = ('unevaluatedProperties', 'unevaluatedItems')
_end: ContextVar[float] = ContextVar('end')  # [s] when the check under way must be done

# One for each tokenizer, made when it is first needed: that takes a second for a large vocabulary.
_spelling: WeakKeyDictionary[PreTrainedTokenizerBase, dict[int, Any]] = WeakKeyDictionary()


class Schema:
    """
    What JSON an answer must be.

    Parameters
    ----------
    text : str
        A JSON Schema, an object. Without ``$schema`` it is of draft 2020-12. References outside
        of it are never fetched.

    Raises
    ------
    QuestionError
        If it is none, has a keyword of `UNBOUNDED`, or jsonschema is not installed.
    """

    def __init__(self, text: str) -> None:
        try:
            from jsonschema import Draft202012Validator
            from jsonschema.validators import validator_for
            from referencing import Registry
        except ImportError:
            raise QuestionError(
                'a schema needs jsonschema 4.18 or newer, which is not installed: pip install '
                'jsonschema, and llguidance to enforce the schema') from None
        try:
            self.form = _strict_json(text)
            if not isinstance(self.form, dict):
                raise ValueError(f'it is a {type(self.form).__name__}, must be an object')
            Validator = validator_for(self.form, default=Draft202012Validator)
            Validator.check_schema(self.form)
        except Exception as error:      # jsonschema itself trips over some that are none
            reason = getattr(error, 'message', None) or str(error)
            raise QuestionError(f'the schema is no JSON Schema: {_short(reason)}') from None
        written = json.dumps(self.form)
        for keyword in UNBOUNDED:
            if f'"{keyword}":' in written:
                raise QuestionError(
                    f'the schema has {keyword}, whose check may take for ever: write '
                    f'{"additionalProperties" if "Prop" in keyword else "items"} instead')
        self._validator = _bounded(Validator)(self.form, registry=Registry())

    def problem(self, text: str) -> str:
        """Say in one line why a text does not fit; empty when it does. Ends within `LONGEST`."""
        _end.set(time.monotonic() + LONGEST)
        try:
            error = next(self._validator.iter_errors(_strict_json(text)), None)
        except ValueError as broken:
            return f'the text is no JSON: {_short(str(broken))}'
        except TimeoutError:
            return (f'the schema cannot be applied: its check takes longer than {LONGEST:g} s: '
                    'write simpler patterns, and references that do not multiply')
        except Exception as broken:     # such as a reference that leads nowhere
            return f'the schema cannot be applied: {_short(str(broken))}'
        if error is None:
            return ''
        return f'the text does not fit the schema at {error.json_path}: {_short(error.message)}'

    def guide(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Iterable[int],
              vocabulary: int) -> Guide | None:
        """
        Make what keeps decoding within the schema.

        None where llguidance is not installed, or cannot read the tokenizer (one of whole words,
        say) or a keyword of the schema, or would take too long for a multipleOf of many digits:
        then the answer is only checked.
        """
        if _remainders(self.form) > REMAINDERS:
            return None
        try:
            from llguidance import LLMatcher
            from llguidance.hf import from_tokenizer
        except ImportError:
            return None
        try:
            spelling = _spelling.setdefault(tokenizer, {})
            size = max(vocabulary, len(tokenizer))
            if size not in spelling:
                spelling[size] = from_tokenizer(tokenizer, size, sorted(stop_ids))
            # the separators of json.dumps; else a model may write white space for ever
            grammar = LLMatcher.grammar_from_json_schema(self.form, overrides={
                'whitespace_flexible': False, 'item_separator': ', ', 'key_separator': ': '})
        except ValueError:
            return None
        matcher = LLMatcher(spelling[size], grammar, log_level=0)
        return None if matcher.is_error() else Guide(matcher)


class Guide:
    """Which token may come next, token by token; for one answer."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Rule out, in logits [vocab], the tokens after which the schema cannot be met."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder='little')[:len(logits)].astype(bool)
        ruled_out = torch.from_numpy(~allowed).to(logits.device)
        return logits.masked_fill(ruled_out, -torch.inf)

    def take(self, token: int) -> bool:
        """Take note of the token chosen; True when nothing may follow it."""
        self._matcher.consume_token(token)
        return self._matcher.is_stopped()


def _left() -> float:
    """Tell the time [s] that the check under way has left; TimeoutError if it has none."""
    left = _end.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _matches(pattern: str, text: str) -> bool:
    import regex  # transformers needs it; unlike re it can be told when to give up
    return bool(regex.search(pattern, text, timeout=_left(), concurrent=True))


@cache
def _bounded(validator: type) -> type:
    """Make of a validator of jsonschema one that looks at the time in each of its steps."""
    from jsonschema import ValidationError
    from jsonschema.validators import extend
    keywords = validator.VALIDATORS

    def timed(keyword: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(keyword)
        def check(*args: Any) -> Any:
            _left()
            return keyword(*args)
        return check

    def pattern(validator: Any, value: str, instance: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, 'string') and not _matches(value, instance):
            yield ValidationError(f'{instance!r} does not match {value!r}')

    def pattern_properties(validator: Any, value: Any, instance: Any, _: Any) -> Iterator[Any]:
        if validator.is_type(instance, 'object'):
            for pattern, form in value.items():
                for name in instance:
                    if _matches(pattern, name):
                        yield from validator.descend(
                            instance[name], form, path=name, schema_path=pattern)

    def additional(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        patterns = schema.get('patternProperties', ())
        if patterns and validator.is_type(instance, 'object'):
            instance = {name: part for name, part in instance.items()
                        if not any(_matches(pattern, name) for pattern in patterns)}
            schema = {key: form for key, form in schema.items() if key != 'patternProperties'}
        return keywords['additionalProperties'](validator, value, instance, schema)

    own = {'pattern': pattern, 'patternProperties': pattern_properties,
           'additionalProperties': additional}
    return extend(validator, {name: timed(own.get(name, keyword))
                              for name, keyword in keywords.items()})


def _remainders(form: Any) -> int:
    """Tell how many remainders there are of the numbers whose multiples a schema wants."""
    inner = form.values() if isinstance(form, dict) else form if isinstance(form, list) else ()
    own = form.get('multipleOf') if isinstance(form, dict) else None
    digits = Decimal(repr(own)).normalize().as_tuple().digits if isinstance(
        own, (int, float)) else (1,)
    return lcm(int(''.join(map(str, digits))), *map(_remainders, inner))


def _strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f'{constant} is no JSON')

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError('it is nested too deeply') from None


def _short(text: str) -> str:
    text = ' '.join(text.split())
    return text if len(text) <= 160 else text[:157] + '...'
