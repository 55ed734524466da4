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

"""Quantised weights are streamed as transformers loads them."""

from infmllm_ros.engine import load_model, StreamingSession
import pytest
import torch
import transformers
import zoo


def test_quantised_weights_are_those_of_plain_transformers(tmp_path):
    quantization = pytest.importorskip('torchao.quantization')
    pytest.importorskip('accelerate')
    config = transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig())
    model = load_model(
        zoo.folder('llama'), device='cpu', dtype='float32', quantization_config=config)
    target = StreamingSession(model, zoo.policy('saddle', 400), max_question=8, max_answer=8)
    ids = zoo.words(model, 120, 1)
    found = torch.cat([target.logits(part) for part in ids.split(50)])
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        zoo.folder('llama'), dtype=torch.float32, device_map='cpu', quantization_config=config)
    whole = torch.cat((model.adapter.prompt.prefix(''), ids))[None]
    with torch.no_grad():
        expected = plain(input_ids=whole).logits[0, -120:]
        exact = zoo.plain('llama')(input_ids=whole).logits[0, -120:]
    assert (found - expected).abs().max() < 1e-4
    assert (found - exact).abs().max() > 1e-3       # they are quantised
    target.save(tmp_path / 'memory')
    again = StreamingSession.load(tmp_path / 'memory', model)
    assert again.logits(ids[:5]).equal(target.logits(ids[:5]))
