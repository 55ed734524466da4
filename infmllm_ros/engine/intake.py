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

"""What users hand in as words, checked before it reaches the model: token ids, questions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .errors import QuestionError, QuestionTooLong, TextError
from .models import Prompt


def token_ids(ids: Sequence[int] | torch.Tensor, vocabulary: int) -> torch.Tensor:
    """
    Take token ids as int64 [n]; one that the model lacks would be a fatal assertion on a GPU.

    Raises
    ------
    TextError
        If they are no whole numbers from 0 to `vocabulary` - 1.
    """
    try:
        ids = torch.as_tensor(ids).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TextError(f'text is a {type(ids).__name__}, must be str or token ids') from error
    whole = ids.long()  # a uint8 tensor compares with 256 as with 0
    if len(ids) and (ids.is_floating_point() or not 0 <= whole.min() <= whole.max() < vocabulary):
        raise TextError(f'token ids must be whole numbers from 0 to {vocabulary - 1}')
    return whole


def parts(ids: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Cut token ids, int64 [n], into chunks of `size`; none if there are none."""
    return list(ids.split(size)) if len(ids) else []


def answer_length(tokens: int | None, most: int) -> int:
    """
    Check how many tokens an answer may have; None: as many as a session allows.

    Raises
    ------
    QuestionError
        If it allows fewer.
    """
    tokens = most if tokens is None else tokens
    if tokens not in range(1, most + 1):
        raise QuestionError(
            f'max_tokens is {tokens}, must be between 1 and max_answer {most} of the session')
    return tokens


def seconds(deadline_s: float | None) -> float:
    """
    Check how long an answer may take; None: for ever.

    Raises
    ------
    QuestionError
        If it is negative or no number.
    """
    if deadline_s is None:
        return float('inf')
    if not deadline_s >= 0:
        raise QuestionError(f'deadline_s is {deadline_s}, must be a number of seconds from 0 up')
    return deadline_s


def question_ids(question: str, prompt: Prompt, limit: int) -> torch.Tensor:
    """
    Tokenize a question with the turns around it: int64 [n <= limit].

    Raises
    ------
    QuestionError
        If it is empty.
    QuestionTooLong
        If it has more than `limit` tokens.
    """
    if not isinstance(question, str) or not question.strip():
        raise QuestionError(f'the question is {question!r}, must be a text: ask something')
    size = f'{len(question)} characters'
    if len(question) <= 64 * limit:     # spare the tokenizer a book
        ids = prompt.question(question)
        if len(ids) <= limit:
            return ids
        size = f'{len(ids)} tokens'
    raise QuestionTooLong(
        f'the question has {size}, the limit is {limit} tokens: shorten it or raise max_question')


def choice_ids(choices: Sequence[str], prompt: Prompt, limit: int) -> list[torch.Tensor]:
    """
    Tokenize the answers to choose from as they follow a question: int64 [n <= limit] each.

    Raises
    ------
    QuestionError
        If they are fewer than two, empty, repeated or longer than `limit`.
    """
    if (len(choices) < 2 or len(set(choices)) < len(choices)
            or not all(isinstance(choice, str) and choice.strip() for choice in choices)):
        raise QuestionError(
            f'choices are {list(choices)}, must be at least two texts, different and not empty')
    tokens = [prompt.choice(choice) for choice in choices]
    for choice, ids in zip(choices, tokens, strict=True):
        if len(ids) > limit:
            raise QuestionError(
                f'choice {choice[:40]!r} has {len(ids)} tokens, the limit is max_answer {limit}')
    return tokens
