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

"""A model serves plainly beside its sessions, and several sessions in turn (invariant 9)."""

from infmllm_ros.engine import load_model, make_policy, StreamingSession
from infmllm_ros.engine.plain import plain_inputs, Shown
import pytest
import torch
from zoo import (
    cells,
    EVICTING,
    FAMILIES,
    folder,
    load,
    picture,
    plain,
    session,
    show,
    SIGHTED,
    words,
)


def generate(model, ids):
    """Let Hugging Face generate from text, greedily."""
    return model.model.generate(
        input_ids=ids[None], max_new_tokens=10, do_sample=False, attention_mask=torch.ones_like(
            ids[None]))[0].tolist()


@pytest.mark.parametrize('family', FAMILIES)
def test_generate_works_before_beside_and_after_a_session(family):
    ids = words(load(family), 30, 0)
    expected = plain(family).generate(
        input_ids=ids[None], max_new_tokens=10, do_sample=False,
        attention_mask=torch.ones_like(ids[None]))[0].tolist()
    model = load_model(str(folder(family)), device='cpu', dtype='float32')
    assert generate(model, ids) == expected
    target = StreamingSession(model, make_policy('saddle', budget=160), max_question=48,
                              max_answer=16)
    assert generate(model, ids) == expected
    target.tell(ids)
    assert generate(model, ids) == expected
    asking = iter(target.ask('Where is the cup?', max_tokens=8))
    next(asking)
    assert generate(model, ids) == expected  # in the midst of an answer
    rest = ''.join(asking)
    assert target.answer('Where is the cup?', max_tokens=8).text.endswith(rest)
    del target, asking
    assert generate(model, ids) == expected


@pytest.mark.parametrize('family', ['llama', 'qwen3_vl'])
def test_a_padded_batch_is_generated_beside_a_session(family):
    model = load(family)
    session(family, 'saddle', 160).tell(words(model, 20, 0))
    short, long = words(model, 9, 0), words(model, 14, 1)
    pad = torch.zeros(5, dtype=torch.long)
    ids = torch.stack([torch.cat([pad, short]), long])
    mask = torch.stack([torch.cat([pad, torch.ones_like(short)]), torch.ones_like(long)])
    batch = model.model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    expected = plain(family).generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert batch.equal(expected)


@pytest.mark.parametrize('family', SIGHTED)
def test_a_plain_forward_with_pixels_works_beside_a_session(family):
    model = load(family)
    show(session(family, 'saddle', 160), 0)
    inputs, _ = plain_inputs(
        model, [words(model, 5, 0), Shown(picture(1)), words(model, 5, 1)])
    with torch.no_grad():
        one, other = model.model(**inputs).logits, plain(family)(**inputs).logits
    assert one.equal(other)


@pytest.mark.parametrize(('family', 'row'), [
    *((family, 'recent_frames') for family in FAMILIES),
    *cells(['qwen2_5_vl'], EVICTING)])
def test_two_sessions_of_one_model_do_not_disturb_each_other(family, row):
    model = load(family)
    rows = ('saddle', row)

    def step(target, number, life):
        if model.adapter.sees:
            show(target, 100 * life + number)
        target.tell(words(model, 20, 100 * life + number))
        return target.answer('Where?', max_tokens=4, remember=bool(number % 2)).text

    alone = []
    for life, row in enumerate(rows):
        target = session(family, row, 160)
        said = [step(target, number, life) for number in range(5)]
        alone.append((said, target.kept(0).tolist(), target.logits(words(model, 6, 0))))
    both = [session(family, row, 160) for row in rows]
    said = [[], []]
    for number in range(5):
        for life, target in enumerate(both):
            said[life].append(step(target, number, life))
    for life, target in enumerate(both):
        together = (said[life], target.kept(0).tolist(), target.logits(words(model, 6, 0)))
        assert together[:2] == alone[life][:2]
        assert together[2].equal(alone[life][2])


def test_answers_of_two_sessions_may_be_interleaved():
    model = load('llama')
    targets = [session('llama', 'saddle', 160) for _ in range(2)]
    for number, target in enumerate(targets):
        target.tell(words(model, 40, number))
    expected = [target.answer('Where?', max_tokens=8).text for target in targets]
    askings = [iter(target.ask('Where?', max_tokens=8)) for target in targets]
    said = ['', '']
    for _ in range(9):
        for number, asking in enumerate(askings):
            said[number] += next(asking, '')
    assert said == expected
