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
"""Random lives of a session, held to the ledger beside it after every call."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
import tempfile

from cases import tried
from faults import fault, FAULTS
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, RuleBasedStateMachine
from infmllm_ros.engine import (
    BudgetError,
    ContextFull,
    EngineError,
    FrameError,
    MemoryFileError,
    NotFiniteError,
    persist,
    QuestionError,
    QuestionTooLong,
    StreamingSession,
    TextError,
)
from infmllm_ros.engine.positions import FRAME, INDEX, KIND, STAMP
from ledger import Ledger
import numpy as np
import pytest
import torch
import zoo

MOST, CHUNK = 160, 48
SIZES = [(64, 64), (40, 90), (1, 1)]
QUESTION = 'Where is the cup?'
trouble = st.none() | st.tuples(
    st.sampled_from(FAULTS), st.integers(1, 4), st.integers(0, 3))
seeds = st.integers(0, 9)
cameras = st.sampled_from(['', 'front', 'left'])
stamps = st.integers(-10**9, 4 * 10**9)


def snapshot(target: StreamingSession) -> dict:
    """All that the next answer depends on, bit for bit: tensors and plain values."""
    found = {name: view.clone() for name, view in persist._views(target).items()}
    for number in zoo.holders(target):
        found[f'rotated {number}'] = target.cache.layers[number].rotated().clone()
    for number, slots in enumerate(target.cache.ledgers):
        found[f'end {number}'] = slots.end.clone()
    plain = {name: deepcopy(getattr(target, name)) for name in persist.COUNTERS}
    return found | plain | {
        'frames': dict(target.frames), 'newest': target.newest, 'seen': target.cache.seen,
        'evicted': target.cache.evicted, 'budget': target.plan.budget}


def same(one: dict, other: dict) -> None:
    """Compare two snapshots bit for bit."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.shape == other[name].shape and torch.equal(value, other[name]), name
        else:
            assert value == other[name], name


