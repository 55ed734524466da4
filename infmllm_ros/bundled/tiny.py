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

"""
Tiny random models of every supported family, as whole Hugging Face folders.

They know nothing, but each has the shape of its family: config, tokenizer with the family's
special tokens and chat template, settings of the processor and of generation, weights in shards,
each in the files that the family's checkpoints have. Tests and the demo load them as they would
load a downloaded checkpoint.

``python -m infmllm_ros.bundled.tiny FAMILY FOLDER`` writes one.
"""

from __future__ import annotations

import os
from pathlib import Path
import sys
from typing import Any

from infmllm_ros.bundled.tiny_text import PLAIN, plain_config
from infmllm_ros.engine.models.source import quiet
from tokenizers import AddedToken, decoders, pre_tokenizers, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
import torch
import transformers

from .dialects import SPECIALS, TEMPLATES
from .layout import lay_out

_DELTA_NET = {
    'head_dim': 32,
    'linear_num_key_heads': 2,
    'linear_num_value_heads': 4,
    'linear_key_head_dim': 16,
    'linear_value_head_dim': 8,
}
# Families whose layers are not all alike: config and model, and every second layer's kind.
HYBRIDS = {
    'gemma3_text': (
        'Gemma3TextConfig',
        'Gemma3ForCausalLM',
        'sliding_attention',
        {'head_dim': 16, 'query_pre_attn_scalar': 16, 'sliding_window': 24},
    ),
    'lfm2': ('Lfm2Config', 'Lfm2ForCausalLM', 'conv', {}),
    'qwen3_next': (
        'Qwen3NextConfig',
        'Qwen3NextForCausalLM',
        'linear_attention',
        {
            **_DELTA_NET,
            'num_experts': 4,
            'num_experts_per_tok': 2,
            'moe_intermediate_size': 32,
            'shared_expert_intermediate_size': 32,
        },
    ),
    'qwen3_5_text': (
        'Qwen3_5TextConfig',
        'Qwen3_5ForCausalLM',
        'linear_attention',
        {
            **_DELTA_NET,
            'rope_parameters': {
                'rope_type': 'default',
                'rope_theta': 10000.0,
                'partial_rotary_factor': 0.25,
                'mrope_section': [2, 1, 1],
                'mrope_interleaved': True,
            },
        },
    ),
}
for _family in PLAIN:      # without their own template and special tokens: Qwen's
    TEMPLATES.setdefault(_family, TEMPLATES['qwen2'])
    SPECIALS.setdefault(_family, SPECIALS['qwen2'])
# (padding, beginning, end of turn): the first three of each list of SPECIALS.
FAMILIES = tuple(SPECIALS)
WORDS = (
    'Frame from seconds You are a helpful assistant user system Assistant User System the robot'
    ' camera sees is it there yes no what where which when how many of in on to and left right'
    ' red green blue yellow black white box door light person car road open closed stop go'
)
PIECES = r'\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|[^\r\n\p{L}\p{N}]?\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+'


