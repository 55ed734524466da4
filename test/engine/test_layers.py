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

"""Layers that the policy does not bound: sliding windows, and states of constant size."""

from infmllm_ros.engine import BudgetError, FlexPrefill, ModelError, StreamingSession
from infmllm_ros.engine.plain import plain_inputs, Shown
import numpy as np
import pytest
from references import TinyLlama
from tape import generate_plainly, Tape, text_tokens
import torch
from zoo import (
    cells,
    changed,
    EVICTING,
    holders,
    load,
    picture,
    plain,
    policy,
    ROPES,
    session,
    words,
)

TOLERANCE = 1e-4
WINDOW = 24


def layered(*types, **text_config):
    """Write changes of a text config that give it layers of these kinds."""
    return changed(num_hidden_layers=len(types), layer_types=types, **text_config)


FULL, SLIDING, LINEAR, CONV = 'full_attention', 'sliding_attention', 'linear_attention', 'conv'
QWEN2 = {'use_sliding_window': True, 'sliding_window': WINDOW}
# name -> (family, changes): layers in the order of published models, and in others
MODELS = {
    'gemma3': ('gemma3_text', layered(*[SLIDING] * 5, FULL)),
    'gemma3_scaled': ('gemma3_text', layered(SLIDING, FULL, SLIDING, rope_parameters={
        SLIDING: {'rope_type': 'default', 'rope_theta': 10000.0},
        FULL: {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 1000000.0}})),
    'mistral': ('mistral', changed(sliding_window=WINDOW)),
    'mistral_wide': ('mistral', changed(sliding_window=4096)),
    'qwen2': ('qwen2', layered(FULL, SLIDING, SLIDING, **QWEN2)),
    'qwen2_all': ('qwen2', layered(SLIDING, SLIDING, **QWEN2)),
    'gemma3n': ('gemma3n_text', layered(
        SLIDING, FULL, SLIDING, FULL, FULL, num_kv_shared_layers=3)),
    'gemma4': ('gemma4_text', layered(
        FULL, SLIDING, FULL, SLIDING, SLIDING, FULL, num_kv_shared_layers=2)),
    'lfm2': ('lfm2', layered(CONV, CONV, FULL, CONV)),
    'lfm3': ('lfm3', layered(CONV, SLIDING, FULL, CONV)),
    'qwen3_next': ('qwen3_next', layered(LINEAR, LINEAR, FULL, LINEAR)),
    'qwen3_5': ('qwen3_5_text', layered(LINEAR, LINEAR, LINEAR, FULL)),
}


def told_plainly(model, *parts):
    """Join the opening of a session and what was told to it."""
    return torch.cat([model.adapter.prompt.prefix('Be brief.'), *parts])


