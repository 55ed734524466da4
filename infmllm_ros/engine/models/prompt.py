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

"""Turns of a conversation as tokens, read off the tokenizer's own chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
import re
from typing import Any

import jinja2
import torch

from ..errors import ModelError

# Stand-ins that no template, tokenizer or user writes; the template is rendered around them.
SYSTEM, QUESTION, ANSWER = '\ue000S\ue001', '\ue000Q\ue001', '\ue000A\ue001'


@dataclass(frozen=True)
class Media:
    """
    How the template of a model that sees writes an image or a video.

    Parameters
    ----------
    kind : str
        The content type to put in front of the question: 'image' or 'video'.
    placeholder : str
        What the template writes for it; the frames of the memory stand there.
    after : str
        Text that the family's processor puts between the last frame and the question.
    """

    kind: str
    placeholder: str
    after: str = ''


@dataclass(frozen=True)
class _Turns:
    """The template's own text around system prompt, question and answer."""

    start: str  # before the system prompt, or before the user turn where there is none
    system: str  # from the system prompt to where the frames of the user turn go
    bare: str  # the same from the very start, with no system prompt
    ask: str  # from the frames to the question
    generate: str  # from the question to the answer that the model is to write
    lead: str  # what an answer starts with in the template beyond `generate`
    reopen: str  # from the end of an answer to where the frames of the next user turn go


# For tokenizers without a chat template: base models.
PLAIN = _Turns('', '\n', '', '\nQuestion: ', '\nAnswer:', ' ', '\n')


