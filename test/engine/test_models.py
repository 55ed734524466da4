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

"""Families: from a folder to a model, and from a frame to its tokens and features."""

import json
import shutil

from infmllm_ros.engine import inspect_model, load_model
from infmllm_ros.engine.layers import layer_specs
import numpy as np
import pytest
import torch
from transformers.cache_utils import DummyLayer
import zoo
from zoo import refusal

SHAPES = [(64, 64), (480, 640), (1080, 1920), (1, 1), (5, 700), (700, 5), (2, 2000)]
# The family's own tokens around a frame, and what the tiny model makes of 56 x 56 pixels.
WRAPPED = {
    'smolvlm': (
        '\nFrame from 01:15:<fake_token_around_image><global-img>{}<fake_token_around_image>'),
    'llava_onevision': '{}',
    'qwen2_vl': '<|vision_start|>{}<|vision_end|>',
    'qwen2_5_vl': '<|vision_start|>{}<|vision_end|>',
    'idefics3': '<fake_token_around_image><global-img>{}<fake_token_around_image>',
    'internvl': 'Frame76: <img>{}</img>\n',
    'gemma3': '\n\n<start_of_image>{}<end_of_image>\n\n',
    'lfm2_vl': '<|image_start|>{}<|image_end|>',
    'gemma4': ' 01:15 <|image>{}<image|>',
    'minicpmv4_6': '<image>{}</image>',
    'lfm3_vl': '<75.5 seconds><|vision_start|>{}<|vision_end|>',
    'qwen3_vl': '<75.5 seconds><|vision_start|>{}<|vision_end|>',
    'qwen3_5': '<75.5 seconds><|vision_start|>{}<|vision_end|>',
}
PLACEHOLDERS = {
    'smolvlm': '<image>' * 4,
    'llava_onevision': '<video>' * 4,
    'qwen2_vl': '<|image_pad|>' * 4,
    'qwen2_5_vl': '<|image_pad|>' * 4,
    'idefics3': '<image>' * 4,
    'internvl': '<IMG_CONTEXT>' * 4,
    'gemma3': '<image_soft_token>' * 4,
    'lfm2_vl': '<image>' * 16,
    'gemma4': '<|video|>' * 16,
    'lfm3_vl': '<|image_pad|>' * 4,
    'minicpmv4_6': '<|video_pad|>' * 16,
    'qwen3_vl': '<|image_pad|>' * 4,
    'qwen3_5': '<|image_pad|>' * 4,
}


def encode(model, image, seconds=0.0):
    """See one frame."""
    return model.adapter.encode(model.model, image, seconds)


def rows(features):
    """Count the feature vectors of a chunk."""
    (output,) = features.values()
    parts = output.pooler_output
    parts = [parts] if isinstance(parts, torch.Tensor) else parts
    return sum(part.flatten(0, -2).shape[0] for part in parts)


def change(folder, name, **fields):
    """Change fields of a JSON file of a folder."""
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# ---- frames


@pytest.mark.parametrize('family', zoo.SIGHTED)
@pytest.mark.parametrize('shape', SHAPES)
def test_a_frame_of_any_shape_fits_and_has_one_feature_per_placeholder(family, shape):
    model = zoo.load(family)
    chunk = encode(model, zoo.picture(0, *shape), 12.5)
    (span,) = chunk.spans
    assert chunk.ids.dtype == torch.int64 and chunk.ids.ndim == 1
    assert len(chunk) <= model.adapter.frame_tokens
    places = (chunk.ids == model.adapter.placeholder).nonzero().flatten().tolist()
    assert places == list(range(span.start, span.start + span.rows * span.cols))
    assert rows(chunk.features) == len(places)
    if family.startswith('qwen'):
        assert max(span.rows, span.cols) <= model.adapter.max_extent
    else:
        assert model.adapter.max_extent == 1


@pytest.mark.parametrize('family', zoo.SIGHTED)
def test_a_frame_is_wrapped_and_stamped_as_the_family_was_trained(family):
    model = zoo.load(family)
    chunk = encode(model, zoo.picture(0, 56, 56), 75.5)
    wrapped = WRAPPED[family].format(PLACEHOLDERS[family])
    assert model.tokenizer.decode(chunk.ids) == wrapped


