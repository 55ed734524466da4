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

"""The evidence of an answer: the frames that it attended to, as a slow reference finds them."""

from keepers import keep_streaming_llm
import numpy as np
import pytest
from references import TinyLlama
from tape import says, Tape, text_tokens
from test_answers import lived, QUESTION
import torch
from zoo import changed, load, picture, plain, session, SIGHTED, words


@pytest.mark.parametrize('choices', [None, ['yes', 'no, not at all']])
@pytest.mark.parametrize('family', SIGHTED)
def test_evidence_names_retained_frames_only(family, choices):
    target = lived(family, frames=30)
    assert target.stats().frames_retained < 30
    answer = target.answer(QUESTION, max_tokens=5, choices=choices)
    weights = [evidence.weight for evidence in answer.evidence]
    assert 0 < len(weights) <= 8
    assert weights == sorted(weights, reverse=True)
    assert 0 < min(weights) and sum(weights) <= 1 + 1e-6
    assert len({evidence.frame for evidence in answer.evidence}) == len(weights)
    for evidence in answer.evidence:
        assert evidence.stamp_ns == evidence.frame * 10**9
        assert evidence.camera == f'camera {evidence.frame % 2}'


@pytest.mark.parametrize('kinds', [1, 2])
def test_evidence_is_the_attention_of_the_queries_that_predicted(kinds):
    changes = changed(num_hidden_layers=kinds)
    model = load('smolvlm', changes)
    with Tape(model) as tape:
        target = session('smolvlm', 'full', 600, changes=changes)
        for number in range(5):
            target.observe(picture(number), stamp_ns=number)
        before = [token for chunk in tape.take() for token in chunk]
        said = words(model, 4, 0)
        with says(model, said.tolist()):
            answer = target.answer(QUESTION, max_tokens=4)
    question = model.adapter.prompt.question(QUESTION)
    oracle = TinyLlama(plain('smolvlm', changes))
    oracle.feed(before)
    attention = oracle.feed(text_tokens(model, torch.cat([question, said[:-1]])))
    rows = np.mean([layer[:, -4:].mean((0, 1)) for layer in attention], 0)
    weights = {}
    for slot, token in enumerate(before):
        if token.frame is not None:
            weights[token.frame] = weights.get(token.frame, 0) + rows[slot]
    found = {evidence.frame: evidence.weight for evidence in answer.evidence}
    assert found.keys() == weights.keys()
    assert all(abs(found[frame] - weights[frame]) < 1e-5 for frame in weights)


def test_evidence_follows_its_tokens_through_the_eviction_that_a_question_brings():
    changes, budget = changed(num_hidden_layers=2), 160
    model = load('smolvlm', changes)
    oracle, held = TinyLlama(plain('smolvlm', changes)), []

    def feed(tokens):
        rows = np.mean([layer[:, -1].mean(0) for layer in oracle.feed(tokens)], 0)
        start = held[-1][0] + 1 if held else 0
        held.extend(enumerate(tokens, start))
        return {index: row for (index, _), row in zip(held, rows)}

    def evict():
        kept = set(keep_streaming_llm([index for index, _ in held], budget, prefix))
        slots = [slot for slot, (index, _) in enumerate(held) if index in kept]
        for layer in range(2):
            for group in range(oracle.groups):
                oracle.keep(layer, group, slots)
        held[:] = [held[slot] for slot in slots]

    with Tape(model) as tape:
        target = session('smolvlm', 'streaming_llm', budget, changes=changes)
        for number in range(12):
            target.observe(picture(number), stamp_ns=number)
        prefix, *frames = tape.take()
        feed(prefix)
        prefix = len(prefix)
        for frame in frames:
            feed(frame)
            evict()
        said = words(model, 4, 0)
        with says(model, said.tolist()):
            answer = target.answer(QUESTION, max_tokens=4, remember=True)
        question, *decoded, _ = tape.take()
    rows = [feed(question)]
    evict()
    rows += [feed(chunk) for chunk in decoded]
    weights = {}
    for index, token in held:
        if token.frame is not None:
            share = sum(row.get(index, 0) for row in rows) / len(rows)
            weights[token.frame] = weights.get(token.frame, 0) + share
    found = {evidence.frame: evidence.weight for evidence in answer.evidence}
    best = sorted(weights, key=weights.get, reverse=True)[:8]
    assert list(found) == best and len(rows) == 4
    assert all(abs(found[frame] - weights[frame]) < 1e-5 for frame in best)
