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

"""The tiny random models: whole folders, the same each time, with what a test wants changed."""

from pathlib import Path

from infmllm_ros.bundled.tiny import FAMILIES, make_tiny
from infmllm_ros.engine import inspect_model, load_model
import pytest
import torch
import transformers
from transformers.image_processing_base import ImageProcessingMixin


@pytest.mark.parametrize('family', FAMILIES)
def test_tiny_folders_are_the_same_for_the_same_seed(family, tmp_path):
    one, two, other = (
        Path(make_tiny(family, tmp_path / name, seed=seed))
        for name, seed in (('one', 0), ('two', 0), ('other', 1)))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name
    shards = sorted(one.glob('model-*.safetensors'))
    assert len(shards) >= 2
    assert all(path.read_bytes() != (other / path.name).read_bytes() for path in shards)


@pytest.mark.parametrize('family', FAMILIES)
def test_transformers_reads_a_tiny_folder_as_it_reads_a_checkpoint(family, tmp_path):
    folder = make_tiny(family, tmp_path)
    spec = inspect_model(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if not spec.adapter.sees:
        assert tokenizer.chat_template == spec.tokenizer.chat_template
        return
    turn = [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'Where?'}]}]
    settings, _ = ImageProcessingMixin.get_image_processor_dict(folder)
    assert settings['image_processor_type'] in dir(transformers)
    processor, _ = transformers.ProcessorMixin.get_processor_dict(folder)
    assert 'Where?' in tokenizer.apply_chat_template(
        turn, chat_template=processor['chat_template'], tokenize=False)
    name = tokenizer.init_kwargs['processor_class']
    assert processor.get('processor_class', name) == name and hasattr(transformers, name)


def test_tiny_folders_leave_the_random_state_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    make_tiny('llama', tmp_path)
    assert torch.rand(1).equal(expected)


@pytest.mark.parametrize('family', FAMILIES)
def test_tiny_folders_take_changes_of_the_language_model(family, tmp_path):
    folder = make_tiny(family, tmp_path, num_hidden_layers=1, num_key_value_heads=1)
    config = transformers.AutoConfig.from_pretrained(folder).get_text_config()
    assert (config.num_hidden_layers, config.num_key_value_heads) == (1, 1)
    load_model(folder, device='cpu')


def test_an_unknown_tiny_family_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'gpt'.*smolvlm"):
        make_tiny('gpt', tmp_path)
