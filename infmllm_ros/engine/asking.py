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

"""One question, from its prefill to the last token, and the memory as it was or with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import GEN_SUSPENDED, getgeneratorstate
import math
from threading import Event
from time import perf_counter
from typing import Any, TYPE_CHECKING

import torch

from . import finite, intake, retention
from .answer import Answer, Evidence
from .chunk import Chunk
from .decode import Detokenizer, Sampler, Sampling
from .errors import QuestionError
from .policies import Role
from .schema import Schema
from .watching import glimpse

if TYPE_CHECKING:
    from .session import StreamingSession


EVIDENCE = 8  # frames named by an answer


class Asking:
    """
    A question being answered; iterate to decode.

    Attributes
    ----------
    answer : Answer or None
        The whole answer, once the iteration has ended.
    """

    def __init__(self, session: StreamingSession, question: Chunk, max_tokens: int,
                 remember: bool, sampling: Sampling, deadline_s: float,
                 schema: Schema | None = None, frame: tuple[Any, int, str] | None = None) -> None:
        if frame is not None and not session.settings.question_frame:
            raise QuestionError('the question comes with a frame, but the session has no room for '
                                'one: make it with question_frame, or observe the frame')
        self.session, self.question, self.remember = session, question, remember
        self._frame, self._glimpsed = frame, {}  # what comes with it: as given, and as fed
        self.schema = schema
        self.answer: Answer | None = None
        self._start = perf_counter()
        self._end_by = self._start + deadline_s
        self._first: float | None = None
        self._cancelled = Event()
        self._passes = 0
        self._mark = self._before = session.cache.mark()
        self._steps = self._run(max_tokens, sampling)

    def __iter__(self) -> Iterator[str]:
        """Iterate over pieces of text as they are decoded."""
        return self

    def __next__(self) -> str:
        """Decode until there is a new piece of text."""
        return next(self._steps)

    def cancel(self) -> None:
        """End the answer after the current token; may be called from any thread."""
        self._cancelled.set()

    def close(self) -> None:
        """Leave the question: no trace of it stays, or what was said so far if remembered."""
        if self.remember and getgeneratorstate(self._steps) == GEN_SUSPENDED:
            self.cancel()
            for _ in self:
                pass
        self._steps.close()

    def choose(self, choices: Sequence[str]) -> Answer:
        """
        Score the choices after the question instead of decoding; see ``StreamingSession.answer``.

        The question is prefilled once, and its logits score the first token of every choice; one
        of more than one token is looked at on top of it and leaves no trace. An answer that is
        cancelled, or late, before the last choice has been scored has no choice and no
        probabilities.

        Raises
        ------
        QuestionError
            If the choices are fewer than two, empty, repeated or longer than `max_answer`, or if
            there is a schema.
        """
        if self.schema is not None:
            raise QuestionError('choices and a schema cannot go together: give one of them')
        tokens = intake.choice_ids(choices, self.session.prompt, self.session.settings.max_answer)
        try:
            first = self.prefill()
            scores = []
            for ids in tokens:
                if reason := self._halted():
                    return self._end('', reason, (), ())
                scores.append(self._score(ids, first))
            probabilities = torch.stack(scores).softmax(0).tolist()
            if not math.isfinite(sum(probabilities)):
                raise finite.failure('a choice', self.session.cache)
            best = probabilities.index(max(probabilities))
            said = tokens[best].tolist()
            return self._end(choices[best], 'choice', said, said, choice=best,
                             probabilities=tuple(probabilities))
        finally:
            self.settle()

    def _score(self, ids: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Mean log-probability of tokens [n] after the question; `first` [vocab] predicts one."""
        logits = first[None]
        if len(ids) > 1:
            logits = torch.cat((logits, self.session.feed(
                Chunk(ids[:-1]), Role.ANSWER, logits=len(ids) - 1, commit=False)))
        target = ids.to(logits.device)[:, None]
        return logits.float().log_softmax(-1).gather(1, target).mean()

    def prefill(self) -> torch.Tensor:
        """Let the model read the question; logits [vocab] of the first answer token."""
        session = self.session
        if self._frame is not None:
            frame = glimpse(session, *self._frame)
            self._glimpsed = {frame.ordinal: frame}
        for slots in session.cache.slots:
            slots.evidence.zero_()
        logits = self._step(self.question, Role.QUESTION)
        # where it only sees a part, it has no say in what stays
        if self.remember and session.glance is None:
            # as in the paper: the question chooses what stays before the answer is decoded
            before = session.cache.evicted
            retention.evict(session)
            if session.cache.evicted != before:     # what is gone cannot be rolled back
                self._mark = self._before = session.cache.mark()
        return logits

    def _end(self, text: str, reason: str, tokens: Sequence[int], unread: Sequence[int],
             **choice: Any) -> Answer:
        """
        Put the answer together, while the question is still in the cache.

        If it is to be remembered, the turn is closed in the memory, after the tokens that are not
        in it yet, `unread`.
        """
        session, now = self.session, perf_counter()
        first = self._first or now
        newest = max((frame for frame in (*self._glimpsed.values(), session.newest) if frame),
                     key=lambda frame: frame.stamp_ns, default=None)
        problem = self.schema.problem(text) if self.schema else None
        answer = Answer(
            text, reason, len(tokens), first - self._start, now - self._start,
            newest.stamp_ns if newest else None, newest.camera if newest else '',
            evidence=self._evidence(), token_ids=tuple(tokens), problem=problem,
            **choice)
        if self.remember:
            end = torch.cat((torch.tensor(unread, dtype=torch.long), session.prompt.reopen()))
            session.feed(Chunk(end), Role.ANSWER)
            self._mark = session.cache.mark()
        session.answers += 1        # not one whose last pass failed
        if self._first:     # choices are not decoded: they say nothing of the time of a token
            session.timings['decode_s'] = (now - first) / max(1, len(tokens) - 1)
        return answer

    def _halted(self, forecast_s: float = 0.0) -> str:
        """Say why not to spend so many seconds more: 'cancelled' or 'deadline'; '' to go on."""
        if self._cancelled.is_set():
            return 'cancelled'
        return 'deadline' if perf_counter() + forecast_s > self._end_by else ''

    def settle(self) -> None:
        """Leave the cache as the question found it, or within the budget with it."""
        session = self.session
        if session._asking is self:
            session._asking = None
        if not session.begun:       # a failure took the memory with it
            return
        session.cache.rollback(self._mark)
        if session.glance:
            session.glance.close()
        if self.remember:
            try:
                retention.evict(session)
            except BaseException:
                if session.begun:       # without this answer all fits
                    session.cache.rollback(self._before)
                raise
            session.cache.trim()

    def _evidence(self) -> tuple[Evidence, ...]:
        """Name the retained frames that the answer's queries attended to most."""
        frames = {**self.session.frames, **self._glimpsed}
        weights = self.session.cache.attention_by_frame()
        best = sorted(weights, key=lambda frame: -weights[frame])[:EVIDENCE]
        return tuple(
            Evidence(number, frames[number].stamp_ns, frames[number].camera,
                     weights[number] / max(1, self._passes)) for number in best)

    def _step(self, chunk: Chunk, role: Role) -> torch.Tensor:
        self._passes += 1
        return self.session.feed(chunk, role, logits=1, evidence=True)[-1]

    def _run(self, max_tokens: int, sampling: Sampling) -> Iterator[str]:
        session = self.session
        sampler = Sampler(sampling, session.model.device)
        guide = self.schema.guide(session.model.tokenizer, session.prompt.stop_ids,
                                  session.vocabulary) if self.schema else None
        detokenizer = Detokenizer(session.model.tokenizer)
        tokens: list[int] = []
        reason, fed, step_s = '', 0, session.timings['decode_s']
        try:
            logits = self.prefill()
            while not (reason := reason or self._halted()):
                token = sampler(guide(logits) if guide else logits)
                if token < 0:
                    raise finite.failure('the answer', session.cache)
                self._first = self._first or perf_counter()
                if token in session.prompt.stop_ids:
                    reason = 'stop'
                    break
                tokens.append(token)
                if piece := detokenizer(token):
                    yield piece
                if guide and guide.take(token):
                    reason = 'stop'
                    break
                reason = 'length' if len(tokens) == max_tokens else self._halted(step_s)
                if not reason:
                    began = perf_counter()
                    logits = self._step(Chunk(torch.tensor([token])), Role.ANSWER)
                    fed, step_s = len(tokens), perf_counter() - began
            if piece := detokenizer.flush():
                yield piece
            self.answer = self._end(detokenizer.text, reason, tokens, tokens[fed:])
        finally:
            self.settle()
