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

"""The check of a checkpoint: true numbers, the right verdict, and its reason."""

import dataclasses
import re

from infmllm_ros.engine import (
    check_budget,
    ContextFull,
    EngineError,
    make_policy,
    rope,
    StreamingSession,
)
from infmllm_ros.engine.check import Comparison, main
import pytest
import transformers
from zoo import changed, copy, folder, load, plain, shards, show


def run(capsys, *arguments):
    """Run the check on the CPU; its exit status and its findings by title."""
    status = main([*map(str, arguments), '--device', 'cpu'])
    lines = capsys.readouterr().out.splitlines()
    return status, {line[:10].strip(): line[10:] for line in lines}


LAYERS = {
    'llama': '3: 3 bounded by the budget',
    'smolvlm': '3: 3 bounded by the budget',
    'llava_onevision': '3: 3 bounded by the budget',
    'qwen3_vl': '3: 3 bounded by the budget',
    'gemma3': '3: 2 bounded by the budget, 1 with a window of 24',
    'gemma4': "3: 1 bounded by the budget, 1 with a window of 24, 1 on an earlier layer's keys",
    'qwen3_5_text': '3: 2 bounded by the budget, 1 with a constant state',
}


@pytest.mark.parametrize('family', LAYERS)
def test_a_model_that_works_is_said_to(family, capsys):
    status, found = run(capsys, folder(family))
    assert (status, found['verdict']) == (0, 'works')
    assert found['family'].startswith(f'{family}, ')
    assert found['layers'] == LAYERS[family]
    assert found['context'] == '4096 positions'
    assert float(re.search(r'by (\S+) at most', found['logits'])[1]) < 1e-5
    assert found['answer'].startswith('16 of 16 ')
    count = sum(weight.numel() for weight in plain(family).parameters())
    size, unit = re.fullmatch(
        rf'{count / 1e6:.2f} million, (\S+) (.iB) as float32 on cpu', found['weights']).groups()
    assert float(size) * {'KiB': 2**10, 'MiB': 2**20}[unit] == pytest.approx(4 * count, rel=0.05)


@pytest.mark.parametrize(('family', 'changes', 'told'), [
    ('llama', {'rope_parameters': {
        'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': 4.0,
        'original_max_position_embeddings': 512}}, 'RoPE, yarn, half, 16 of 16 channels'),
    ('gpt_neox', {}, 'RoPE, default, half, 8 of 32 channels'),
    ('glm', {}, 'RoPE, default, interleaved, 8 of 16 channels'),
    ('smollm3', {}, 'RoPE, default, half and none, 16 of 16 channels'),
    ('qwen2_5_vl', {}, 'M-RoPE, default, half, 16 of 16 channels'),
    ('minicpmv4_6', {}, 'RoPE, default, half, 8 of 32 channels')])
def test_the_rotation_is_named_before_the_weights(family, changes, told, tmp_path, capsys):
    place = copy(family, tmp_path, changed(**changes) if changes else '')
    for path in shards(place):
        path.unlink()
    status, found = run(capsys, place)
    assert found['rotation'] == told and 'memory' in found and 'weights' in found
    assert status == 1
    assert re.search("does not work: cannot load the weights of '.* is missing", found['verdict'])


def test_a_template_or_processor_that_was_forgotten_is_told(tmp_path, capsys):
    status, found = run(capsys, folder('smolvlm'))
    assert status == 0 and not {'prompt', 'pixels'} & found.keys()
    place = copy('smolvlm', tmp_path)
    for name in ('chat_template.json', 'preprocessor_config.json'):
        (place / name).unlink()
    status, found = run(capsys, place)
    assert status == 0
    assert 'no chat template' in found['prompt'] and 'preprocessor_config' in found['pixels']


