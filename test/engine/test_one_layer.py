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

"""In one layer, only what is kept can matter: Hugging Face on just those tokens (invariant 4)."""

import pytest
from references import logits_plainly
from tape import Tape, text_tokens
import torch
import zoo
from zoo import cells, load, ONE_HEAD, ONE_LAYER, plain, POLICIES, session, show, words

TOLERANCE = {'float32': 1e-5, 'bfloat16': 0.15}


def live(family, row, dtype='float32', changes=None):
    """
    Live through frames, words and answers with evictions; return what remained.

    Returns
    -------
    tuple
        The session, the tokens of the whole stream and the model's folder changes.
    """
    if changes is None:
        changes = ONE_HEAD if POLICIES[row][1].get('scope') == 'head' else ONE_LAYER
    model = load(family, changes, dtype)
    probe = POLICIES[row][1].get('probe')
    with Tape(model) as tape:
        target = session(
            family, row, 900 if row == 'full' else 160, changes=changes, dtype=dtype)
        guidance = [] if probe is None else model.adapter.prompt.question(probe).tolist()
        stream = []
        for number in range(12):
            if model.adapter.sees:
                show(target, number)
            target.tell(words(model, 5 + 7 * (number % 4), number))
            if number % 4 == 1:
                target.answer('Where is it?', max_tokens=4, remember=True)
            stream += tape.take()
            if number % 4 == 2:
                target.answer('And now?', max_tokens=4, remember=False)
                tape.take()
    stream = [token for chunk in stream if [t.word for t in chunk] != guidance for token in chunk]
    assert len(stream) == target.stats().tokens_seen
    return target, stream, changes


@pytest.mark.parametrize(('family', 'row'), cells())
def test_logits_after_evictions_are_those_of_the_kept_tokens_alone(family, row):
    target, stream, changes = live(family, row)
    assert row == 'full' or target.stats().evictions >= 2
    kept = [stream[index] for index in target.kept(0)[0].tolist()]
    stats = target.stats()
    assert stats.tokens == len(kept) == stats.tokens_seen - stats.tokens_evicted
    assert stats.frames_retained == len({token.frame for token in kept} - {None})
    ids = words(load(family, changes), 12, 99)
    asked = text_tokens(load(family, changes), ids)
    expected = logits_plainly(plain(family, changes), kept + asked)[-12:]
    found = target.logits(ids).float()
    assert (found - expected).abs().max() <= TOLERANCE['float32']
    # the negative control: one token less, hence one position off, and it shows
    wrong = logits_plainly(plain(family, changes), kept[:20] + kept[21:] + asked)[-12:]
    assert (found - wrong).abs().max() > 100 * TOLERANCE['float32']


@pytest.mark.parametrize('family', ['llama', 'qwen2_5_vl'])
def test_half_precision_does_not_drift_over_many_evictions(family):
    changes = ONE_LAYER
    model = load(family, changes, 'bfloat16')
    target, stream, _ = live(family, 'streaming_llm', 'bfloat16')
    with Tape(model) as tape:
        while target.stats().evictions < 200:
            target.tell(words(model, 9, target.stats().evictions))
        stream += [token for chunk in tape.take() for token in chunk]
    kept = [stream[index] for index in target.kept(0)[0].tolist()]
    ids = words(model, 12, 99)
    expected = logits_plainly(
        plain(family, changes, 'bfloat16'), kept + text_tokens(model, ids))[-12:]
    found = target.logits(ids).float()
    assert torch.isfinite(found).all()
    assert (found - expected).abs().max() <= TOLERANCE['bfloat16']


@pytest.mark.parametrize('row', ['saddle', 'h2o', 'streaming_vlm', 'live_vlm', 'infinipot_v',
                                 'hermes'])
@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl'])
def test_half_precision_is_as_good_whoever_chooses(family, row):
    target, stream, changes = live(family, row, 'bfloat16')
    kept = [stream[index] for index in target.kept(0)[0].tolist()]
    model = load(family, changes, 'bfloat16')
    ids = words(model, 12, 99)
    expected = logits_plainly(
        plain(family, changes, 'bfloat16'), kept + text_tokens(model, ids))[-12:]
    assert (target.logits(ids).float() - expected).abs().max() <= TOLERANCE['bfloat16']


@pytest.mark.parametrize('rope', zoo.ROPES)
def test_every_scaling_turns_kept_tokens_as_hugging_face_does(rope):
    changes = zoo.changed(num_hidden_layers=1, rope_parameters=zoo.ROPES[rope])
    target, stream, _ = live('llama', 'streaming_llm', changes=changes)
    kept = [stream[index] for index in target.kept(0)[0].tolist()]
    ids = words(load('llama', changes), 12, 99)
    expected = logits_plainly(
        plain('llama', changes), kept + text_tokens(load('llama', changes), ids))[-12:]
    assert (target.logits(ids).float() - expected).abs().max() <= TOLERANCE['float32']