class Prompt:
    r"""
    Token sequences of system prompt, questions and what lies between, for one tokenizer.

    The memory is one long user turn, ``prefix, frames..., question``, and after an answer that
    is kept, ``reopen, frames..., question``. The pieces are found by rendering the tokenizer's
    chat template around stand-ins and cutting it there, so a family needs no code of its own;
    a tokenizer without a template gets ``{system}\n``, ``\nQuestion: {question}\nAnswer:``.

    Text that came from outside is always tokenized as plain text: a question that spells a
    special token (``<|im_end|>``) yields the tokens of its letters.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        With or without a chat template.
    media : Media, optional
        For models that see; None for text-only models.
    stop_ids : iterable of int
        Ids that end an answer; the tokenizer's own and the template's are added.

    Attributes
    ----------
    stop_ids : frozenset of int
        Ids that end an answer. They are not part of the answer: `reopen` writes the end of turn.
    """

    def __init__(
        self, tokenizer: Any, media: Media | None = None, stop_ids: Iterable[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._turns = _read_template(tokenizer, media)
        # Special or not: a question that spells `<tool_call>` must not yield that token either.
        # Runs of spaces, which some tokenizers add as tokens, are ordinary text.
        added = {
            token.content.strip(): (index, token)
            for index, token in tokenizer.added_tokens_decoder.items()
            if len(token.content.strip()) > 1
        }
        patterns = [
            (r'\s*' if token.lstrip else '') + re.escape(text) + (r'\s*' if token.rstrip else '')
            for text, (_, token) in sorted(added.items(), key=lambda item: -len(item[0]))
        ]
        self._added = re.compile('|'.join(patterns) or r'(?!)')
        self._added_ids = {text: index for text, (index, _) in added.items()}
        stops = {*stop_ids, tokenizer.eos_token_id} - {None}
        end_of_turn = self._added.match(self._turns.reopen.lstrip())
        if end_of_turn:
            stops.add(self._added_ids[end_of_turn[0].strip()])
        self.stop_ids = frozenset(stops)

    @property
    def plain(self) -> bool:
        """Whether there is no chat template, so that turns are plain text."""
        return not self._tokenizer.chat_template

    def prefix(self, system: str) -> torch.Tensor:
        """
        Tokenize the system turn and the opening of the user turn.

        Parameters
        ----------
        system : str
            The system prompt; '' leaves what the template writes by itself, often nothing.

        Returns
        -------
        torch.Tensor
            int64 [n].
        """
        turns, system = self._turns, system.strip()
        if not system:
            return self._encode(turns.bare)
        return self._encode(turns.start, system, turns.system)

    def question(self, text: str) -> torch.Tensor:
        """Tokenize a question, the end of the user turn and the opening of the answer: [n]."""
        return self._encode(self._turns.ask, text.strip(), self._turns.generate)

    def reopen(self) -> torch.Tensor:
        """Tokenize what lies between an answer and the next frame of the user: int64 [n]."""
        return self._encode(self._turns.reopen)

    def text(self, text: str) -> torch.Tensor:
        """Tokenize plain text, without any special token: int64 [n]."""
        return self._encode('', text)

    def choice(self, text: str) -> torch.Tensor:
        """
        Tokenize an answer as it follows the question.

        Tokenizers join a space to the word after it, so the answer is tokenized together with
        the text before it, and the tokens that `question` does not have are its own.
        """
        turns = self._turns
        before = self._encode(turns.generate)
        whole = self._encode(turns.generate + turns.lead, text)
        same = 0
        while same < min(len(before), len(whole)) and before[same] == whole[same]:
            same += 1
        # A tokenizer may merge the last of the opening with the answer; the model has by then
        # read the opening alone, so such an answer is scored by its own tokens.
        return whole[same:] if same == len(before) else self._encode(turns.lead, text)

    def _encode(self, *parts: str) -> torch.Tensor:
        """Tokenize parts that are the template's and from outside by turns, as one text."""
        ids: list[int] = []
        run = ''
        for place, part in enumerate(parts):
            # half of a surrogate pair is no character, and tokenizers raise on it
            part = part.encode('utf-8', 'replace').decode()
            done = 0
            for found in self._added.finditer(part) if place % 2 == 0 else ():
                ids += self._encode_plain(run + part[done:found.start()])
                ids.append(self._added_ids[found[0].strip()])
                run, done = '', found.end()
            run += part[done:]
        ids += self._encode_plain(run)
        return torch.tensor(ids, dtype=torch.int64)

    def _encode_plain(self, text: str) -> list[int]:
        """Tokenize text, cutting every spelling of an added token after its first letter."""
        pieces, start = [], 0
        while start < len(text):
            found = self._added.search(text, start)
            end = found.start() + 1 if found else len(text)
            pieces.append(text[start:end])
            start = end
        if not pieces:
            return []
        # Splitting stays on for tokens that only a normalised text spells, such as `<|IM_END|>`.
        ids = self._tokenizer(
            pieces, add_special_tokens=False, split_special_tokens=True, verbose=False
        )['input_ids']
        return [*chain.from_iterable(ids)]


def _read_template(tokenizer: Any, media: Media | None) -> _Turns:
    """Find the template's own text; ModelError if it shows no content in any known form."""
    if not tokenizer.chat_template:
        begins = tokenizer('')['input_ids'][:1] == [tokenizer.bos_token_id]
        begin = tokenizer.bos_token if begins else ''
        return replace(PLAIN, start=begin, bare=begin)

    def as_text(text: str) -> str:
        return text

    def as_list(text: str) -> list[dict[str, str]]:
        return [{'type': 'text', 'text': text}]

    forms = [(as_text, None), (as_list, None)]
    if media:
        # Templates of models that see may accept plain text too, but then cannot show an image.
        forms = [(as_list, media), *reversed(forms)]
    for form, shown in forms:
        try:
            return _cut(tokenizer, form, shown)
        except (jinja2.TemplateError, TypeError, _NotThereError):
            continue
    raise ModelError(
        f'the chat template of {tokenizer.name_or_path!r} shows no user and assistant text: '
        'repair chat_template in its tokenizer_config.json, or remove it for plain prompts'
    )


class _NotThereError(Exception):
    """The template does not show what was to be cut at."""


def _part(text: str, mark: str) -> tuple[str, str]:
    """Cut at the first `mark`; the parts before and after it."""
    before, found, after = text.partition(mark)
    # A template that wants plain text may print a list of parts as Python does.
    if not found or "'type'" in before:
        raise _NotThereError(mark)
    return before, after


def _cut(tokenizer: Any, form: Callable[[str], Any], media: Media | None) -> _Turns:
    """Render the template around stand-ins and cut it there."""

    def render(*messages: dict[str, Any], generate: bool = True) -> str:
        # A robot waits for its answer: models that may think aloud first are told not to.
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generate, enable_thinking=False
        )

    def to_frames(text: str) -> tuple[str, str]:
        return _part(text, media.placeholder) if media else (text, '')

    shown = [{'type': media.kind}] if media else []
    question = form(QUESTION)
    user = {'role': 'user', 'content': shown + question if media else question}
    answer = {'role': 'assistant', 'content': form(ANSWER)}

    opening, generate = _part(render(user), QUESTION)
    bare, ask = to_frames(opening)
    start, system = bare, '\n\n'  # without a system turn in this family it opens the user turn
    for content in (SYSTEM, form(SYSTEM)):
        with suppress(jinja2.TemplateError, TypeError, _NotThereError):
            start, rest = _part(render({'role': 'system', 'content': content}, user), SYSTEM)
            system = to_frames(_part(rest, QUESTION)[0])[0]
    before_answer = _part(_part(render(user, answer, generate=False), QUESTION)[1], ANSWER)[0]
    lead = before_answer[len(generate):] if before_answer.startswith(generate) else ''
    reopen = to_frames(_part(_part(render(user, answer, user), ANSWER)[1], QUESTION)[0])[0]
    if not media:
        # A space before the question belongs to its first word, as tokenizers see it.
        ask = opening[len(opening.rstrip(' ')):]
        bare, system, reopen = (part.removesuffix(ask) for part in (bare, system, reopen))
    else:
        ask += media.after
    return _Turns(start, system, bare, ask, generate, lead, reopen)
