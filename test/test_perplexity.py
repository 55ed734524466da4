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

"""The perplexity benchmark measures what it says: against plain Hugging Face, on tiny models."""

import math

from infmllm_ros.engine import load_model
import numpy as np
import pytest
import torch
from torch.nn import functional
import transformers

from benchmarks import byte_llama, perplexity  # noqa: I100

TINY = {'hidden_size': 32, 'intermediate_size': 64, 'num_attention_heads': 4,
        'num_key_value_heads': 2}
PASSAGES, SIZE, WINDOWS, CHUNK = 4, 80, 5, 40
ORDER = perplexity.shuffle(WINDOWS, PASSAGES, 0)
HELD = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (PASSAGES, SIZE), dtype=np.uint8))
STREAM = [perplexity.START, *torch.cat([HELD[row].flatten() for row in ORDER]).tolist()]


@pytest.fixture(scope='module', autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def make(place, layers):
    """Write a model whose random weights are large enough for a wrong token to show."""
    byte_llama.write(place, num_hidden_layers=layers, **TINY)
    model = plain(place)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.save_pretrained(place)
    return place


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp('model'), 2)


@pytest.fixture(scope='module')
def one_layer(tmp_path_factory):
    return make(tmp_path_factory.mktemp('shallow'), 1)


def plain(folder):
    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def cost(logits, ids):
    """Count the nats of each token, given the logits before it."""
    return functional.cross_entropy(logits, torch.tensor(ids), reduction='none').double()


def by_passage(nats):
    """Sort the nats of the whole stream into windows and passages."""
    out = np.zeros(ORDER.shape)
    for place, part in enumerate(nats.split(SIZE)):
        window, position = divmod(place, PASSAGES)
        out[window, ORDER[window, position]] = part.sum()
    return out


def streamed(folder, work, name='streaming_llm', budget=100, say=lambda line: None, **options):
    return perplexity.stream(load_model(folder, 'cpu'), name, options, HELD, ORDER, work,
                             budget=budget, chunk=CHUNK, say=say)


def test_while_nothing_is_evicted_perplexity_is_that_of_plain_hugging_face(folder, tmp_path):
    known = 2 * SIZE * PASSAGES + 1     # the start and two windows
    run = streamed(folder, tmp_path, 'saddle', budget=known)
    with torch.no_grad():
        logits = plain(folder)(input_ids=torch.tensor([STREAM[:known]])).logits[0, :-1]
    expected = by_passage(cost(logits, STREAM[1:known]))
    assert run['nats'][:2] == pytest.approx(expected[:2], rel=1e-4)
    # the negative control: targets that are off by one
    wrong = by_passage(cost(logits, STREAM[2:known + 1]))
    assert np.abs(wrong - expected).max() > 1


@pytest.mark.parametrize('sinks', [0, 4])
def test_under_eviction_it_is_that_of_the_tokens_that_stay(one_layer, tmp_path, sinks):
    # in one layer: in deeper ones, held tokens still know of those that are gone
    model, budget = plain(one_layer), 100
    run = streamed(one_layer, tmp_path, budget=budget, sinks=sinks)
    held, rows = STREAM[:1], []
    with torch.no_grad():
        before = model(input_ids=torch.tensor([held])).logits[0, -1:]
        for start in range(1, len(STREAM), CHUNK):
            chunk = STREAM[start:start + CHUNK]
            logits = model(input_ids=torch.tensor([held + chunk])).logits[0, -len(chunk):]
            rows.append(cost(torch.cat((before, logits[:-1])), chunk))
            before = logits[-1:]
            held += chunk
            if len(held) > budget:
                held = held[:sinks] + held[len(held) - budget + sinks:]
    assert run['evictions'] > 20
    assert run['nats'] == pytest.approx(by_passage(torch.cat(rows)), rel=1e-4)


@pytest.mark.parametrize('label', perplexity.RUNS)
def test_an_interrupted_stream_goes_on_as_if_nothing_had_happened(folder, tmp_path, label):
    name, options = perplexity.RUNS[label]

    def stop(line):
        if line.startswith('window 3'):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streamed(folder, tmp_path / 'torn', name, say=stop, **options)
    lines = []
    resumed = streamed(folder, tmp_path / 'torn', name, say=lines.append, **options)
    whole = streamed(folder, tmp_path / 'whole', name, **options)
    assert len(lines) == WINDOWS - 3
    assert (resumed['nats'] == whole['nats']).all()
    assert resumed['evictions'] == whole['evictions'] > 20
    assert (resumed['age'] == whole['age']).all()


