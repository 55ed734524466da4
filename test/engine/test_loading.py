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

"""Weights: whole or refused, of the type and in the place asked for, with word of the progress."""

from importlib.util import find_spec
import json
import os
import subprocess
import sys

from infmllm_ros.engine import inspect_model, load_model
from infmllm_ros.engine.models import pick_dtype
import pytest
import torch
import transformers
import zoo
from zoo import refusal


def test_a_model_is_ready_for_inference_only():
    model = load_model(str(zoo.folder('smolvlm')))
    assert not model.model.training
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    assert model.device.type == ('cuda' if torch.cuda.is_available() else 'cpu')
    assert next(model.model.parameters()).device.type == model.device.type


@pytest.mark.parametrize('stored, wanted, loaded', [
    ('float32', 'auto', torch.float32),
    ('bfloat16', 'auto', torch.bfloat16),
    ('float16', 'auto', torch.float32),
    ('bfloat16', 'float32', torch.float32),
    ('float32', torch.bfloat16, torch.bfloat16),
])
def test_weights_have_the_type_of_the_checkpoint_or_the_one_asked_for(
        tmp_path, stored, wanted, loaded):
    folder = zoo.copy('llava_onevision', tmp_path)
    weights = zoo.plain('llava_onevision', dtype=stored)
    weights.save_pretrained(folder, max_shard_size='200KB')
    model = load_model(folder, device='cpu', dtype=wanted)
    assert model.dtype == loaded
    assert {parameter.dtype for parameter in model.model.parameters()} == {loaded}
    chunk = model.adapter.encode(model.model, zoo.picture(0), 0.0)
    assert chunk.features['video'].pooler_output.dtype == loaded


def test_float16_stays_on_a_gpu():
    config = transformers.LlamaConfig(dtype='float16')
    assert pick_dtype(config, 'auto', torch.device('cuda')) == torch.float16


@pytest.mark.parametrize('options, words', [
    ({'dtype': 'int8'}, "'int8'"), ({'dtype': 'half of it'}, "'half of it'"),
    ({'device': 'gpu'}, "'gpu'"), ({'device': 'cuda:99'}, "'cuda:99'")])
def test_an_unknown_device_or_type_is_refused(options, words):
    line = refusal(load_model, zoo.folder('llama'), **options)
    assert words in line and "'auto'" in line


def test_sharded_weights_are_loaded(tmp_path):
    folder = zoo.copy('qwen3_vl', tmp_path)
    plain = zoo.plain('qwen3_vl')
    assert len(zoo.shards(folder)) >= 2
    model = load_model(folder, device='cpu')
    theirs = plain.state_dict()
    for name, weights in model.model.state_dict().items():
        assert weights.equal(theirs[name])


def test_missing_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file
    folder = zoo.copy('llama', tmp_path)
    name = 'model.layers.1.mlp.up_proj.weight'
    index = json.loads((folder / 'model.safetensors.index.json').read_text())['weight_map']
    weights = load_file(folder / index[name])
    weights.pop(name)
    save_file(weights, folder / index[name], metadata={'format': 'pt'})
    line = refusal(load_model, folder, device='cpu')
    assert '1 missing' in line and name in line


def test_an_unknown_kind_is_refused_in_a_line_that_can_be_read(tmp_path):
    folder = zoo.copy('smolvlm', tmp_path)
    form = json.loads((folder / 'config.json').read_text())
    form['text_config']['model_type'] = True     # transformers then lists all kinds that it knows
    (folder / 'config.json').write_text(json.dumps(form))
    line = refusal(load_model, folder, device='cpu')
    assert 'model type' in line and len(line) < 1000 and line.endswith('Hugging Face checkpoint')


def test_torn_weights_are_refused(tmp_path):
    folder = zoo.copy('llama', tmp_path)
    path = zoo.shards(folder)[0]
    path.write_bytes(path.read_bytes()[:10_000])
    assert 'load the weights' in refusal(load_model, folder, device='cpu')


def test_a_missing_shard_is_named_before_any_is_read(tmp_path, monkeypatch):
    folder = zoo.copy('qwen3_vl', tmp_path)
    shards = [path.name for path in zoo.shards(folder)]
    os.remove(folder / shards[1])
    monkeypatch.setattr(transformers.AutoModelForImageTextToText, 'from_pretrained', None)
    line = refusal(load_model, folder, device='cpu')
    assert f'({shards[1]} is missing, 1 of {len(shards)} weight files)' in line
    assert 'complete Hugging Face checkpoint' in line


def test_progress_is_told_in_lines(capfd):
    lines = []
    load_model(zoo.folder('llama'), device='cpu', progress=lines.append)
    assert 'reading config' in lines[0] and 'as float32 onto cpu' in lines[1]
    assert lines[2:] == [f'loading weights: {percent} %' for percent in range(10, 101, 10)]
    assert capfd.readouterr().err == ''


def test_a_folder_is_loaded_without_asking_the_network(tmp_path):
    """In a process of its own, where any connection is an error and nothing says offline."""
    program = (
        'import socket, sys\n'
        'def connect(*args): raise AssertionError("network")\n'
        'socket.socket.connect = socket.getaddrinfo = connect\n'
        'from infmllm_ros.engine import load_model\n'
        'print(load_model(sys.argv[1], device="cpu").device)\n')
    environment = {k: v for k, v in os.environ.items() if not k.startswith('HF_HUB_OFFLINE')}
    done = subprocess.run(
        [sys.executable, '-c', program, zoo.folder('smolvlm')], env=environment,
        capture_output=True, text=True)
    assert done.stdout == 'cpu\n', done.stderr


class Moved(BaseException):
    """A model was moved that must lie where it was loaded."""


def loaded_with(monkeypatch):
    """Note the options of `from_pretrained`, without the packages that they need."""
    seen, load = {}, transformers.AutoModelForCausalLM.from_pretrained

    def spy(*args, **options):
        seen.update(options)
        for name in ('device_map', 'quantization_config'):
            options.pop(name, None)
        vars(options['config']).pop('quantization_config', None)
        model, report = load(*args, **options)
        monkeypatch.setattr(model, 'to', lambda device: (_ for _ in ()).throw(Moved))
        return model, report

    monkeypatch.setattr(transformers.AutoModelForCausalLM, 'from_pretrained', spy)
    return seen


def test_quantised_weights_are_loaded_where_they_are_to_stay(monkeypatch):
    seen = loaded_with(monkeypatch)
    model = load_model(zoo.folder('llama'), device='cpu', quantization_config='as it came')
    assert seen['quantization_config'] == 'as it came'
    assert seen['device_map'] == {'': torch.device('cpu')} and model.device.type == 'cpu'
    with pytest.raises(Moved):
        load_model(zoo.folder('llama'), device='cpu')


def test_a_checkpoint_that_is_quantised_says_so_itself(monkeypatch):
    seen = loaded_with(monkeypatch)
    spec = inspect_model(zoo.folder('llama'))
    spec.config.quantization_config = {'quant_method': 'fp8'}
    load_model(spec, device='cpu')
    assert seen['device_map'] == {'': torch.device('cpu')}


@pytest.mark.skipif(find_spec('accelerate') is not None, reason='accelerate is installed')
def test_options_that_need_a_package_name_it():
    assert 'accelerate' in refusal(load_model, zoo.folder('llama'), device_map='auto')
