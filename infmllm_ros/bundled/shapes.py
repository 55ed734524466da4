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

"""The shapes of the tiny language models: configs and model classes, by family."""

from __future__ import annotations

from typing import Any

import transformers

from .tiny_text import PLAIN, plain_config

_DELTA_NET = {
    'head_dim': 32,
    'linear_num_key_heads': 2,
    'linear_num_value_heads': 4,
    'linear_key_head_dim': 16,
    'linear_value_head_dim': 8,
}
# Families whose layers are not all alike: config and model, and the kinds that
# follow each layer of full attention.
HYBRIDS = {
    'gemma3_text': (
        'Gemma3TextConfig',
        'Gemma3ForCausalLM',
        ('sliding_attention',),
        {'head_dim': 16, 'query_pre_attn_scalar': 16, 'sliding_window': 24},
    ),
    'gemma3n_text': (
        'Gemma3nTextConfig',
        'Gemma3nForCausalLM',
        ('sliding_attention',),
        {
            'head_dim': 16,
            'sliding_window': 24,
            'hidden_size_per_layer_input': 8,
            'laurel_rank': 8,
            'activation_sparsity_pattern': 0.0,
        },
    ),
    'gemma4_text': (
        'Gemma4TextConfig',
        'Gemma4ForCausalLM',
        ('sliding_attention',),
        {
            'head_dim': 16,
            'global_head_dim': 32,
            'sliding_window': 24,
            'hidden_size_per_layer_input': 8,
        },
    ),
    'lfm2': ('Lfm2Config', 'Lfm2ForCausalLM', ('conv',), {}),
    'lfm3': (
        'Lfm3Config',
        'Lfm3ForCausalLM',
        ('conv', 'sliding_attention'),
        {'head_dim': 16, 'sliding_window': 24},
    ),
    'qwen3_next': (
        'Qwen3NextConfig',
        'Qwen3NextForCausalLM',
        ('linear_attention',),
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
        ('linear_attention',),
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


def language(family: str, shape: dict[str, Any]) -> tuple[Any, type]:
    """Make config and model class of a language model; `shape` are fields of the config."""
    if family in PLAIN:
        return plain_config(family, shape)
    return hybrid(family, shape), getattr(transformers, HYBRIDS[family][1])


def hybrid(family: str, shape: dict[str, Any]) -> Any:
    """Make the config of a language model whose layers are of several kinds."""
    config_class, _, others, own = HYBRIDS[family]
    depth = shape['num_hidden_layers']
    own = {**own, 'layer_types': (['full_attention', *others] * depth)[:depth]}
    if 'hidden_size_per_layer_input' in own:    # the last layers read what earlier ones keep
        own |= {
            'vocab_size_per_layer_input': shape['vocab_size'],
            'num_kv_shared_layers': max(0, depth - 2),
        }
    if isinstance(own.get('activation_sparsity_pattern'), float):
        own['activation_sparsity_pattern'] = [own['activation_sparsity_pattern']] * depth
    return getattr(transformers, config_class)(**{**own, **shape})
