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

"""Images as the vision towers see them, held against the families' own PIL processors."""

import math

from infmllm_ros.engine import inspect_model
from infmllm_ros.engine.errors import FrameError
from infmllm_ros.engine.preprocess import fit_grid, resize, to_frame
import numpy as np
from PIL import Image
import pytest
import torch
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import (
    MiniCPMV4_6ImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    convert_image_to_patches,
    pad_along_first_dim,
)
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
import zoo

SIZES = [(20, 30), (48, 64), (480, 640), (300, 200), (37, 501), (90, 120)]


def scene(height, width):
    """Paint slopes, soft edges and the noise of a sensor, uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 127 + 80 * np.tanh(3 * np.sin(x / 9) * np.sin(y / 7))
    image = np.stack((x * 255 / width, y * 255 / height, waves), -1)
    image += np.random.default_rng(0).normal(0, 5, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def noise(height, width):
    """Paint black and white noise, the worst that a filter with overshoot can meet."""
    return np.random.default_rng(0).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255


def by_pil(image, height, width, resample):
    """Resize in PIL, rows first, as all of Pillow does before 13 and most of it since."""
    rows = Image.fromarray(image).resize((width, image.shape[0]), resample)
    return torch.tensor(np.asarray(rows.resize((width, height), resample))).permute(2, 0, 1)[None]


def adapter(family, **changes):
    """Make an adapter of a tiny model with image settings as large as real ones."""
    spec = inspect_model(zoo.folder(family))
    settings = {'image_mean': spec.adapter._mean, 'image_std': spec.adapter._std, **changes}
    return type(spec.adapter)(spec.config, spec.tokenizer, settings)


def check_within_a_level(ours, theirs, gain=1.0):
    """Require a difference of one grey level at most, but of two in a few values."""
    assert ours.shape == theirs.shape
    levels = (ours.float() - theirs.float()).abs() * gain
    assert levels.max() < 2.01
    assert (levels > 1.01).float().mean() < 1e-3


@pytest.mark.parametrize('paint', [scene, noise])
@pytest.mark.parametrize('resample', [1, 2, 3])
def test_resizing_equals_pil(paint, resample):
    for size in SIZES:
        image = paint(*size)
        for height, width in [(384, 384), (56, 84), (37, 501), (90, 60)]:
            ours = resize(to_frame(image), height, width, resample)
            check_within_a_level(ours, by_pil(image, height, width, resample))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('side, longest', [(56, 56), (384, 384), (512, 2048)])
def test_smolvlm_frames_are_those_of_its_processor(size, side, longest):
    ours = adapter(
        'smolvlm', resample=1, max_image_size={'longest_edge': side},
        video_sampling={'video_size': {'longest_edge': longest}})
    processor = SmolVLMImageProcessorPil(
        do_image_splitting=False, size={'longest_edge': longest},
        max_image_size={'longest_edge': side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    image = scene(*size)
    theirs = processor(Image.fromarray(image), return_tensors='pt')['pixel_values']
    pixels = ours.pixels(image)['pixel_values']
    check_within_a_level(pixels, theirs, 0.5 * 255)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('side, longest', [(56, 224), (364, 1456)])
def test_idefics3_frames_are_those_of_its_processor(size, side, longest):
    settings = {'size': {'longest_edge': longest}, 'max_image_size': {'longest_edge': side}}
    processor = Idefics3ImageProcessorPil(do_image_splitting=False, **settings)
    image = scene(*size)
    theirs = processor(Image.fromarray(image), return_tensors='pt')['pixel_values']
    for given in (settings, {'max_image_size': settings['max_image_size']}):
        pixels = adapter('idefics3', resample=1, **given).pixels(image)['pixel_values']
        check_within_a_level(pixels, theirs, 0.5 * 255)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('family, processor, side', [
    ('internvl', GotOcr2ImageProcessorPil, 56), ('internvl', GotOcr2ImageProcessorPil, 448),
    ('gemma3', Gemma3ImageProcessorPil, 56), ('gemma3', Gemma3ImageProcessorPil, 896)])
def test_square_frames_are_those_of_the_processor_of_the_family(family, processor, side, size):
    ours = adapter(family, size={'height': side, 'width': side})
    whole = processor(
        size={'height': side, 'width': side}, image_mean=ours._mean, image_std=ours._std)
    image = scene(*size)
    theirs = whole(Image.fromarray(image), return_tensors='pt')['pixel_values']
    check_within_a_level(ours.pixels(image)['pixel_values'], theirs, min(ours._std) * 255)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('least, most', [(4, 16), (64, 256)])
def test_lfm2_vl_frames_are_those_of_its_processor(size, least, most):
    # that one needs torchvision; its steps are smart_resize, PIL's filter, and SigLIP 2's patches
    ours = adapter('lfm2_vl', min_image_tokens=least, max_image_tokens=most)
    height, width = smart_resize(*size, 16, least * 16**2, most * 16**2)
    image = scene(*size)
    levels = by_pil(image, height, width, 2)[0].numpy()
    patches, mask = pad_along_first_dim(
        convert_image_to_patches((levels / 255 - 0.5) / 0.5, 8), 4 * most)
    pixels = ours.pixels(image)
    assert pixels['spatial_shapes'].tolist() == [[height // 8, width // 8]]
    assert pixels['pixel_attention_mask'][0].numpy().tolist() == mask.tolist()
    check_within_a_level(pixels['pixel_values'], torch.tensor(patches)[None], 0.5 * 255)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('side', [64, 448])
def test_minicpm_frames_are_those_of_its_processor(size, side):
    ours = adapter('minicpmv4_6', scale_resolution=side)
    processor = MiniCPMV4_6ImageProcessorPil(
        scale_resolution=side, patch_size=4, slice_mode=False)
    image = scene(*size)
    theirs = processor(Image.fromarray(image), return_tensors='pt')
    pixels = ours.pixels(image)
    assert pixels['target_sizes_videos'].equal(theirs['target_sizes'])
    check_within_a_level(pixels['pixel_values_videos'], theirs['pixel_values'], 0.5 * 255)


@pytest.mark.parametrize('size', [*SIZES, (3, 400), (400, 3)])
@pytest.mark.parametrize('most', [70, 280])
def test_gemma4_frames_are_those_of_its_processor(size, most):
    spec = inspect_model(zoo.folder('gemma4'))
    ours = type(spec.adapter)(spec.config, spec.tokenizer, {}, tokens_per_frame=most)
    processor = Gemma4ImageProcessorPil(max_soft_tokens=most, patch_size=8, pooling_kernel_size=2)
    image = scene(*size)
    theirs = processor(Image.fromarray(image), return_tensors='pt')
    pixels = ours.pixels(image)
    assert pixels['video_position_ids'].equal(theirs['image_position_ids'])
    check_within_a_level(pixels['pixel_values_videos'], theirs['pixel_values'], 255)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('side', [56, 384])
def test_llava_onevision_frames_are_those_of_its_processor(size, side):
    ours = adapter('llava_onevision', size={'height': side, 'width': side})
    processor = LlavaOnevisionImageProcessorPil(
        size={'height': side, 'width': side}, image_grid_pinpoints=[[side, side]],
        image_mean=[0.5] * 3, image_std=[0.5] * 3)
    image = scene(*size)
    whole = processor(Image.fromarray(image), return_tensors='pt')['pixel_values'][:, :1]
    pixels = ours.pixels(image)['pixel_values_videos']
    check_within_a_level(pixels, whole, 0.5 * 255)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('family', ['qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'qwen3_5', 'lfm3_vl'])
@pytest.mark.parametrize('cells', [(4, 16), (4, 16384)])
def test_qwen_frames_are_those_of_its_processor(family, size, cells):
    patch = zoo.load(family).config.vision_config.patch_size
    cell = 2 * patch
    limits = {'shortest_edge': cells[0] * cell**2, 'longest_edge': min(cells[1], 256) * cell**2}
    ours = adapter(family, size={**limits, 'longest_edge': cells[1] * cell**2})
    processor = Qwen2VLImageProcessorPil(
        size=limits, patch_size=patch, image_mean=ours._mean, image_std=ours._std)
    image = scene(*size)
    theirs = processor(Image.fromarray(image), return_tensors='pt')
    pixels = ours.pixels(image)
    assert pixels['image_grid_thw'].equal(theirs['image_grid_thw'])
    check_within_a_level(
        pixels['pixel_values'], theirs['pixel_values'], min(ours._std) * 255)


@pytest.mark.parametrize('family', zoo.SIGHTED)
def test_settings_default_to_the_family_when_the_file_is_missing(family, tmp_path):
    defaults = {
        'smolvlm': SmolVLMImageProcessorPil, 'idefics3': Idefics3ImageProcessorPil,
        'qwen2_vl': Qwen2VLImageProcessorPil, 'qwen2_5_vl': Qwen2VLImageProcessorPil,
        'minicpmv4_6': MiniCPMV4_6ImageProcessorPil,
        'gemma3': Gemma3ImageProcessorPil, 'gemma4': Gemma4ImageProcessorPil}
    spec = inspect_model(zoo.folder(family))
    bare = type(spec.adapter)(spec.config, spec.tokenizer, {})
    own = defaults.get(family)
    # released LLaVA-OneVision (SigLIP) and Qwen3-VL towers take -1..1, and InternVL's the mean and
    # deviation of ImageNet, unlike their classes; LFM2-VL's class needs torchvision
    mean, std = {'internvl': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}.get(
        family, ((0.5,) * 3, (0.5,) * 3))
    assert tuple(bare._mean) == (tuple(own.image_mean) if own else mean)
    assert tuple(bare._std) == (tuple(own.image_std) if own else std)
    assert bare._resample == (own.resample if own else 2 if family == 'lfm2_vl' else 3)
    assert bare.pixels(scene(40, 60))


def test_grids_are_those_of_smart_resize_and_never_exceed_the_limit():
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 3000, (500, 2)).tolist():
        limit = int(rng.integers(1, 400))
        rows, cols = fit_grid(height, width, 28, min(4, limit), limit)
        assert rows >= 1 and cols >= 1 and rows * cols <= limit
        if max(height, width) / min(height, width) > 200:
            continue
        theirs = smart_resize(height, width, 28, min(4, limit) * 28**2, limit * 28**2)
        if math.prod(theirs) <= limit * 28**2:
            assert (rows * 28, cols * 28) == theirs


@pytest.mark.parametrize('size', [(1, 4000), (4000, 1), (100, 20000), (1, 1)])
@pytest.mark.parametrize('limit', [1, 7, 256])
def test_grids_stay_within_the_limit_for_images_that_smart_resize_refuses(size, limit):
    rows, cols = fit_grid(*size, 28, min(4, limit), limit)
    assert rows >= 1 and cols >= 1 and rows * cols <= limit


def test_frames_of_any_memory_layout_are_read_alike():
    image = scene(20, 30)
    frozen = image.copy()
    frozen.setflags(write=False)
    mirrored = np.ascontiguousarray(image[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    padded = np.zeros((20, 40, 3), np.uint8)
    padded[:, :30] = image
    expected = torch.tensor(image).permute(2, 0, 1)[None]
    for same in (image, frozen, mirrored, padded[:, :30], torch.tensor(image)):
        assert to_frame(same).equal(expected)


@pytest.mark.parametrize('image, words', [
    (np.zeros((4, 5, 3), np.float32), 'float32 [4, 5, 3]'),
    (np.zeros((4, 5), np.uint8), 'uint8 [4, 5]'),
    (np.zeros((4, 5, 4), np.uint8), 'uint8 [4, 5, 4]'),
    (torch.zeros(4, 5, 3), 'float32 [4, 5, 3]'),
    (np.zeros((0, 5, 3), np.uint8), '5 x 0 pixels'),
    ('picture.png', 'str []'),
    (None, 'NoneType []'),
])
def test_anything_but_an_rgb_image_is_refused_with_what_it_is(image, words):
    with pytest.raises(FrameError) as refusal:
        to_frame(image)
    assert words in str(refusal.value) and '\n' not in str(refusal.value)
