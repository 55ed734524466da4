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
special tokens and chat template, image-processor settings, generation settings, weights. Tests
and the demo load them as they would load a downloaded checkpoint.

``python -m infmllm_ros.bundled.tiny FAMILY FOLDER`` writes one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import sys
from typing import Any

from infmllm_ros.engine.models.source import quiet
from tokenizers import AddedToken, decoders, pre_tokenizers, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
import torch
import transformers

CHATML = (
    '{% for message in messages %}'
    "{% if loop.first and message.role != 'system' and default_system %}"
    "{{ '<|im_start|>system\n' + default_system + '<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' }}"
    '{% if message.content is string %}{{ message.content }}{% else %}'
    '{% for part in message.content %}'
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    '{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}'
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    'llama': (
        '{{ bos_token }}{% for message in messages %}'
        "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n'"
        " + message.content | trim + '<|eot_id|>' }}{% endfor %}"
        '{% if add_generation_prompt %}'
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    'qwen2': (
        "{% set default_system = 'You are a helpful assistant.' %}"
        '{% for message in messages %}'
        "{% if loop.first and message.role != 'system' %}"
        "{{ '<|im_start|>system\n' + default_system + '<|im_end|>\n' }}{% endif %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    # The real one also strips the reasoning of earlier turns, which are never rendered here.
    'qwen3': (
        '{% for message in messages %}'
        "{{ '<|im_start|>' + message.role + '\n' }}"
        "{% if message.role == 'assistant' and loop.last %}"
        "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ message.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        '{% if enable_thinking is defined and enable_thinking is false %}'
        "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
    ),
    'mistral': (
        '{{ bos_token }}{% for message in messages %}'
        "{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"
        "{% elif message.role == 'assistant' %}{{ ' ' + message.content + eos_token }}"
        "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
    ),
    # The system prompt opens the first user turn.
    'gemma3_text': (
        "{{ bos_token }}{% set first = '' %}"
        "{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
        '{% set messages = messages[1:] %}{% endif %}'
        '{% for message in messages %}'
        "{% set role = 'model' if message.role == 'assistant' else message.role %}"
        "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '')"
        " + message.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    'lfm2': (
        '{{ bos_token }}{% for message in messages %}'
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    'smolvlm': (
        '<|im_start|>{% for message in messages %}{{ message.role | capitalize }}'
        "{% if message.content[0].type == 'image' %}:{% else %}{{ ': ' }}{% endif %}"
        "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}"
        "{% elif part.type == 'image' %}<image>{% endif %}{% endfor %}"
        "{{ '<end_of_utterance>\n' }}{% endfor %}"
        '{% if add_generation_prompt %}Assistant:{% endif %}'
    ),
    'llava_onevision': (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + ' ' }}"
        "{% for part in message.content if part.type == 'image' %}<image>{% endfor %}"
        "{% for part in message.content if part.type == 'video' %}<video>{% endfor %}"
        "{% for part in message.content if part.type == 'text' %}{{ '\n' + part.text }}"
        "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    'qwen2_5_vl': "{% set default_system = 'You are a helpful assistant.' %}" + CHATML,
    'qwen3_vl': CHATML,
}
TEMPLATES['qwen3_next'] = TEMPLATES['qwen3_5_text'] = TEMPLATES['qwen3']
_QWEN = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
_QWEN_VISION = ['<|vision_start|>', '<|vision_end|>', '<|image_pad|>', '<|video_pad|>']
SPECIALS = {
    'llama': [
        '<|end_of_text|>',
        '<|begin_of_text|>',
        '<|eot_id|>',
        '<|start_header_id|>',
        '<|end_header_id|>',
    ],
    'qwen2': _QWEN,
    'qwen3': _QWEN,
    'mistral': ['<pad>', '<s>', '</s>', '[INST]', '[/INST]'],
    'gemma3_text': ['<pad>', '<bos>', '<end_of_turn>', '<start_of_turn>'],
    'lfm2': ['<|pad|>', '<|startoftext|>', '<|im_end|>', '<|im_start|>'],
    'qwen3_next': _QWEN,
    'qwen3_5_text': _QWEN,
    'smolvlm': [
        '<|endoftext|>',
        '<|im_start|>',
        '<end_of_utterance>',
        '<fake_token_around_image>',
        '<global-img>',
        '<image>',
    ],
    'llava_onevision': [*_QWEN, '<image>', '<video>'],
    'qwen2_5_vl': _QWEN + _QWEN_VISION,
    'qwen3_vl': _QWEN + _QWEN_VISION,
}
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
# (padding, beginning, end of turn): the first three of each list above.
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
    pad, bos, end = list(ids.values())[:3]
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=pad, bos_token_id=bos, eos_token_id=[end, pad]
    )
    with quiet():
        model.save_pretrained(folder)
    if settings:
        (folder / 'preprocessor_config.json').write_text(json.dumps(settings, indent=2) + '\n')
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
    if family == 'llama':
        config = transformers.LlamaConfig(**{**shape, **text})
        return config, transformers.LlamaForCausalLM, None
    if family == 'qwen2':
        config = transformers.Qwen2Config(**{**shape, **text})
        return config, transformers.Qwen2ForCausalLM, None
    if family == 'qwen3':
        config = transformers.Qwen3Config(**{**shape, 'head_dim': 32, **text})
        return config, transformers.Qwen3ForCausalLM, None
    if family in HYBRIDS:
        config_class, model_class, other, own = HYBRIDS[family]
        depth = {**shape, **text}['num_hidden_layers']
        own = {**own, 'layer_types': (['full_attention', other] * depth)[:depth]}
        config = getattr(transformers, config_class)(**{**shape, **own, **text})
        return config, getattr(transformers, model_class), None
    if family == 'mistral':
        config = transformers.MistralConfig(**{**shape, 'sliding_window': None, **text})
        return config, transformers.MistralForCausalLM, None
    if family == 'smolvlm':
        config = transformers.SmolVLMConfig(
            text_config={'model_type': 'llama', **shape, **text},
            # transformers before 5.21 merges image tokens in blocks of patch_size
            vision_config={**siglip, 'image_size': 16, 'patch_size': 4},
            image_token_id=ids['<image>'],
            pad_token_id=pad,
            scale_factor=2,
        )
        settings = {
            **half,
            'image_processor_type': 'SmolVLMImageProcessor',
            'resample': 1,
            'size': {'longest_edge': 64},
            'max_image_size': {'longest_edge': 16},
            'video_sampling': {'fps': 1, 'max_frames': 64, 'video_size': {'longest_edge': 16}},
        }
        return config, transformers.SmolVLMForConditionalGeneration, settings
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
    return _qwen_vl(family, ids, {**shape, **text})


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
    if family == 'qwen2_5_vl':
        patch = 14
        mean = [0.48145466, 0.4578275, 0.40821073]
        std = [0.26862954, 0.26130258, 0.27577711]
        text = {'rope_parameters': {**rope, 'mrope_section': [2, 3, 3]}, **text}
        vision |= {'patch_size': patch, 'window_size': 56, 'fullatt_block_indexes': [1]}
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