def make_tiny(family: str, folder: str | os.PathLike, seed: int = 0, **text: Any) -> str:
    """
    Write a tiny random model of a family as a Hugging Face folder.

    Parameters
    ----------
    family : str
        One of `FAMILIES`.
    folder : path
        Where to write; made if missing.
    seed : int
        Of the random weights. Same seed, same bytes.
    text
        Fields of the language model's config to replace, e.g. ``num_hidden_layers=1``.

    Returns
    -------
    str
        The folder.

    Raises
    ------
    ValueError
        If the family is unknown.
    """
    if family not in FAMILIES:
        raise ValueError(f'unknown family {family!r}: use one of {", ".join(FAMILIES)}')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(family)
    tokenizer.save_pretrained(folder)
    ids = dict(zip(SPECIALS[family], tokenizer.convert_tokens_to_ids(SPECIALS[family])))
    config, model_class, settings = _config(family, ids, text, len(tokenizer))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # The usual initialisation makes attention near uniform, so that a token at a wrong
            # position would hardly show in the logits.
            if parameter.ndim > 1:
                parameter.mul_(4.0)
                if not parameter.any():     # of a projector that training would fill
                    parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
    pad, bos, end = list(ids.values())[:3]
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=pad, bos_token_id=bos, eos_token_id=[end, pad]
    )
    size = sum(weights.nbytes for weights in model.state_dict().values())
    with quiet():
        model.save_pretrained(folder, max_shard_size=size // 2)     # in shards, as large ones are
    lay_out(folder, family, TEMPLATES[family], settings)
    return str(folder)


def _tokenizer(family: str) -> transformers.PreTrainedTokenizerFast:
    """Make a byte-level BPE that knows a few words, and digits one by one, as the real ones do."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=480,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([WORDS], trainer)
    specials = SPECIALS[family]
    backend.add_special_tokens([AddedToken(token, special=True) for token in specials])
    if family in ('qwen3', 'qwen3_next', 'qwen3_5_text'):
        backend.add_tokens([AddedToken('<think>'), AddedToken('</think>')])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=specials[0],
        bos_token=specials[1],
        eos_token=specials[2],
        chat_template=TEMPLATES[family],
        model_max_length=4096,
    )


def _config(family: str, ids: dict[str, int], text: dict[str, Any], vocabulary: int) -> tuple:
    """Make config, model class and image-processor settings of one family."""
    pad, bos, end = list(ids.values())[:3]
    shape = {
        'vocab_size': -(-vocabulary // 64) * 64,
        'hidden_size': 64,
        'intermediate_size': 128,
        'num_hidden_layers': 3,
        'num_attention_heads': 4,
        'num_key_value_heads': 2,
        'max_position_embeddings': 4096,
        'pad_token_id': pad,
        'bos_token_id': bos,
        'eos_token_id': end,
    }
    siglip = {
        'hidden_size': 32,
        'intermediate_size': 64,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'image_size': 56,
        'patch_size': 14,
    }
    half = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3}
    if family in PLAIN:
        return *plain_config(family, {**shape, **text}), None
    if family in HYBRIDS:
        model_class = getattr(transformers, HYBRIDS[family][1])
        return _hybrid(family, shape, text), model_class, None
    if family in ('smolvlm', 'idefics3'):
        name = {'smolvlm': 'SmolVLM', 'idefics3': 'Idefics3'}[family]
        config = getattr(transformers, f'{name}Config')(
            text_config={'model_type': 'llama', **shape, **text},
            # transformers before 5.21 merges image tokens in blocks of patch_size
            vision_config={**siglip, 'image_size': 16, 'patch_size': 4},
            image_token_id=ids['<image>'],
            pad_token_id=pad,
            scale_factor=2,
        )
        settings = {
            **half,
            'image_processor_type': f'{name}ImageProcessor',
            'resample': 1,
            'size': {'longest_edge': 64},
            'max_image_size': {'longest_edge': 16},
            'video_sampling': {'fps': 1, 'max_frames': 64, 'video_size': {'longest_edge': 16}},
        }
        if family == 'idefics3':
            del settings['video_sampling']
        return config, getattr(transformers, f'{name}ForConditionalGeneration'), settings
    if family == 'llava_onevision':
        config = transformers.LlavaOnevisionConfig(
            text_config={'model_type': 'qwen2', **shape, **text},
            vision_config={
                'model_type': 'siglip_vision_model',
                'vision_use_head': False,
                **siglip,
            },
            image_token_id=ids['<image>'],
            video_token_id=ids['<video>'],
            vision_feature_layer=-1,
            image_grid_pinpoints=[[56, 56]],
        )
        settings = {
            **half,
            'image_processor_type': 'LlavaOnevisionImageProcessor',
            'resample': 3,
            'size': {'height': 56, 'width': 56},
            'image_grid_pinpoints': [[56, 56]],
        }
        return config, transformers.LlavaOnevisionForConditionalGeneration, settings
    if family == 'internvl':
        config = transformers.InternVLConfig(
            text_config={'model_type': 'qwen2', **shape, **text},
            vision_config={**siglip, 'image_size': [56, 56], 'patch_size': [14, 14]},
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
    if family == 'gemma3':
        config = transformers.Gemma3Config(
            text_config=_hybrid('gemma3_text', shape, text).to_dict(),
            vision_config={**siglip, 'vision_use_head': False},
            image_token_id=ids['<image_soft_token>'],
            boi_token_index=ids['<start_of_image>'],
            eoi_token_index=ids['<end_of_image>'],
            mm_tokens_per_image=4,
        )
        settings = {
            **half,
            'image_processor_type': 'Gemma3ImageProcessor',
            'resample': 2,
            'size': {'height': 56, 'width': 56},
        }
        return config, transformers.Gemma3ForConditionalGeneration, settings
    if family == 'lfm2_vl':
        config = transformers.Lfm2VlConfig(
            text_config=_hybrid('lfm2', shape, text).to_dict(),
            vision_config={
                'model_type': 'siglip2_vision_model',
                'vision_use_head': False,
                **siglip,
                'patch_size': 8,
                'num_patches': 16,
            },
            image_token_id=ids['<image>'],
            projector_hidden_size=64,
        )
        settings = {
            **half,
            'image_processor_type': 'Lfm2VlImageProcessor',
            'resample': 2,
            'min_image_tokens': 4,
            'max_image_tokens': 16,
            'encoder_patch_size': 8,
            'downsample_factor': 2,
        }
        return config, transformers.Lfm2VlForConditionalGeneration, settings
    return _qwen_vl(family, ids, {**shape, **text})


def _hybrid(family: str, shape: dict[str, Any], text: dict[str, Any]) -> Any:
    """Make the config of a language model whose every second layer is of another kind."""
    config_class, _, other, own = HYBRIDS[family]
    depth = {**shape, **text}['num_hidden_layers']
    own = {**own, 'layer_types': (['full_attention', other] * depth)[:depth]}
    return getattr(transformers, config_class)(**{**shape, **own, **text})


def _qwen_vl(family: str, ids: dict[str, int], text: dict[str, Any]) -> tuple:
    """Make config, model class and image-processor settings of the Qwen-VL families."""
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
        sections = {'mrope_section': [4, 2, 2], 'mrope_interleaved': True}
        text = {'head_dim': 16, 'rope_parameters': {**rope, **sections}, **text}
        vision |= {
            'patch_size': patch,
            'num_position_embeddings': 16,
            'deepstack_visual_indexes': [0, 1],
        }
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


def main() -> None:
    """Write one tiny model: ``python -m infmllm_ros.bundled.tiny FAMILY FOLDER``."""
    if len(sys.argv) != 3:
        families = ', '.join(FAMILIES)
        sys.exit(f'usage: python -m infmllm_ros.bundled.tiny FAMILY FOLDER\nfamilies: {families}')
    try:
        print(make_tiny(sys.argv[1], sys.argv[2]))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
