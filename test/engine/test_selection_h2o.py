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

"""H2O and StreamingLLM keep what their papers and their authors' code keep (invariant 5)."""

from infmllm_ros.engine import make_policy
from infmllm_ros.engine.policies import View
from keepers import H2OReference, released_streaming_llm, ReleasedH2O
import numpy as np
import pytest
from references import OneLayer, TinyLlama
from tape import same_prediction, Tape
import torch
from zoo import changed, load, ONE_LAYER, picture, plain, session, words

TWO_LAYERS = changed(num_hidden_layers=2)


def stream(family, changes, oracle, budget, steps=14, **fields):
    """
    Run a session and its reference side by side: frames, words, questions of all sorts.

    Returns
    -------
    int
        Evictions that the reference agreed with.
    """
    model, rng = load(family, changes), np.random.default_rng(0)
    with Tape(model) as tape:
        target = session(family, 'h2o', budget, changes=changes, fields=fields)
        prefix = sum(len(chunk) for chunk in tape.chunks)
        reference = H2OReference(oracle, budget, prefix, **fields)

        def follow():
            for chunk in tape.take():
                reference.feed(chunk)
            reference.judge(target)

        for number in range(steps):
            if model.adapter.sees and number % 2 == 0:
                target.observe(picture(number), stamp_ns=number * 10**9)
            else:
                target.tell(words(model, int(rng.integers(8, 40)), number))
            follow()
            if number % 5 == 1:         # what was only asked in passing does not count
                target.answer('Where is it now?', max_tokens=3, remember=False)
                target.answer('Is it here?', choices=['yes', 'by no means'], remember=False)
                tape.take()
            elif number % 5 == 3:       # what stays in the memory does, to the last token
                target.answer(f'Where is cup {number}?', max_tokens=4, remember=True)
                question, *said = tape.take()
                reference.feed(question)
                reference.evict()       # the engine makes room before the answer
                for chunk in said:
                    reference.feed(chunk)
                reference.judge(target)
    if isinstance(oracle, TinyLlama):   # the layers above the first saw the same memory, too
        same_prediction(target, oracle)
    return target.stats().evictions


@pytest.mark.parametrize('fields', [
    {}, {'scope': 'layer'}, {'scope': 'all', 'recent': 40}, {'reduce': 'max', 'recent': 0.1},
    {'scope': 'all', 'reduce': 'max', 'recent': 0.0}], ids=str)
def test_h2o_keeps_what_all_queries_attended_to(fields):
    oracle = TinyLlama(plain('llama', TWO_LAYERS))
    assert stream('llama', TWO_LAYERS, oracle, 130, **fields) >= 8


@pytest.mark.parametrize('family', ['smolvlm', 'llava_onevision', 'qwen2_5_vl'])
def test_h2o_on_frames_over_layers(family):
    oracle = TinyLlama(plain(family, TWO_LAYERS))
    assert stream(family, TWO_LAYERS, oracle, 150) >= 4


@pytest.mark.parametrize('family', ['qwen3_vl', 'qwen3'])
def test_h2o_in_one_layer_of_the_other_families(family):
    oracle = OneLayer(plain(family, ONE_LAYER, attention='eager'))
    assert stream(family, ONE_LAYER, oracle, 150, scope='layer') >= 4


def test_a_choice_that_was_not_said_leaves_no_score():
    model, texts = load('llama', TWO_LAYERS), ['yes', 'by no means', 'not at all, never']

    def decide(choices):
        target = session('llama', 'h2o', 130, changes=TWO_LAYERS)
        target.tell(words(model, 100, 0))
        answer = target.answer('Is it?', choices=choices, remember=True)
        slots = target.cache.slots[0]
        return answer.text, slots.state[:, :, :slots.count].clone()

    said, _ = decide(texts)
    one, other = (decide([said, text]) for text in texts if text != said)
    assert one[0] == other[0] == said
    assert one[1].equal(other[1])


def views(policy, lengths, heads, feed):
    """
    Run a policy by itself over chunks of so many tokens; yield what it keeps of what it held.

    Parameters
    ----------
    feed : callable
        From (queries, keys) to the attention of a chunk, float32 [heads, queries, keys].
    """
    state, index = torch.zeros(policy.channels, heads, 0), torch.zeros(heads, 0, dtype=torch.long)
    for length in lengths:
        count = index.shape[1] + length
        new = torch.arange(length).expand(heads, -1) + (index.max() + 1 if count > length else 0)
        index = torch.cat((index, new), 1)
        state = torch.cat((state, torch.zeros(policy.channels, heads, length)), 2)
        attention = feed(length, count)
        asked = torch.ones(count)       # h2o does not read it
        policy.observe(state, torch.from_numpy(attention.sum(1)), asked)
        keep = torch.arange(count).expand(heads, -1)
        if count > policy.budget:
            keep = policy.select(View(
                count, policy.budget, policy.sinks, *[index] * 6, state))
        index = index.gather(1, keep)
        state = state.gather(2, keep[None].expand(len(state), -1, -1))
        yield attention, keep.tolist()


@pytest.mark.parametrize('budget,recent', [(64, .5), (40, 36.), (40, 4.)])
def test_same_scores_into_h2o_and_its_released_code_same_tokens_out(budget, recent):
    rng = np.random.default_rng(budget)

    def attend(queries, keys):
        logits = rng.normal(0, 2, (4, queries, keys)).astype(np.float32)
        logits[:, np.arange(queries)[:, None] + (keys - queries) < np.arange(keys)] = -np.inf
        weights = np.exp(logits)
        return weights / weights.sum(-1, keepdims=True)

    policy = make_policy('h2o', budget=budget, recent=recent)
    count = int(recent * budget) if recent <= 1 else int(recent)
    released = ReleasedH2O(budget - count, count)
    lengths = [50, *rng.integers(1, 30, 60), *[1] * 100]
    for attention, kept in views(policy, lengths, 4, attend):
        assert kept == released(attention)


@pytest.mark.parametrize('sinks', [0, 4])
def test_same_stream_into_streaming_llm_and_its_released_code_same_tokens_out(sinks):
    policy = make_policy('streaming_llm', budget=50, sinks=sinks)
    lengths = [30, *np.random.default_rng(0).integers(1, 40, 60), *[1] * 100]
    for attention, kept in views(
            policy, lengths, 1, lambda queries, keys: np.zeros((1, queries, keys))):
        assert kept == [released_streaming_llm(attention.shape[2], sinks, 50 - sinks)]


def test_h2o_freezes_on_what_came_first():
    """The paper's method, not a mistake: with equal attention, age wins."""
    policy = make_policy('h2o', budget=40)
    for number, (_, kept) in enumerate(views(
            policy, [30] * 40, 1,
            lambda queries, keys: np.full((1, queries, keys), 1 / keys, np.float32))):
        if number > 1:
            assert kept[0][:20] == list(range(20))      # those that were held first, for ever
