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

"""With room for everything, a session is the plain model (invariant 3)."""

from infmllm_ros.engine.plain import plain_inputs, Shown
import pytest
from tape import generate_plainly, Tape
import torch
import zoo
from zoo import (
    cells,
    changed,
    FAMILIES,
    load,
    picture,
    plain,
    ROPES,
    session,
    words,
)

TOLERANCE = 1e-4  # float32, on logits of scale 1 to 10
QUESTION = 'Where is the cup?'


def stream(model, seed=0):
    """Invent a stream: words and, for a model that sees, frames of several shapes."""
    parts = []
    for number, size in enumerate([(64, 64), (90, 40), (30, 100), (64, 64)]):
        if model.adapter.sees:
            parts.append(Shown(picture(seed + number, *size), number * 1.0, 'front'))
        parts.append(words(model, 7 + 11 * number, seed + number))
    return parts


def tell(target, parts):
    """Feed a stream to a session."""
    for part in parts:
        if isinstance(part, Shown):
            target.observe(part.image, stamp_ns=int(part.seconds * 1e9), camera=part.camera)
        else:
            target.tell(part)


@pytest.mark.parametrize(('family', 'row'), cells())
def test_logits_are_those_of_one_plain_forward_pass(family, row):
    model = load(family)
    parts = stream(model)
    target = session(family, row, 700, fields=zoo.WIDE.get(row))
    tell(target, parts)
    asked = words(model, 40, 9)
    found = target.logits(asked).float()
    assert target.stats().tokens_evicted == 0
    whole = [model.adapter.prompt.prefix('Be brief.'), *parts, asked]
    inputs, count = plain_inputs(model, whole)
    with torch.no_grad():
        expected = plain(family)(**inputs).logits[0, count - 40:count].float()
    assert (found - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize('family', FAMILIES)
def test_answers_are_those_of_generate(family):
    model = load(family)
    stops = sorted(model.adapter.prompt.stop_ids)
    parts = stream(model, 30)
    for remember in (False, True):
        target = session(family, 'saddle', 700)
        tell(target, parts)
        with Tape(model) as tape:
            answer = target.answer(QUESTION, max_tokens=16, remember=remember)
            chunks = tape.take()
        prompt = model.adapter.prompt
        whole = [prompt.prefix('Be brief.'), *parts, prompt.question(QUESTION)]
        ids = generate_plainly(plain(family), *plain_inputs(model, whole), stops, 16)
        said = [i for i in ids if i not in stops]
        assert answer.tokens == len(said) >= 4, 'a short answer proves little: change the seed'
        assert answer.finish == ('stop' if len(said) < len(ids) else 'length')
        assert answer.text == model.tokenizer.decode(said, skip_special_tokens=True)
        assert list(answer.token_ids) == said
        decoded = [chunk[0].word for chunk in chunks[1:]][:len(said) - 1]
        assert decoded == said[:-1]
    # what was remembered is the conversation: question, answer and the opening of the next turn
    asked = words(model, 20, 9)
    inputs, count = plain_inputs(model, [*whole, torch.tensor(said), prompt.reopen(), asked])
    with torch.no_grad():
        expected = plain(family)(**inputs).logits[0, count - 20:count].float()
    assert (target.logits(asked).float() - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl', 'qwen3_vl'])
def test_a_wrong_position_would_be_seen(family):
    """Negative control: a frame put a little off its place moves logits far over tolerance."""
    model = load(family)
    parts = stream(model)
    asked = words(model, 20, 9)
    whole = [model.adapter.prompt.prefix('Be brief.'), *parts, asked]
    target = session(family, 'full', 700)
    tell(target, parts)
    found = target.logits(asked).float()
    inputs, count = plain_inputs(model, whole)
    if 'image_grid_thw' in inputs:
        right, _ = plain(family).model.get_rope_index(
            inputs['input_ids'], inputs['mm_token_type_ids'], inputs['image_grid_thw'])
    else:
        right = torch.arange(count)[None]
    for shift, differs in ((0, False), (1, True)):
        places = right + shift * (torch.arange(count) >= 40)  # one gap of one, once
        with torch.no_grad():
            logits = plain(family)(**inputs, position_ids=places).logits[0, -20:].float()
        worst = (found - logits).abs().max()
        assert worst > 100 * TOLERANCE if differs else worst <= TOLERANCE


@pytest.mark.parametrize('chunk', [16, 37, 256])
@pytest.mark.parametrize('rope', ROPES)
def test_every_scaling_of_llama(rope, chunk):
    changes = changed(rope_parameters=ROPES[rope])
    model = load('llama', changes)
    target = session('llama', 'full', 1200, changes=changes, chunk=chunk)
    told = words(model, 150, 1)
    target.tell(told)
    asked = words(model, 30, 2)
    found = target.logits(asked).float()
    whole = torch.cat([model.adapter.prompt.prefix('Be brief.'), told, asked])
    with torch.no_grad():
        expected = plain('llama', changes)(input_ids=whole[None]).logits[0, -30:].float()
    assert (found - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize('family', [
    'llama', 'smolvlm', 'qwen3_vl', 'internvl', 'gemma3', 'lfm2_vl'])
def test_half_precision_differs_no_more_than_the_plain_model_in_chunks(family):
    model = load(family, dtype='bfloat16')
    parts = stream(model)
    target = session(family, 'full', 700, dtype='bfloat16')
    tell(target, parts)
    asked = words(model, 40, 9)
    found = target.logits(asked).float()
    whole = [model.adapter.prompt.prefix('Be brief.'), *parts, asked]
    inputs, _ = plain_inputs(model, whole)
    with torch.no_grad():
        expected = plain(family, dtype='bfloat16')(**inputs).logits[0, -40:].float()
        exact = plain(family)(**{
            name: value.float() if value.is_floating_point() else value
            for name, value in inputs.items()}).logits[0, -40:]
    rounding = (expected - exact).abs().max()
    assert (found - exact).abs().max() < 2 * rounding + 0.02