@pytest.mark.parametrize('family', zoo.SIGHTED)
@pytest.mark.parametrize('seconds', [-1.0, 0.0, 59.99, 3600.0, 1234567.8, 9e6, 1e9, float('inf')])
def test_a_frame_fits_at_any_time_of_a_stream(family, seconds):
    model = zoo.load(family)
    assert len(encode(model, zoo.picture(0, 400, 400), seconds)) <= model.adapter.frame_tokens


@pytest.mark.parametrize('family', zoo.SIGHTED)
@pytest.mark.parametrize('level', [0, 127, 128, 255])
def test_a_uniform_frame_is_seen_too(family, level):
    model = zoo.load(family)
    chunk = encode(model, np.full((64, 64, 3), level, np.uint8))
    assert rows(chunk.features) == chunk.spans[0].rows * chunk.spans[0].cols


@pytest.mark.parametrize('family', zoo.SIGHTED)
def test_features_of_a_frame_stand_for_its_pixels_in_the_plain_model(family):
    model, plain = zoo.load(family), zoo.plain(family)
    image = zoo.picture(3, 70, 90)
    chunk, pixels = encode(model, image), model.adapter.pixels(image)
    before = zoo.words(model, 7, seed=0)
    ids = torch.cat((before, chunk.ids))[None]
    more = {}
    if 'image_grid_thw' in pixels:
        more['image_grid_thw'] = pixels['image_grid_thw']
    if model.rope.mrope:
        more['mm_token_type_ids'] = (ids == model.adapter.placeholder).int()
    if family == 'gemma3':
        more['token_type_ids'] = (ids == model.adapter.placeholder).long()
    whole = ids
    if family == 'llava_onevision':  # one token more closes a video; it comes after all others
        whole = torch.cat((ids, torch.tensor([[model.adapter.placeholder]])), 1)
    with torch.no_grad():
        by_pixels = plain(input_ids=whole, **{**pixels, **more}).logits[:, :ids.shape[1]]
        by_features = plain(input_ids=ids, mm_encoder_outputs=chunk.features, **more).logits
        other = encode(model, zoo.picture(4, 70, 90)).features
        of_other = plain(input_ids=ids, mm_encoder_outputs=other, **more).logits
    assert (by_pixels - by_features).abs().max() < 1e-5
    assert (by_pixels - of_other).abs().max() > 1e-2


@pytest.mark.parametrize('family', [
    'qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'qwen3_5', 'lfm2_vl', 'gemma4', 'lfm3_vl',
    'minicpmv4_6'])
@pytest.mark.parametrize('cap', [1, 3, 9])
def test_frames_take_no_more_tokens_than_asked_for(family, cap):
    spec = inspect_model(zoo.folder(family), tokens_per_frame=cap)
    free = inspect_model(zoo.folder(family)).adapter.frame_tokens
    most = 24 if family == 'minicpmv4_6' else 16
    assert spec.adapter.frame_tokens == free - most + cap
    model = load_model(spec, device='cpu')
    for shape in SHAPES:
        chunk = encode(model, zoo.picture(0, *shape))
        assert rows(chunk.features) <= cap
    assert len(encode(model, zoo.picture(0, 300, 300), 9_999_999)) <= spec.adapter.frame_tokens


def test_minicpm_frames_take_four_times_the_tokens_where_the_checkpoint_says_so(tmp_path):
    folder, image = zoo.copy('minicpmv4_6', tmp_path), zoo.picture(0, 64, 64)
    few = encode(load_model(folder, device='cpu'), image)
    change(folder, 'config.json', downsample_mode='4x')
    many = encode(load_model(folder, device='cpu'), image)
    assert rows(many.features) == 4 * rows(few.features) == len(many) - 2


@pytest.mark.parametrize('model_type, reason', [
    ('gemma3n', 'timm'), ('minicpmv4_7', 'MiniCPM-V 4.6')])
def test_a_relative_of_known_families_is_refused_with_the_reason(tmp_path, model_type, reason):
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': model_type}))
    assert reason in refusal(inspect_model, tmp_path)


