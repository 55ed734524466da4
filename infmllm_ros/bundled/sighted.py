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

"""The shapes of the tiny models that see: configs, model classes and image settings, by family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers

from .shapes import hybrid

SIGLIP = {
    'hidden_size': 32,
    'intermediate_size': 64,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'image_size': 56,
    'patch_size': 14,
}
# Config, class of the model, and settings of the image processor.
Shape = tuple[Any, type, dict[str, Any]]
HALF = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3}


def sighted(family: str, ids: dict[str, int], text: dict[str, Any]) -> Shape:
    """
    Make config, model class and image settings of a model that sees.

    Parameters
    ----------
    family : str
        One of `SHAPES`.
    ids : dict
        Id of each of the family's special tokens.
    text : dict
        Fields of the language model's config.
    """
    return SHAPES[family](family, ids, text)


def _smolvlm(family: str, ids: dict[str, int], text: dict[str, Any]) -> Shape:
    """Shape SmolVLM and Idefics3."""
    name = {'smolvlm': 'SmolVLM', 'idefics3': 'Idefics3'}[family]
    config = getattr(transformers, f'{name}Config')(
        text_config={'model_type': 'llama', **text},
        # transformers before 5.21 merges image tokens in blocks of patch_size
        vision_config={**SIGLIP, 'image_size': 16, 'patch_size': 4},
        image_token_id=ids['<image>'],
        pad_token_id=text['pad_token_id'],
        scale_factor=2,
    )
    settings = {
        **HALF,
        'image_processor_type': f'{name}ImageProcessor',
        'resample': 1,
        'size': {'longest_edge': 64},
        'max_image_size': {'longest_edge': 16},
        'video_sampling': {'fps': 1, 'max_frames': 64, 'video_size': {'longest_edge': 16}},
    }
    if family == 'idefics3':
        del settings['video_sampling']
    return config, getattr(transformers, f'{name}ForConditionalGeneration'), settings


def _llava_onevision(family: str, ids: dict[str, int], text: dict[str, Any]) -> Shape:
    """Shape LLaVA-OneVision."""
    config = transformers.LlavaOnevisionConfig(
        text_config={'model_type': 'qwen2', **text},
        vision_config={
            'model_type': 'siglip_vision_model',
            'vision_use_head': False,
            **SIGLIP,
        },
        image_token_id=ids['<image>'],
        video_token_id=ids['<video>'],
        vision_feature_layer=-1,
        image_grid_pinpoints=[[56, 56]],
    )
    settings = {
        **HALF,
        'image_processor_type': 'LlavaOnevisionImageProcessor',
        'resample': 3,
        'size': {'height': 56, 'width': 56},
        'image_grid_pinpoints': [[56, 56]],
    }
    return config, transformers.LlavaOnevisionForConditionalGeneration, settings


def _internvl(family: str, ids: dict[str, int], text: dict[str, Any]) -> Shape:
    """Shape InternVL."""
    config = transformers.InternVLConfig(
        text_config={'model_type': 'qwen2', **text},
        vision_config={**SIGLIP, 'image_size': [56, 56], 'patch_size': [14, 14]},
        image_token_id=ids['<IMG_CONTEXT>'],
        image_seq_length=4,
    )
    settings = {
        'image_processor_type': 'GotOcr2ImageProcessor',
        'image_mean': [0.485, 0.456, 0.406],
        'image_std': [0.229, 0.224, 0.225],
        'resample': 3,
        'size': {'height': 56, 'width': 56},
    }
    return config, transformers.InternVLForConditionalGeneration, settings


def _gemma3(family: str, ids: dict[str, int], text: dict[str, Any]) -> Shape:
    """Shape Gemma 3."""
    config = transformers.Gemma3Config(
        text_config=hybrid('gemma3_text', text).to_dict(),
        vision_config={**SIGLIP, 'vision_use_head': False},
        image_token_id=ids['<image_soft_token>'],
        boi_token_index=ids['<start_of_image>'],
        eoi_token_index=ids['<end_of_image>'],
        mm_tokens_per_image=4,
    )
    settings = {
        **HALF,
        'image_processor_type': 'Gemma3ImageProcessor',
        'resample': 2,
        'size': {'height': 56, 'width': 56},
    }
    return config, transformers.Gemma3ForConditionalGeneration, settings


def _gemma4(family: str, ids: dict[str, int], text: dict[str, Any]) -> Shape:
    """Shape Gemma 4."""
    config = transformers.Gemma4Config(
        text_config=hybrid('gemma4_text', text).to_dict(),
        vision_config={
            **SIGLIP,
            'head_dim': 16,
            'num_key_value_heads': 2,
            'patch_size': 8,
            'pooling_kernel_size': 2,
            'position_embedding_size': 64,
        },
        boi_token_id=ids['<|image>'],
        eoi_token_id=ids['<image|>'],
        image_token_id=ids['<|image|>'],
        video_token_id=ids['<|video|>'],
    )
    settings = {
        'image_processor_type': 'Gemma4ImageProcessor',
        'do_normalize': False,
        'image_mean': [0.0] * 3,
        'image_std': [1.0] * 3,
        'resample': 3,
        'max_soft_tokens': 16,
    }
    return config, transformers.Gemma4ForConditionalGeneration, settings


def _minicpm_v(family: str, ids: dict[str, int], text: dict[str, Any]) -> Shape:
    """Shape MiniCPM-V."""
    config = transformers.MiniCPMV4_6Config(
        text_config=hybrid('qwen3_5_text', text).to_dict(),
        vision_config={**SIGLIP, 'image_size': 64, 'patch_size': 4},
        insert_layer_id=0,
        image_token_id=ids['<|image_pad|>'],
        video_token_id=ids['<|video_pad|>'],
    )
    settings = {
        **HALF,
        'image_processor_type': 'MiniCPMV4_6ImageProcessor',
        'resample': 3,
        'patch_size': 4,
        'scale_resolution': 64,
    }
    return config, transformers.MiniCPMV4_6ForConditionalGeneration, settings


def _lfm2_vl(family: str, ids: dict[str, int], text: dict[str, Any]) -> Shape:
    """Shape LFM2-VL."""
    config = transformers.Lfm2VlConfig(
        text_config=hybrid('lfm2', text).to_dict(),
        vision_config={
            'model_type': 'siglip2_vision_model',
            'vision_use_head': False,
            **SIGLIP,
            'patch_size': 8,
            'num_patches': 16,
        },
        image_token_id=ids['<image>'],
        projector_hidden_size=64,
    )
    settings = {
        **HALF,
        'image_processor_type': 'Lfm2VlImageProcessor',
        'resample': 2,
        'min_image_tokens': 4,
        'max_image_tokens': 16,
        'encoder_patch_size': 8,
        'downsample_factor': 2,
    }
    return config, transformers.Lfm2VlForConditionalGeneration, settings


def _qwen_vl(family: str, ids: dict[str, int], text: dict[str, Any]) -> Shape:
    """Shape Qwen-VL, and those with its image processor."""
    vision = {
        'depth': 2,
        'hidden_size': 32,
        'intermediate_size': 64,
        'out_hidden_size': text['hidden_size'],
        'num_heads': 2,
        'in_channels': 3,
        'spatial_merge_size': 2,
        'temporal_patch_size': 2,
    }
    tokens = {
        'vision_start_token_id': ids['<|vision_start|>'],
        'vision_end_token_id': ids['<|vision_end|>'],
        'image_token_id': ids['<|image_pad|>'],
        'video_token_id': ids['<|video_pad|>'],
    }
    rope = {'rope_type': 'default', 'rope_theta': 10000.0}
    if family in ('qwen2_vl', 'qwen2_5_vl'):
        patch = 14
        mean = [0.48145466, 0.4578275, 0.40821073]
        std = [0.26862954, 0.26130258, 0.27577711]
        text = {'rope_parameters': {**rope, 'mrope_section': [2, 3, 3]}, **text}
        vision |= {'patch_size': patch}
    if family == 'qwen2_vl':
        # here hidden_size is that of the language model
        vision |= {'embed_dim': 32, 'hidden_size': text['hidden_size'], 'mlp_ratio': 2}
        config_class = transformers.Qwen2VLConfig
        model_class = transformers.Qwen2VLForConditionalGeneration
    elif family == 'qwen2_5_vl':
        vision |= {'window_size': 56, 'fullatt_block_indexes': [1]}
        config_class = transformers.Qwen2_5_VLConfig
        model_class = transformers.Qwen2_5_VLForConditionalGeneration
    else:
        patch, mean, std = 16, [0.5] * 3, [0.5] * 3
        vision |= {'patch_size': patch, 'num_position_embeddings': 16}
    if family == 'qwen3_5':
        text = hybrid('qwen3_5_text', text).to_dict()
        config_class = transformers.Qwen3_5Config
        model_class = transformers.Qwen3_5ForConditionalGeneration
    elif family == 'lfm3_vl':
        text = hybrid('lfm3', text).to_dict()
        vision = {
            **SIGLIP,
            'num_key_value_heads': 1,
            'patch_size': patch,
            'layer_types': ['conv', 'full_attention'],
        }
        tokens['projector_hidden_size'] = 64
        config_class = transformers.Lfm3VlConfig
        model_class = transformers.Lfm3VlForConditionalGeneration
    elif family == 'qwen3_vl':
        sections = {'mrope_section': [4, 2, 2], 'mrope_interleaved': True}
        text = {'head_dim': 16, 'rope_parameters': {**rope, **sections}, **text}
        vision |= {'deepstack_visual_indexes': [0, 1]}
        config_class = transformers.Qwen3VLConfig
        model_class = transformers.Qwen3VLForConditionalGeneration
    settings = {
        'image_processor_type': 'Qwen2VLImageProcessor',
        'image_mean': mean,
        'image_std': std,
        'resample': 3,
        'size': {'shortest_edge': 4 * (2 * patch) ** 2, 'longest_edge': 16 * (2 * patch) ** 2},
        'patch_size': patch,
        'merge_size': 2,
        'temporal_patch_size': 2,
    }
    return config_class(text_config=text, vision_config=vision, **tokens), model_class, settings


SHAPES: dict[str, Callable[[str, dict[str, int], dict[str, Any]], Shape]] = {
    **dict.fromkeys(('smolvlm', 'idefics3'), _smolvlm),
    'llava_onevision': _llava_onevision,
    'internvl': _internvl,
    'gemma3': _gemma3,
    'gemma4': _gemma4,
    'minicpmv4_6': _minicpm_v,
    'lfm2_vl': _lfm2_vl,
    **dict.fromkeys(('qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'qwen3_5', 'lfm3_vl'), _qwen_vl),
}