@pytest.mark.parametrize('chunk', [7, 64])
@pytest.mark.parametrize('name', MODELS)
def test_logits_of_a_stream_longer_than_the_window_are_those_of_one_plain_pass(name, chunk):
    family, changes = MODELS[name]
    model = load(family, changes)
    target = session(family, 'saddle', 700, changes=changes, chunk=chunk)
    ids = words(model, 150, 1)
    found = [target.logits(ids[:100])]
    target.answer('Where is the cup?', max_tokens=4)                            # leaves no trace
    target.answer('Is it red?', choices=['yes', 'not at all'])
    found.append(target.logits(ids[100:]))
    whole = told_plainly(model, ids)
    with torch.no_grad():
        expected = plain(family, changes)(input_ids=whole[None]).logits[0, -150:].float()
    assert (torch.cat(found).float() - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize('name', MODELS)
def test_answers_after_a_long_stream_are_those_of_generate(name):
    family, changes = MODELS[name]
    model = load(family, changes)
    stops = sorted(model.adapter.prompt.stop_ids)
    told = words(model, 120, 4)
    for remember in (False, True):
        target = session(family, 'saddle', 700, changes=changes)
        target.tell(told)
        answer = target.answer('Where is the cup?', max_tokens=12, remember=remember)
        prompt = model.adapter.prompt
        whole = told_plainly(model, told, prompt.question('Where is the cup?'))
        ids = generate_plainly(
            plain(family, changes), {'input_ids': whole[None]}, len(whole), stops, 12)
        said = torch.tensor([i for i in ids if i not in stops], dtype=torch.long)
        assert list(answer.token_ids) == said.tolist()
    asked = words(model, 20, 9)
    whole = torch.cat([whole, said, prompt.reopen(), asked])
    with torch.no_grad():
        expected = plain(family, changes)(input_ids=whole[None]).logits[0, -20:].float()
    assert (target.logits(asked).float() - expected).abs().max() <= TOLERANCE


def test_a_system_prompt_longer_than_window_and_headroom_enters_in_parts():
    model, prompt = load('gemma3_text'), 'Be brief. ' * 30
    target = session('gemma3_text', 'saddle', 400, system_prompt=prompt, max_question=8,
                     max_answer=8, chunk=16)
    ids = words(model, 40, 0)
    whole = torch.cat([model.adapter.prompt.prefix(prompt), ids])
    assert len(whole) - 40 > WINDOW + target.plan.headroom
    with torch.no_grad():
        expected = plain('gemma3_text')(input_ids=whole[None]).logits[0, -40:].float()
    assert (target.logits(ids).float() - expected).abs().max() <= TOLERANCE


def test_frames_cut_by_a_window_keep_the_distances_of_the_stream():
    """M-RoPE: the oldest frame of a window advances by its whole grid, whatever is left of it."""
    changes = layered(SLIDING, FULL, SLIDING, **QWEN2)
    model = load('qwen2_5_vl', changes)
    target = session('qwen2_5_vl', 'full', 700, changes=changes)
    parts = []
    for number in range(6):
        told = words(model, 3 + number, number)
        target.observe(picture(number, 90, 60), stamp_ns=number * 10**9, camera='front')
        target.tell(told)
        parts += [Shown(picture(number, 90, 60), number, 'front'), told]
    asked = words(model, 10, 99)
    found = target.logits(asked).float()
    inputs, count = plain_inputs(
        model, [model.adapter.prompt.prefix('Be brief.'), *parts, asked])
    with torch.no_grad():
        expected = plain('qwen2_5_vl', changes)(**inputs).logits[0, count - 10:count].float()
    assert (found - expected).abs().max() <= TOLERANCE


# ------------------------------------------------------------------------ with evictions
def live(family, row, changes):
    """Live past evictions, with questions of either sort; the session and its whole stream."""
    model = load(family, changes)
    probe = policy(row).probe
    guidance = model.adapter.prompt.question(probe).tolist() if probe else []
    with Tape(model) as tape:
        target = session(family, row, 160, changes=changes)
        stream = []
        for number in range(14):
            target.tell(words(model, 5 + 7 * (number % 4), number))
            if number % 4 == 1:
                target.answer('Where is it?', max_tokens=4, remember=True)
            stream += tape.take()
            if number % 4 == 2:
                target.answer('And now?', max_tokens=4, remember=False)
                target.answer('Is it red?', choices=['yes', 'not at all'])
                tape.take()
    return target, [token.word for chunk in stream
                    for token in chunk if [t.word for t in chunk] != guidance]


@pytest.mark.parametrize(('family', 'other', 'row'), [(*kind, row) for kind, row in cells(
    [('gemma3_text', SLIDING), ('gemma4_text', SLIDING), ('qwen2', SLIDING), ('lfm2', CONV),
     ('qwen3_next', LINEAR), ('qwen3_5_text', LINEAR)],
    EVICTING)])
def test_what_is_evicted_is_gone_from_full_layers_only(family, other, row):
    """
    Take the first layer's output over the whole stream, and the second's on what is kept.

    The first layer sees words alone, so no eviction elsewhere can change what it says of each.
    """
    changes = layered(
        other, FULL, num_key_value_heads=1, **(QWEN2 if family == 'qwen2' else {}))
    target, stream = live(family, row, changes)
    assert target.stats().evictions >= 2
    kept = target.kept(1)[0]
    assert len(kept) < len(stream) == target.stats().tokens_seen
    asked = words(load(family, changes), 12, 99)
    reference = plain(family, changes)
    whole = torch.cat([torch.tensor(stream), asked])
    chosen = torch.cat([kept, torch.arange(len(stream), len(whole))])
    first, hidden = reference.get_decoder().layers[0], []
    with torch.no_grad():
        note = first.register_forward_hook(lambda *args: hidden.append(args[2]))
        reference(input_ids=whole[None])
        note.remove()
        replace = first.register_forward_hook(lambda *_: hidden[0][:, chosen])
        expected = reference(input_ids=whole[chosen][None]).logits[0, -12:].float()
        replace.remove()
    assert (target.logits(asked).float() - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize('row', ['saddle', 'saddle_heads', 'saddle_layers'])
def test_windows_among_evicting_layers_are_those_of_a_slow_reference(row):
    """Fed one token at a time, a reference only has to forget what left the window."""
    changes = layered(SLIDING, FULL, SLIDING, FULL, **QWEN2)
    model = load('qwen2', changes)
    reference = TinyLlama(plain('qwen2', changes))
    sliding, full = (0, 2), (1, 3)
    held = {(layer, group): [] for layer in full for group in range(reference.groups)}

    def feed(ids):
        logits = []
        for token in text_tokens(model, ids):
            reference.feed([token])
            logits.append(reference.logits[-1])
            for layer in sliding:
                for group in range(reference.groups):
                    size = len(reference.store[layer][group])
                    reference.keep(layer, group, list(range(max(0, size + 1 - WINDOW), size)))
        for indices in held.values():
            indices += range(seen, seen + len(ids))
        return np.array(logits)

    target = session('qwen2', row, 96, changes=changes)
    seen, ids = 0, model.adapter.prompt.prefix('Be brief.')
    for number in range(20):
        feed(ids)
        seen += len(ids)
        for (layer, group), indices in held.items():
            stay = target.kept(layer)[group].tolist()
            reference.keep(layer, group, [indices.index(index) for index in stay])
            held[layer, group] = stay
        ids = words(model, 5 + number, number)
        target.tell(ids) if number < 19 else None
    assert target.stats().evictions > 5
    expected = feed(ids)
    assert np.abs(target.logits(ids).double().numpy() - expected).max() <= TOLERANCE


@pytest.mark.parametrize('row', ['saddle', 'streaming_llm', 'full'])
def test_a_sliding_layer_holds_the_last_tokens_of_the_stream(row):
    model = load('gemma3_text')
    target = session('gemma3_text', row, 400 if row == 'full' else 160)
    for number in range(8):
        target.tell(words(model, 1 + 9 * number, number))
        target.answer('Where?', max_tokens=3, remember=row != 'full' and number % 2 == 0)
        seen = target.stats().tokens_seen
        last = range(max(0, seen - WINDOW + 1), seen)
        assert target.kept(1).tolist() == [list(last)] * 2
    assert target.stats().tokens == target.kept(0).shape[1] >= WINDOW


@pytest.mark.parametrize('family', ['lfm2', 'qwen3_5_text'])
def test_a_layer_that_carries_a_state_says_that_it_holds_no_tokens(family):
    target = session(family, 'saddle', 160)
    assert holders(target) == [0, 2]
    with pytest.raises(ModelError, match=r'layer 1 .*\[0, 2\]'):
        target.kept(1)


@pytest.mark.parametrize('name', ['mistral', 'qwen2_all'])
def test_a_model_of_sliding_layers_alone_is_its_window(name):
    family, changes = MODELS[name]
    target = session(family, 'full', 160, changes=changes)
    size = target.stats().kv_bytes
    target.tell(words(load(family, changes), 500, 0))       # nothing that `full` could refuse
    stats = target.stats()
    assert stats.tokens == target.kept(0).shape[1] == WINDOW - 1
    assert (stats.tokens_evicted, stats.evictions) == (stats.tokens_seen - stats.tokens, 0)
    assert stats.kv_bytes == size
    small = session(family, 'saddle', '1MiB', changes=changes)      # any size that holds windows
    assert small.stats().kv_bytes == size
    with pytest.raises(BudgetError, match='1MiB'):
        session(family, 'saddle', '1KiB', changes=changes)


def test_a_window_as_long_as_the_context_is_bounded_by_the_policy():
    family, changes = MODELS['mistral_wide']
    target = session(family, 'saddle', 160, changes=changes)
    target.tell(words(load(family, changes), 500, 0))
    assert target.stats().evictions and target.kept(1).shape[1] <= 160


@pytest.mark.parametrize('family', ['gemma3_text', 'lfm2', 'qwen3_5_text'])
def test_reset_forgets_windows_and_states(family):
    model = load(family)
    target, fresh = (session(family, 'saddle', 160) for _ in range(2))
    target.tell(words(model, 300, 0))
    target.reset()
    ids = words(model, 30, 1)
    assert target.logits(ids).equal(fresh.logits(ids))
    assert target.answer('Where?', max_tokens=6).text == fresh.answer('Where?', max_tokens=6).text


@pytest.mark.parametrize('opens', [True, False])
@pytest.mark.parametrize('family', [
    'gemma3_text', 'gemma4_text', 'lfm2', 'qwen3_5_text', 'qwen3_next'])
def test_a_loaded_memory_goes_on_bit_for_bit(family, opens, tmp_path, monkeypatch):
    model = load(family)
    if not opens:       # as with a tokenizer that has neither a template nor a first token
        monkeypatch.setattr(
            model.adapter.prompt, 'prefix', lambda _: torch.empty(0, dtype=torch.long))
    target = session(family, 'saddle', 160)
    target.tell(words(model, 300, 0))
    target.save(tmp_path / 'memory')
    revived = StreamingSession.load(tmp_path / 'memory', model)
    ids = words(model, 40, 1)
    assert revived.logits(ids).equal(target.logits(ids))


# -------------------------------------------------------------------------- what policies see
def test_a_policy_is_shown_the_full_layers_alone(monkeypatch):
    views = []
    rule = policy('infinipot_v', scope='layer')
    monkeypatch.setattr(rule, 'select', lambda view: (
        views.append(view), type(rule).select(rule, view))[1])
    changes = layered(SLIDING, FULL, SLIDING, FULL, FULL)
    model = load('gemma3_text', changes)
    target = StreamingSession(model, rule, max_question=16, max_answer=8)
    target.tell(words(model, 300, 0))
    assert {(view.group, view.depth, tuple(c.layer for c in view.contents))
            for view in views} == {(0, 3, (0,)), (1, 3, (1,)), (2, 3, (2,))}
    for view, layer in zip(views[-3:], (1, 3, 4), strict=True):
        held = target.cache.layers[layer]
        assert view.contents[0].values.data_ptr() == held.values.data_ptr()


def test_flex_prefill_leaves_sliding_layers_alone(monkeypatch):
    calls, attend = [], FlexPrefill.attend
    monkeypatch.setattr(FlexPrefill, 'attend', lambda self, *given: (
        calls.append(given[0].shape), attend(self, *given))[1])
    flex = FlexPrefill(block=16, min_budget=16, min_chunk=32, min_held=32, gamma=1.0)
    changes = layered(SLIDING, FULL, SLIDING)
    model = load('gemma3_text', changes)
    ids = words(model, 64, 0)
    given = {'changes': changes, 'chunk': 64}
    found = session('gemma3_text', 'full', 300, prefill=flex, **given).logits(ids)
    assert len(calls) == 1
    expected = session('gemma3_text', 'full', 300, **given).logits(ids)
    assert (found - expected).abs().max() <= TOLERANCE


def test_each_kind_of_layer_turns_by_its_own_angles():
    changes = MODELS['gemma3_scaled'][1]
    rope = load('gemma3_text', changes).rope
    tables = rope.tables(50, torch.float32)
    for layer, (theta, factor) in enumerate([(1e4, 1), (1e6, 8), (1e4, 1)]):
        angle = np.arange(50)[:, None] / factor * theta ** (-np.arange(0, 16, 2) / 16)
        cos = tables[rope.layers[layer].table].cos[:50].numpy()
        assert rope.layers[layer].kind == 'half'
        assert np.abs(cos - np.cos(np.concatenate([angle, angle], 1))).max() < 1e-5


def test_longrope_turns_windows_by_the_frequencies_of_the_whole_memory():
    """Hugging Face has one set of frequencies a pass, chosen by its last position."""
    changes = layered(SLIDING, FULL, **QWEN2, rope_parameters=ROPES['longrope'])
    model, reference = load('qwen2', changes), plain('qwen2', changes)
    target = session('qwen2', 'full', 700, changes=changes)
    turn = reference.get_decoder().rotary_emb
    for count, end in ((400, 400), (200, 600)):
        target.tell(words(model, count, count))
        cos, sin = (t[:, :WINDOW - 1] for t in turn(torch.empty(0), torch.arange(end)[None]))
        scale = cos[0, 0, 0]    # the model multiplies its queries and keys by it
        layer = target.cache.layers[0]
        master, turned = (t[0, :, :WINDOW - 1] for t in (layer.master, layer.keys))
        first, second = master.chunk(2, -1)
        expected = (master * cos + torch.cat((-second, first), -1) * sin) / scale
        assert (turned - expected).abs().max() < 1e-5