def test_qwen_frames_default_to_a_cap_for_streams(tmp_path):
    folder = zoo.copy('qwen3_vl', tmp_path)
    (folder / 'preprocessor_config.json').unlink()
    adapter = inspect_model(folder).adapter
    grid = adapter.pixels(zoo.picture(0, 1080, 1920))['image_grid_thw'][0].prod() // 4
    assert 128 <= grid <= 256


@pytest.mark.parametrize('family', [
    'smolvlm', 'llava_onevision', 'idefics3', 'internvl', 'gemma3'])
def test_a_cap_below_what_a_family_always_takes_is_refused(family):
    line = refusal(inspect_model, zoo.folder(family), tokens_per_frame=3)
    assert 'tokens_per_frame is 3' in line and '4 a frame' in line
    assert inspect_model(zoo.folder(family), tokens_per_frame=4).adapter.frame_tokens


def test_a_cap_is_refused_where_there_are_no_frames():
    line = refusal(inspect_model, zoo.folder('llama'), tokens_per_frame=64)
    assert 'tokens_per_frame is 64' in line and 'text only' in line


def test_a_cap_of_zero_is_refused():
    line = refusal(inspect_model, zoo.folder('qwen3_vl'), tokens_per_frame=0)
    assert 'tokens_per_frame is 0' in line


@pytest.mark.parametrize('family', zoo.TEXT_ONLY)
def test_text_only_families_refuse_frames(family):
    model = zoo.load(family)
    assert not model.adapter.sees and model.adapter.frame_tokens == 0
    assert model.config.model_type in refusal(encode, model, zoo.picture(0))


# ---- what is known before the weights


@pytest.mark.parametrize('family', zoo.FAMILIES)
def test_the_shapes_of_the_cache_are_known_without_weights(family):
    model, plain = zoo.load(family), zoo.plain(family)
    with torch.no_grad():
        cache = plain(input_ids=zoo.words(model, 10, seed=0)[None]).past_key_values
    specs = layer_specs(model.spec.config.get_text_config(decoder=True))
    for spec, layer in zip(specs, cache.layers, strict=True):
        if spec.heads:
            assert (spec.heads, spec.size) == (layer.keys.shape[1], layer.keys.shape[3])
            assert spec.window == getattr(layer, 'sliding_window', 0)
        elif spec.source is not None:
            assert isinstance(layer, DummyLayer) and specs[spec.source].heads
        else:
            states = [*layer.conv_states.values(), *layer.recurrent_states.values()]
            assert [spec.conv, spec.recurrent] == [() if s is None else s.shape for s in states]
            held = sum(s.numel() * s.element_size() for s in states if s is not None)
            assert spec.state_bytes(4) == held
    assert model.spec.context_limit == 4096


def test_inspecting_needs_no_weights(tmp_path):
    folder = zoo.copy('smolvlm', tmp_path)
    for shard in zoo.shards(folder):
        shard.unlink()
    assert inspect_model(str(folder)).adapter.sees
    assert 'load the weights' in refusal(load_model, folder)


@pytest.mark.parametrize('model_type', ['bert', 'no_such_family', None])
def test_an_unknown_family_is_refused_with_those_that_work(tmp_path, model_type):
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': model_type}))
    line = refusal(inspect_model, tmp_path)
    assert repr(model_type) in line
    for known in (*zoo.SIGHTED, 'llama'):
        assert known in line


@pytest.mark.parametrize('name', ['/no/such/folder', './nowhere', '~/nowhere', 'a/b/c', ''])
def test_a_name_that_looks_like_a_path_must_be_a_folder(name):
    line = refusal(inspect_model, name)
    assert f'no folder {name!r}' in line and 'Hugging Face' in line


def test_a_hub_name_that_cannot_be_had_says_what_to_do():
    line = refusal(inspect_model, 'nobody/no-such-model')
    assert "'nobody/no-such-model'" in line and 'local folder' in line