def test_the_memory_of_a_budget_is_what_a_session_takes(capsys):
    _, found = run(capsys, folder('smolvlm'), '--budget', 1000)
    target = StreamingSession(load('smolvlm'), make_policy('saddle', budget=1000))
    size = target.stats().kv_bytes
    assert found['memory'].startswith(f'{size / 2**20:.1f} MiB at a budget of 1000 tokens: ')
    # three layers of two heads of 16 channels in float32: keys, their rotated copy, values
    assert float(found['token'].split(' KiB')[0]) == pytest.approx(3 * 2 * 16 * 4 * 3 / 1024, 0.1)
    full = StreamingSession(load('smolvlm'), make_policy('full', budget=1000))
    with pytest.raises(ContextFull):
        for number in range(1000):
            show(full, number)
    whole = int(re.search(r'(\d+) whole frames', found['memory'])[1])
    assert whole == full.frames_seen
    assert f', {whole / 60:.1f} minutes at 1 frame/s' in found['memory']


def test_without_a_budget_a_short_context_gets_what_it_can_hold(capsys):
    place = folder('llama', changed(max_position_embeddings=2048))
    status, found = run(capsys, place)
    budget = int(re.search(r'budget of (\d+) tokens', found['memory'])[1])
    assert status == 0 and 1000 < budget < 2048
    spec = load('llama', changed(max_position_embeddings=2048)).spec
    assert check_budget(spec, make_policy('saddle', budget=budget)).budget == budget
    status, found = run(capsys, place, '--budget', budget + 1)
    assert status == 1 and f'the largest budget that works is {budget}' in found['verdict']


def test_half_precision_is_given_its_rounding(capsys):
    status, found = run(capsys, folder('llama'), '--dtype', 'bfloat16')
    assert (status, found['verdict']) == (0, 'works')
    assert float(re.search(r'by (\S+) at most', found['logits'])[1]) > 1e-3


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_session_that_is_not_the_plain_model_is_found_out(dtype, capsys, monkeypatch):
    monkeypatch.setattr(
        'infmllm_ros.engine.store.rotate', lambda x, cos, sin, kind, out=None: rope.rotate(
            x, cos, sin, kind if out is None else rope.NONE, out))       # forget to turn the keys
    status, found = run(capsys, folder('llama'), '--dtype', dtype)
    assert status == 1
    assert 'does not work: a session is not the plain model' in found['verdict']


@pytest.mark.parametrize(('findings', 'told'), [
    ({'limit': 4.0}, '--dtype float32'),
    ({'difference': float('nan')}, 'differ by nan'),
    ({'difference': 0.2}, r'differ by 2.0e-01 \(limit 1.0e-01'),
    ({'gap': 0.3, 'equal': 15}, '1 of 16 tokens')])
def test_a_difference_beyond_rounding_and_rounding_beyond_reason_are_refused(findings, told):
    good = Comparison(
        difference=0.05, largest=2.7, limit=0.1, tokens=16, equal=15, gap=0.1)    # a tie
    good.verify()
    with pytest.raises(EngineError, match=told):
        dataclasses.replace(good, **findings).verify()


def test_a_model_that_cannot_be_streamed_is_refused_as_it_is_by_load_model(tmp_path, capsys):
    transformers.Gemma2Config(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, head_dim=16).save_pretrained(tmp_path)
    status, found = run(capsys, tmp_path)
    assert status == 1 and list(found) == ['verdict']
    assert "'gemma2'" in found['verdict'] and 'a cap on its logits' in found['verdict']


@pytest.mark.parametrize(('arguments', 'told'), [
    (['/no/such/folder'], "there is no folder '/no/such/folder'"),
    (['LLAMA', '--budget', 'much'], "budget is 'much'"),
    (['LLAMA', '--budget', '10'], 'budget 10 is too small'),
    (['LLAMA', '--tokens-per-frame', '8'], 'reads text only'),
    (['LLAMA', '--dtype', 'int3'], "dtype is 'int3'")])
def test_what_a_user_gets_wrong_is_the_reason(arguments, told, capsys):
    status, found = run(capsys, *(folder('llama') if a == 'LLAMA' else a for a in arguments))
    assert status == 1 and found['verdict'].startswith('does not work: ')
    assert told in found['verdict']


def test_what_a_model_raises_in_a_stream_is_the_reason(capsys, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError('of all things')
    monkeypatch.setattr('infmllm_ros.engine.check.compare', fail)
    status, found = run(capsys, folder('llama'))
    assert status == 1
    assert found['verdict'].endswith('a short stream ended in ZeroDivisionError (of all things)')
