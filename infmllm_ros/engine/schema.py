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

from collections.abc import Iterable
import json
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .errors import QuestionError

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
        If it is none, or jsonschema is not installed.
    """

    def __init__(self, text: str) -> None:
        try:
            from jsonschema import Draft202012Validator, SchemaError
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
        except (SchemaError, TypeError, ValueError, RecursionError) as error:
            reason = getattr(error, 'message', None) or str(error)
            raise QuestionError(f'the schema is no JSON Schema: {_short(reason)}') from None
        self._validator = Validator(self.form, registry=Registry())

    def problem(self, text: str) -> str:
        """Say in one line why a text does not fit; empty when it does."""
        try:
            error = next(self._validator.iter_errors(_strict_json(text)), None)
        except ValueError as broken:
            return f'the text is no JSON: {_short(str(broken))}'
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
        say) or a keyword of the schema: then the answer is only checked.
        """
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
