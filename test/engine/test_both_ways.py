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

"""Frames whose tokens attend to each other both ways: Gemma 3."""

from infmllm_ros.engine.plain import plain_inputs, Shown
import numpy as np
import pytest
import torch
from zoo import changed, load, ONE_LAYER, picture, plain, session, words

TOLERANCE = 1e-4
# 3 is less than the 4 tokens of a frame: a window that does not reach across it
WINDOWS = [3, 4, 7, 24]
# the larger models of Gemma 4, without shared keys, look ahead in sliding layers alone
OWN = {'gemma3': {}, 'gemma4': {
    'use_bidirectional_attention': 'vision', 'num_kv_shared_layers': 0}}


def stream(model, frames=5):
    """Invent a stream of frames and words; its parts, and the images with their stamps."""
    parts, shown = [model.adapter.prompt.prefix('Be brief.')], []
    for number in range(frames):
        shown.append((picture(number), number * 10**9))
        parts += [Shown(shown[-1][0], number * 1.0), words(model, 3 + 4 * number, number)]
    return parts, shown


def feed(target, parts, shown):
    """Feed the parts of a stream, but for the prefix."""
    for number, (image, stamp) in enumerate(shown):
        target.observe(image, stamp)
        target.tell(parts[2 + 2 * number])


def expect(model, changes, parts, last, attention='sdpa', family='gemma3', **options):
    """Run plain Hugging Face over a whole stream."""
    inputs, count = plain_inputs(model, parts)
    with torch.no_grad():
        return plain(family, changes, attention=attention)(**inputs, **options), count - last


@pytest.mark.parametrize('window', WINDOWS)
@pytest.mark.parametrize('row', ['full', 'h2o', 'live_vlm'])
@pytest.mark.parametrize('family', OWN)
def test_frames_around_the_edge_of_a_sliding_window(family, window, row):
    changes = changed(sliding_window=window, **OWN[family])
    model = load(family, changes)
    parts, shown = stream(model)
    target = session(family, row, 600, changes=changes)
    feed(target, parts, shown)
    asked = words(model, 15, 9)
    found = target.logits(asked).float()
    output, start = expect(model, changes, [*parts, asked], 15, family=family)
    assert (found - output.logits[0, start:]).abs().max() <= TOLERANCE


@pytest.mark.parametrize('window', WINDOWS)
@pytest.mark.parametrize('family', OWN)
def test_frames_of_one_pass_do_not_see_later_frames(family, window):
    changes = changed(sliding_window=window, **OWN[family])
    model = load(family, changes)
    parts, shown = stream(model)
    target = session(family, 'full', 600, changes=changes, chunk=200)
    target.observe_many(*zip(*shown))
    asked = words(model, 15, 9)
    found = target.logits(asked).float()
    frames = [part for part in parts if isinstance(part, Shown)]
    output, start = expect(model, changes, [parts[0], *frames, asked], 15, family=family)
    assert (found - output.logits[0, start:]).abs().max() <= TOLERANCE


@pytest.mark.parametrize('family, name', [
    ('gemma3', 'token_type_ids'), ('gemma4', 'mm_token_type_ids')])
def test_a_frame_that_is_read_one_way_would_be_seen(family, name):
    """Negative control: causal frames move logits far over tolerance, and all words are causal."""
    changes = changed(**OWN[family])
    model = load(family, changes)
    parts, shown = stream(model)
    target = session(family, 'full', 600, changes=changes)
    feed(target, parts, shown)
    asked = words(model, 15, 9)
    found = target.logits(asked).float()
    inputs, count = plain_inputs(model, [*parts, asked])
    for types, differs in ((inputs.pop(name), False), (None, True)):
        with torch.no_grad():
            output = plain(family, changes)(**inputs, **{name: types})
        worst = (found - output.logits[0, count - 15:]).abs().max()
        assert worst > 100 * TOLERANCE if differs else worst <= TOLERANCE


def attention_of(model, parts):
    """Give plain attention of a one-layer model, [n, n] averaged over heads, and who sees whom."""
    output, count = expect(
        model, ONE_LAYER, parts, 0, attention='eager', output_attentions=True)
    ids = plain_inputs(model, parts)[0]['input_ids'][0].numpy()
    image = ids == model.adapter.placeholder
    frame = np.cumsum(image & ~np.roll(image, 1))
    place = np.arange(count)
    sees = (place[:, None] >= place) | (
        image[:, None] & image & (frame[:, None] == frame))
    weights = output.attentions[0][0].mean(0).double().numpy()
    assert not weights[~sees].any()
    return weights, sees


def sizes_of(model, parts):
    """Count the tokens of each chunk."""
    return [len(model.adapter.encode(model.model, part.image, part.seconds).ids)
            if isinstance(part, Shown) else len(part) for part in parts]


def test_h2o_sums_what_all_queries_of_a_frame_attend_to():
    model = load('gemma3', ONE_LAYER)
    parts, shown = stream(model)
    target = session('gemma3', 'h2o', 600, changes=ONE_LAYER, fields={'scope': 'layer'})
    feed(target, parts, shown)
    slots = target.cache.slots[0]
    weights, _ = attention_of(model, parts)
    np.testing.assert_allclose(
        slots.state[0, 0, :slots.count].numpy(), weights.sum(0), atol=1e-4)


@pytest.mark.parametrize('rows', [4, 5, 6, 9])
def test_saddle_averages_over_the_queries_that_saw_a_token(rows):
    # a frame ends in three tokens of its wrapper, so windows of 4 to 6 rows begin within it
    model = load('gemma3', ONE_LAYER)
    parts, shown = stream(model)
    target = session('gemma3', 'saddle', 600, changes=ONE_LAYER, fields={
        'window': 'chunk', 'rows': rows, 'discount': 1.0})
    feed(target, parts, shown)
    weights, sees = attention_of(model, parts)
    total, windows = np.zeros(len(weights)), np.zeros(len(weights))
    ends = np.cumsum(sizes_of(model, parts))
    for start, end in zip(ends, ends[1:]):
        asking = slice(max(start, end - rows), end)
        seen = sees[asking].sum(0)
        seen[end:] = 0
        total += np.where(seen > 0, weights[asking].sum(0) / np.maximum(seen, 1), 0)
        windows += seen > 0
    slots = target.cache.slots[0]
    assert slots.count == len(weights)
    np.testing.assert_allclose(slots.state[1, 0, :slots.count].numpy(), windows)
    np.testing.assert_allclose(slots.state[0, 0, :slots.count].numpy(), total, atol=1e-5)


def test_flex_prefill_leaves_frames_that_look_ahead_alone(monkeypatch):
    from infmllm_ros.engine.prefill.flex import FlexPrefill
    model, calls = load('gemma3', ONE_LAYER), []
    attend = FlexPrefill.attend
    monkeypatch.setattr(FlexPrefill, 'attend', lambda *args: (calls.append(1), attend(*args))[1])
    parts, shown = stream(model)
    flex = FlexPrefill(min_chunk=2, min_held=2, block=16)
    target = session('gemma3', 'full', 600, changes=ONE_LAYER, prefill=flex)
    calls.clear()
    target.observe_many(*zip(*shown))
    assert not calls
    target.tell(words(model, 40, 0))
    assert calls
