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

"""Keys and values as bytes: against the formula in numpy, and against the numbers they were."""

from types import SimpleNamespace

from faults import fault
from infmllm_ros.engine import LAYOUTS, MemoryFileError, NotFiniteError, StreamingSession
from infmllm_ros.engine.int8 import SAMPLE
from infmllm_ros.engine.positions import INDEX
from machine import same, snapshot
import numpy as np
import pytest
import torch
from zoo import FAMILIES, ONE_LAYER, POLICIES, session, show, words


def tell(target, rounds=4):
    """Show pictures, where there are eyes, and words."""
    for number in range(rounds):
        if target.adapter.sees:
            show(target, number)
        target.tell(words(target.model, 20 + 9 * number, number))


@pytest.fixture(scope='module')
def pair():
    """In one layer keys and values depend on words alone, so both sessions make the same."""
    found = [session('smolvlm', 'full', 700, changes=ONE_LAYER, layout=layout)
             for layout in ('fast', 'int8')]
    for target in found:
        tell(target)
    return found


def exact(layer):
    """Give what `fast` keeps, as numpy: keys and values, [Hkv, n, D]."""
    held = slice(0, layer.slots.count)
    return layer.plain(held)[0].double().numpy(), layer.valued(held)[0].double().numpy()


def byte_scales(numbers):
    """Give the scale of each token and head: its largest number is 127 of them."""
    return np.abs(numbers).max(-1, keepdims=True) / 127


def test_what_is_read_is_what_the_formula_says(pair):
    fast, int8 = pair
    keys, values = exact(fast.cache.full[0])
    # the channels, of the same words through a memory that keeps them as they are
    sample = session('smolvlm', 'full', 700, changes=ONE_LAYER)
    before = sample.stats().tokens
    sample.tell(SAMPLE)
    assert before == len(sample.prefix)
    seen = exact(sample.cache.full[0])[0]
    mean, variance = seen.mean(1, keepdims=True), seen.var(1, keepdims=True)
    spread = np.sqrt(variance + 0.5 * variance.mean(-1, keepdims=True))
    layer = int8.cache.full[0]
    assert np.abs(layer.offset[0].numpy() - mean).max() < 1e-5 * np.abs(mean).max()
    assert np.abs(layer.spread[0].numpy() - spread).max() < 1e-5 * spread.max()

    even = (keys - mean) / spread
    found, also = exact(layer)
    for given, coded, scales, unit, read in (
            (even, layer.master, layer.key_scales, spread, found),
            (values, layer.coded, layer.value_scales, 1.0, also)):
        step = byte_scales(given)
        number = slice(0, layer.slots.count)
        assert np.allclose(scales[0, :, number].numpy(), step, rtol=1e-4)
        own = coded[0, :, number].numpy()
        # a number at the middle of two bytes may go either way
        assert (np.abs(own - given / step) <= 0.5 + 1e-2).all() and own.dtype == np.int8
        assert np.abs(own).max(-1).min() == 127     # all of the range is used
        whole = own * step * unit + (mean if given is even else 0)
        assert np.abs(read - whole).max() <= 1e-4 * np.abs(whole).max()
        assert (np.abs(read - (keys if given is even else values))
                <= (0.5 + 1e-2) * step * unit).all()


def test_channels_far_from_zero_do_not_spoil_the_others():
    """A bias of some channels, as Qwen's keys have: a scale a token alone loses the rest."""
    generator = torch.Generator().manual_seed(0)
    target = session('smolvlm', 'full', 700, changes=ONE_LAYER, layout='int8')
    layer = target.cache.full[0]
    heads, size = layer.heads, layer.offset.shape[-1]
    bias = torch.zeros(size)
    bias[[1, 7]] = torch.tensor([40.0, -60.0])
    keys, more = (torch.randn(1, heads, 64, size, generator=generator) + bias for _ in range(2))
    layer.fresh = True
    layer._write(slice(0, 64), keys, keys)
    layer.fresh = False
    layer._write(slice(64, 128), more, more)
    error = (layer.plain(slice(64, 128)) - more).abs().max()
    plain = (layer.valued(slice(64, 128)) - more).abs().max()
    assert error < 0.05 < 0.2 < plain


@pytest.mark.parametrize('family', FAMILIES)
def test_logits_are_near_those_of_fast(family):
    found = []
    for layout in ('fast', 'int8'):
        target = session(family, 'saddle', 700, layout=layout)
        tell(target)
        assert target.stats().evictions == 0
        found.append(target.logits(words(target.model, 40, 9)).float())
    fast, int8 = found
    off = ((int8 - fast).norm() / fast.norm()).item()
    assert 0 < off < 0.03