class Life(RuleBasedStateMachine):
    """One session; subclasses say of which family, policy and layout."""

    family: str
    row: str
    layout: str

    def __init__(self):
        super().__init__()
        self.model = zoo.load(self.family)
        self.target = zoo.session(
            self.family, self.row, MOST, chunk=CHUNK, labels={'left': 'Left: '},
            layout=self.layout)
        self.bytes = self.target.cache.nbytes()
        self.prefix = len(self.model.adapter.prompt.prefix('Be brief.'))
        self.fresh()
        self.folder = tempfile.TemporaryDirectory()
        self.saved: dict[str, tuple[Ledger, dict]] = {}
        self.open = None

    def teardown(self):
        self.folder.cleanup()
        tried['lives of a session'] += 1

    def fresh(self) -> None:
        """Begin the ledger of an empty memory."""
        self.ledger = Ledger(
            self.row, self.target.plan.budget, max(self.prefix, self.target.policy.sinks))
        self.ledger.text(self.prefix)

    def path(self, number: int) -> Path:
        return Path(self.folder.name) / f'memory {number}'

    def attempt(self, act, expect, wrong=None, left=None) -> None:
        """
        Call, with a fault if there is one, and let the ledger follow or the memory be as it was.

        `left` says what the ledger may be after a fault, beside what it was.
        """
        tried['calls of a session'] += 1
        self.open = None
        self.target._settle()       # as each call does first: a question left open is over
        before, known = snapshot(self.target), deepcopy(self.ledger)
        trial = fault(self.model, *wrong) if wrong else nullcontext()
        refuses = self.target.policy.refuses
        try:
            with trial as happened:
                result = act()
        except (torch.OutOfMemoryError, NotFiniteError) as error:
            assert happened is not None and happened.fired, error
            self.one_line(error)
            for other in [known, *(left() if left else ())]:
                if len(other.tokens) == self.target.stats().tokens_seen:
                    self.ledger = other
            if self.ledger is known:
                same(snapshot(self.target), before)
        except ContextFull as error:
            assert refuses
            self.one_line(error)
            same(snapshot(self.target), before)
        else:
            expect(result)

    @staticmethod
    def one_line(error: Exception) -> None:
        """Hold the project's errors to one line."""
        assert '\n' not in str(error) or not isinstance(error, EngineError)

    # ---- what is let in

    def kinds(self, image, stamp: int, camera: str) -> list[int]:
        """Kinds of a frame's tokens."""
        first = self.ledger.frames[0][0] if self.ledger.frames else stamp
        chunk = self.model.adapter.lay_out(
            image, max(0, stamp - first) / 1e9, 'Left: ' * (camera == 'left'))
        kinds = [0] * len(chunk)
        for span in chunk.spans:
            kinds[span.start:span.start + span.rows * span.cols] = [1] * (span.rows * span.cols)
        for place in chunk.markers:
            kinds[place] = 2
        return kinds

    @precondition(lambda self: self.model.adapter.sees)
    @rule(seed=seeds, size=st.sampled_from(SIZES), stamp=stamps, camera=cameras, wrong=trouble)
    def observe(self, seed, size, stamp, camera, wrong):
        image = zoo.picture(seed, *size)

        def expect(_):
            self.ledger.frame(self.kinds(image, stamp, camera), stamp, camera)
            self.ledger.settle()
        self.attempt(lambda: self.target.observe(image, stamp, camera), expect, wrong)

    @precondition(lambda self: self.model.adapter.sees)
    @rule(shots=st.lists(st.tuples(seeds, stamps, cameras), max_size=5))
    def observe_many(self, shots):
        images = [zoo.picture(seed) for seed, *_ in shots]

        def expect(_):
            taken = 0
            for image, (_, stamp, camera) in zip(images, shots):
                if taken == 0:
                    first = stamp       # of a backlog that begins a stream
                kinds = self.kinds(image, stamp, camera) if self.ledger.frames else None
                if kinds is None:
                    kinds = self.kinds(image, max(stamp, first), camera)
                if taken and taken + len(kinds) > CHUNK:
                    self.ledger.settle()
                    taken = 0
                self.ledger.frame(kinds, stamp, camera)
                taken += len(kinds)
            if shots:
                self.ledger.settle()
        self.attempt(lambda: self.target.observe_many(
            images, [stamp for _, stamp, _ in shots], [camera for *_, camera in shots]), expect)

    @rule(count=st.integers(0, CHUNK), seed=seeds, scored=st.booleans(), wrong=trouble)
    def tell(self, count, seed, scored, wrong):
        ids = zoo.words(self.model, count, seed)

        def expect(logits):
            if scored:
                assert logits.shape[0] == count and logits.isfinite().all()
            if count:
                self.ledger.text(count)
                self.ledger.settle()
        self.attempt(lambda: (self.target.logits if scored else self.target.tell)(ids), expect,
                     wrong)

    @rule(parts=st.integers(2, 4), seed=seeds)
    def tell_at_length(self, parts, seed):
        def expect(_):
            for _ in range(parts):
                self.ledger.text(CHUNK)
                self.ledger.settle()
        self.attempt(
            lambda: self.target.tell(zoo.words(self.model, parts * CHUNK, seed)), expect)

    # ---- what is asked

    @rule(remember=st.booleans(), tokens=st.integers(1, 6), wrong=trouble,
          way=st.sampled_from(['whole', 'sampled', 'cancelled', 'abandoned', 'choices', 'late']))
    def ask(self, remember, tokens, way, wrong):
        prompt = self.model.adapter.prompt
        words = len(prompt.question(QUESTION))
        asking = None

        def asked():
            self.ledger.text(words)
            if not self.target.policy.retrieves:
                return self.ledger.settle()

        def act():
            nonlocal asking
            asking = self.target.ask(
                QUESTION, max_tokens=tokens, remember=remember, seed=tokens,
                deadline_s=0.0 if way == 'late' else None,
                temperature=2.0 if way == 'sampled' else 0.0)
            if way == 'choices':
                return asking.choose(['yes', 'not at all'])
            for _ in asking:
                if way == 'cancelled':
                    asking.cancel()
                if way == 'abandoned':
                    asking.close()
                    break
            return asking.answer

        def expect(answer):
            if answer is None:
                assert way == 'abandoned' and not remember
                return
            self.ledger.answers += 1
            assert answer.stamp_ns == (self.ledger.frames[-1][0] if self.ledger.frames else None)
            assert len(answer.token_ids) == answer.tokens <= tokens or way == 'choices'
            if way == 'late':
                assert answer.finish == 'deadline' and not answer.tokens
            if way == 'choices':
                assert sum(answer.probabilities) == pytest.approx(1)
            if remember:
                asked()
                self.ledger.text(len(answer.token_ids) + len(prompt.reopen()))
                self.ledger.settle()

        def left():
            if remember:        # something was evicted for it: it stays
                other, self.ledger = self.ledger, deepcopy(self.ledger)
                asked()
                yield self.ledger
                self.ledger = other
        before = None if remember or self.open else snapshot(self.target)
        self.attempt(act, expect, wrong, left)
        if before:
            before['answers'] = self.target.answers
            same(snapshot(self.target), before)

    @rule(tokens=st.integers(2, 6))
    def leave_a_question_open(self, tokens):
        asking = self.target.ask(QUESTION, max_tokens=tokens, remember=False)
        self.open = next(iter(asking), None) is not None and asking
        if asking.answer is not None:       # noise came to its end before its first character
            self.open, self.ledger.answers = None, self.ledger.answers + 1

    # ---- what is refused

    @rule(which=st.sampled_from(range(9)))
    def refuse(self, which):
        target = self.target
        call, kind = [
            (lambda: target.observe(np.zeros((4, 4), np.uint8)), EngineError),
            (lambda: target.observe_many([zoo.picture(0), None], [0, 1]), EngineError),
            (lambda: target.tell([10**9]), TextError),
            (lambda: target.ask('why ' * 200), QuestionTooLong),
            (lambda: target.answer(QUESTION, choices=['yes']), QuestionError),
            (lambda: target.ask(QUESTION, max_tokens=99), QuestionError),
            (lambda: target.set_budget(MOST + 1), BudgetError),
            (lambda: target.set_budget(target.plan.least - 1), BudgetError),
            (lambda: target.restore(self.path(9)), MemoryFileError),
        ][which]
        kind = FrameError if which < 2 and self.model.adapter.sees else kind

        def act():
            with pytest.raises(kind) as refusal:
                call()
            self.one_line(refusal.value)
        before = snapshot(target) if not self.open else None
        self.attempt(act, lambda _: None)
        if before:
            same(snapshot(target), before)

    @rule(share=st.floats(0, 1), wrong=trouble)
    def set_budget(self, share, wrong):
        plan = self.target.plan
        budget = round(plan.least + share * (plan.most - plan.least))

        def expect(_):
            self.ledger.budget = budget
            self.ledger.settle()
        self.attempt(lambda: self.target.set_budget(budget), expect, wrong)

    # ---- what is kept for later

    @rule(number=st.integers(0, 1))
    def save(self, number):
        def expect(_):
            self.saved[self.path(number)] = deepcopy(self.ledger), snapshot(self.target)
        self.attempt(lambda: self.target.save(self.path(number), {'note': b'?'}), expect)

    @rule(number=st.integers(0, 1), anew=st.booleans())
    def restore(self, number, anew):
        path, budget = self.path(number), self.ledger.budget
        before = None if self.open else snapshot(self.target)

        def act():
            if anew:
                revived = StreamingSession.load(path, self.model)
                # made with the budget of that moment: that is the most it may have
                self.target = revived if revived.plan.most == MOST else self.target
                return self.target is revived
            return self.target.restore(path) == {'note': b'?'}

        def expect(done):
            if done:
                self.ledger, known = deepcopy(self.saved[path])
                if not anew:        # one with room to spare keeps its budget
                    self.ledger.budget = known['budget'] = budget
                same(snapshot(self.target), known)
        try:
            self.attempt(act, expect)
        except MemoryFileError:
            known = self.saved.get(path)
            assert known is None or not anew and known[0].budget > budget
            if before:
                same(snapshot(self.target), before)

    @rule(wrong=trouble)
    def reset(self, wrong):
        try:
            with fault(self.model, *wrong) if wrong else nullcontext():
                self.target.reset()
        except (torch.OutOfMemoryError, NotFiniteError):
            self.target.reset()
        self.open = None
        self.fresh()

    # ---- what must always hold

    @invariant()
    def holds(self):
        if self.open:
            return
        target, ledger, cache = self.target, self.ledger, self.target.cache
        stats = target.stats()
        seen = len(ledger.tokens)
        assert stats.tokens_seen == seen
        assert stats.tokens_evicted == seen - cache.memory[0].count
        assert stats.frames_seen == len(ledger.frames) and stats.frames_skipped == 0
        assert stats.answers == ledger.answers and stats.budget == ledger.budget
        assert stats.kv_bytes == self.bytes == cache.nbytes()
        newest = target.newest and (target.newest.stamp_ns, target.newest.camera)
        assert newest == (ledger.frames[-1] if ledger.frames else None)
        retained = set()
        for window, slots in [*((0, s) for s in cache.slots), *cache.windows.items()]:
            assert slots.count <= (window - 1 if window else ledger.budget)
            for row in slots.held(INDEX).tolist():
                assert row == sorted(set(row)) and row[-1] < seen
                if ledger.held is not None and not window:
                    assert row == ledger.held
                if window:
                    assert row == list(range(max(0, seen - window + 1), seen))
                else:
                    assert row[:ledger.pinned] == list(range(min(ledger.pinned, seen)))
                    retained |= {ledger.tokens[index][1] for index in row}
            for index, *token in slots.meta[:, :, :slots.count].flatten(1).T[
                    :, [INDEX, KIND, FRAME, STAMP]].tolist():
                assert tuple(token) == ledger.tokens[index]
        if cache.slots:
            assert stats.frames_retained == len(retained - {-1})
        for name, tensor in persist._views(target).items():
            assert not tensor.is_floating_point() or tensor.isfinite().all(), name
        for number, frame in target.frames.items():
            assert (frame.stamp_ns, frame.camera) == ledger.frames[number]