def test_a_fresh_session_reads_the_window_after_one_passage(folder):
    model, window = load_model(folder, 'cpu'), 2
    nats = perplexity.restart(model, 'streaming_llm', {}, HELD, ORDER, [window], budget=900,
                              chunk=CHUNK)
    ids = [perplexity.START, *HELD[ORDER[window - 1][-1]].tolist(),
           *HELD[ORDER[window]].flatten().tolist()]
    with torch.no_grad():
        logits = plain(folder)(input_ids=torch.tensor([ids])).logits[0]
    expected = cost(logits[:-1], ids[1:])[SIZE:].split(SIZE)
    assert nats[0, ORDER[window]] == pytest.approx([float(part.sum()) for part in expected])


def test_every_window_has_the_same_passages_and_none_returns_soon():
    order = perplexity.shuffle(80, 25, 0)
    assert (np.sort(order) == np.arange(25)).all()
    flat = order.flatten()
    for passage in range(25):
        assert np.diff(np.flatnonzero(flat == passage)).min() > 12
    assert len({tuple(row) for row in order}) == 80


def test_what_is_held_out_is_not_trained_on():
    lines = b''.join(b'%05d of a text in lines\n' % number for number in range(4000))
    ids, held = byte_llama.split(lines, 5, 100)
    rest = bytes(ids.tolist())
    assert len(rest) == len(lines) - held.numel()
    for passage in held:
        found = bytes(passage.tolist())
        assert found in lines and found[:5].isdigit() and found[:24] not in rest
    with pytest.raises(ValueError, match='8000'):
        byte_llama.split(lines[:7000], 5, 200)


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    for name, value in {'SHAPE': {**TINY, 'num_hidden_layers': 1}, 'EVERY': 3, 'BATCH': 2,
                        'LENGTH': 24}.items():
        monkeypatch.setattr(byte_llama, name, value)
    ids, models = HELD.flatten(), []

    def stop(line):
        if line.startswith('step 6'):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):    # before the second checkpoint is written
        byte_llama.train(tmp_path / 'torn', ids, 9, say=stop)
    for place in ('torn', 'whole'):
        report = byte_llama.train(tmp_path / place, ids, 9, say=lambda line: None)
        assert report['tokens'] == 9 * 2 * 24
        models.append(plain(tmp_path / place).state_dict())
    assert all(models[0][key].equal(models[1][key]) for key in models[0])


def test_tokens_are_bytes(folder):
    model = load_model(folder, 'cpu')
    text = 'In the beginning\n\té€\x00'
    ids = model.tokenizer(text)['input_ids']
    assert bytes(ids) == text.encode() and model.tokenizer.decode(ids) == text


def test_the_summary_says_how_far_the_last_window_is_from_the_first_full_one(tmp_path):
    rate = np.full((6, 4), 1.5)
    rate[0] += 1            # filling the memory counts nowhere
    rate[-1] += [0.01, 0.03, 0.01, 0.03]
    run = {'nats': rate * 10, 'age': np.full(6, 7.0), 'old': np.zeros(6), 'seconds': 1.0,
           'evictions': 3}
    found = perplexity.summary(run, np.full((2, 4), 14.9), [1, 3], 10)
    assert found['last_over_first'] == pytest.approx(math.exp(0.02), abs=1e-5)
    assert found['last_over_first_error'] == pytest.approx(0.01 / 3 ** 0.5, abs=1e-5)
    assert found['streamed_over_fresh'] == pytest.approx(math.exp(0.01), abs=1e-5)
    assert found['first_full'] == found['lowest'] == pytest.approx(math.exp(1.5), abs=1e-5)
    assert f'{math.exp(1.52):.4f}' in perplexity.table({'saddle': found})
    pytest.importorskip('matplotlib')
    perplexity.figure({'saddle': found}, 40, tmp_path / 'made' / 'drawing.png')
    assert (tmp_path / 'made' / 'drawing.png').stat().st_size > 1000


def test_full_refuses_where_the_context_ends(folder):
    held = HELD.repeat(20, 1)
    took = perplexity.refusal(load_model(folder, 'cpu'), held)
    assert 0 < byte_llama.CONTEXT - took < 3 * perplexity.CHUNK


def test_without_eviction_a_short_text_costs_the_same(folder):
    found = perplexity.unbounded(load_model(folder, 'cpu'), HELD)
    assert len(found['plain']) == PASSAGES
    assert found['streaming_llm'] == pytest.approx(found['plain'], rel=1e-4)