def decoded(target, number):
    """List by head and stream index what is read of each token of a layer: its key and value."""
    layer = target.cache.full[number]
    index = layer.slots.held(INDEX).expand(layer.heads, -1)
    held = slice(0, layer.slots.count)
    keys, values = layer.plain(held)[0], layer.valued(held)[0]
    return {(head, token): (keys[head, place], values[head, place])
            for head, row in enumerate(index.tolist()) for place, token in enumerate(row)}


@pytest.mark.parametrize('row', POLICIES)
def test_what_is_kept_never_changes(row, tmp_path):
    """Whatever leaves, is rolled back or goes through a file, kept tokens are read as at first."""
    budget = 900 if row == 'full' else 160
    target = session('smolvlm', row, budget, layout='int8', chunk=32)
    first: dict[int, dict] = {0: {}, 1: {}}
    for number in range(6):
        show(target, number)
        target.tell(words(target.model, 25, number))
        before = snapshot(target)
        target.answer('Where is it?', max_tokens=3)
        before['answers'] += 1
        same(snapshot(target), before)
        if number == 3:
            target.save(tmp_path / 'memory')
            target = StreamingSession.load(tmp_path / 'memory', target.model)
        for layer, known in first.items():
            for token, pair in decoded(target, layer).items():
                old = known.setdefault(token, pair)
                assert all(one.equal(other) for one, other in zip(old, pair, strict=True))
    assert row == 'full' or target.stats().evictions >= 2


def test_files_are_of_their_layout(tmp_path):
    int8 = session('smolvlm', 'saddle', 160, layout='int8')
    tell(int8)
    int8.save(tmp_path / 'memory')
    again = session('smolvlm', 'saddle', 160, layout='int8')
    again.restore(tmp_path / 'memory')
    same(snapshot(again), snapshot(int8))
    other = session('smolvlm', 'saddle', 160, layout='lean')
    before = snapshot(other)
    with pytest.raises(MemoryFileError, match="layout 'int8', but this memory has 'lean': set"):
        other.restore(tmp_path / 'memory')
    same(snapshot(other), before)
    other.save(tmp_path / 'other')
    with pytest.raises(MemoryFileError, match="layout 'lean', but this memory has 'int8': set"):
        int8.restore(tmp_path / 'other')


@pytest.mark.parametrize('kind', ['nan', 'inf', 'memory'])
def test_what_is_not_finite_stays_out(kind):
    target = session('smolvlm', 'saddle', 160, layout='int8')
    tell(target, 2)
    before = snapshot(target)
    with fault(target.model, kind), pytest.raises((NotFiniteError, torch.OutOfMemoryError)):
        target.tell('Go left.')
    same(snapshot(target), before)


def test_half_precision_is_quantised_as_well():
    fast, int8 = (session('smolvlm', 'full', 700, layout=layout, dtype='bfloat16',
                          changes=ONE_LAYER) for layout in ('fast', 'int8'))
    for target in (fast, int8):
        tell(target)
    for one, other in zip(exact(fast.cache.full[0]), exact(int8.cache.full[0]), strict=True):
        assert 0 < np.linalg.norm(other - one) / np.linalg.norm(one) < 0.01


def test_the_channels_are_measured_once():
    target = session('smolvlm', 'saddle', 160, layout='int8')
    known = [t.clone() for layer in target.cache.full for t in layer._channels().values()]
    tell(target)
    target.reset()
    tell(target, 1)
    now = [t for layer in target.cache.full for t in layer._channels().values()]
    assert all(one.equal(other) for one, other in zip(known, now, strict=True))
    assert target.stats().tokens_seen < len(target.prefix) + 100


@pytest.mark.parametrize('layout', LAYOUTS)
def test_what_hermes_merges_is_written_in_every_layout(layout):
    target = session('smolvlm', 'hermes', 700, layout=layout)
    tell(target)
    slots, kept = target.cache.slots[-1], torch.arange(20, 90)[None]
    content, = target.cache.contents(slots)
    before = content.plain.clone(), content.values.clone()
    gone = [n for n in range(slots.count) if not 20 <= n < 90]
    merged = target.policy._merge(SimpleNamespace(count=slots.count, contents=[content]), kept)
    assert merged.tolist() == [[*range(20, 90), gone[-1]]]
    for old, now in zip(before, (content.plain, content.values), strict=True):
        mean = old[:, gone].double().mean(1)
        assert (now[:, gone[-1]] - mean).abs().max() < old.abs().max() / 100
        assert (old[:, gone[-1]] - mean).abs().max() > old.abs().max() / 10, 'it says something'
        assert torch.equal(now[:, :gone[-1]], old[:, :gone[-1]])