@pytest.mark.parametrize('shards', [1, 3])
def test_a_hub_model_in_the_cache_needs_no_network(tmp_path, monkeypatch, shards):
    import huggingface_hub
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    home = tmp_path / 'models--someone--model'
    (home / 'refs').mkdir(parents=True)
    (home / 'refs' / 'main').write_text('a' * 40)
    folder = home / 'snapshots' / ('a' * 40)
    shutil.copytree(zoo.folder('smolvlm'), folder)
    if shards == 1:
        for name in ('model.safetensors.index.json', *zoo.shards(folder)):
            (folder / name).unlink()
        zoo.plain('smolvlm').save_pretrained(folder)
    assert len(zoo.shards(folder)) == shards
    model = load_model('someone/model', device='cpu')
    assert (model.spec.name, model.spec.source) == ('someone/model', str(folder))
    zoo.shards(folder)[-1].unlink()
    line = refusal(load_model, 'someone/model', device='cpu')
    assert "weights of 'someone/model'" in line and 'network' in line


def test_weights_that_the_cache_lacks_are_downloaded_but_only_to_load_them(tmp_path, monkeypatch):
    folder = zoo.copy('smolvlm', tmp_path)
    shards = {path.name: path.read_bytes() for path in zoo.shards(folder)}
    for path in zoo.shards(folder):
        path.unlink()
    asked = []

    def download(name, allow_patterns, local_files_only=False):
        if not local_files_only:
            asked.append(allow_patterns)
            for shard, content in shards.items():
                (folder / shard).write_bytes(content)
        return str(folder)

    monkeypatch.setattr('infmllm_ros.engine.models.source.snapshot_download', download)
    spec = inspect_model('someone/model')
    assert asked == []
    load_model(spec, device='cpu')
    assert asked == [['model*.safetensors']]
    load_model('someone/model', device='cpu')
    assert len(asked) == 1


def test_a_folder_without_config_is_refused(tmp_path):
    assert 'config.json' in refusal(inspect_model, tmp_path)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    folder = zoo.copy('llama', tmp_path)
    (folder / 'tokenizer.json').unlink()
    line = refusal(inspect_model, folder)
    assert str(folder) in line and 'tokenizer.json' in line and 'copy' in line


def test_a_tokenizer_of_another_family_is_refused_for_frames(tmp_path):
    folder = zoo.copy('smolvlm', tmp_path)
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        shutil.copy(zoo.folder('llama') / name, folder)
    assert "'<fake_token_around_image>'" in refusal(inspect_model, folder)


@pytest.mark.parametrize('name', ['config.json', 'preprocessor_config.json', 'tokenizer.json'])
def test_a_torn_file_is_refused(tmp_path, name):
    folder = zoo.copy('smolvlm', tmp_path)
    text = (folder / name).read_text()
    (folder / name).write_text(text[:len(text) // 2])
    assert str(folder) in refusal(inspect_model, folder)


def test_image_settings_are_read_from_either_file(tmp_path):
    folder = zoo.copy('smolvlm', tmp_path)
    change(folder, 'preprocessor_config.json', image_mean=[0.1, 0.2, 0.3])
    first = inspect_model(folder).adapter.pixels(zoo.picture(0))['pixel_values']
    nested = {'image_processor': json.loads((folder / 'preprocessor_config.json').read_text())}
    (folder / 'preprocessor_config.json').unlink()
    (folder / 'processor_config.json').write_text(json.dumps(nested))
    second = inspect_model(folder).adapter.pixels(zoo.picture(0))['pixel_values']
    usual = zoo.load('smolvlm').adapter.pixels(zoo.picture(0))['pixel_values']
    assert first.equal(second) and not first.equal(usual)


def test_a_filter_that_nobody_uses_is_refused(tmp_path):
    folder = zoo.copy('smolvlm', tmp_path)
    change(folder, 'preprocessor_config.json', resample=5)
    line = refusal(inspect_model, folder)
    assert 'resample is 5' in line and '3 (bicubic)' in line


def test_the_template_beside_the_tokenizer_of_older_checkpoints_is_used(tmp_path):
    folder = zoo.copy('qwen2_5_vl', tmp_path)
    path = folder / 'chat_template.json'
    own = json.loads(path.read_text())['chat_template']
    path.write_text(json.dumps({'chat_template': own.replace('assistant\n', 'robot\n')}))
    prompt = inspect_model(folder).adapter.prompt
    asked = zoo.load('qwen2_5_vl').tokenizer.decode(prompt.question('Where?'))
    assert asked.endswith('<|im_start|>robot\n')
