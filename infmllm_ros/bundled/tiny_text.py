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
Tiny text decoders that need nothing but a shape: one line a family.

Each line gives what differs from the shape that all tiny models share; most of them must shrink
what their configs leave large, some turn on what only their published checkpoints use.
"""

from __future__ import annotations

from typing import Any

import transformers

_EXPERTS = {'num_experts': 4, 'num_experts_per_tok': 2, 'moe_intermediate_size': 32}
_LOCAL_EXPERTS = {'num_local_experts': 4, 'num_experts_per_tok': 2}
_SLIDING = {'sliding_window': 24, 'sliding_window_pattern': 2}
# model_type -> fields of its config.
PLAIN: dict[str, dict[str, Any]] = {
    'apertus': {},
    'arcee': {},
    'cohere': {'logit_scale': 1.0},
    'cohere2': {'head_dim': 16, 'logit_scale': 1.0, **_SLIDING},
    'ernie4_5': {'head_dim': 16},
    'exaone4': {'head_dim': 16, **_SLIDING},
    'gemma': {'head_dim': 16},
    'glm': {'head_dim': 16},
    'glm4': {'head_dim': 16},
    'gpt_neox': {'rope_parameters': {
        'rope_type': 'default', 'rope_theta': 10000.0, 'partial_rotary_factor': 0.25}},
    'granite': {'embedding_multiplier': 2.0, 'attention_multiplier': 0.1,
                'residual_multiplier': 0.5, 'logits_scaling': 2.0},
    'granitemoe': _LOCAL_EXPERTS,
    'helium': {'head_dim': 16},
    'lfm2_moe': {**_EXPERTS, 'num_dense_layers': 1},
    'llama': {},
    'ministral3': {'head_dim': 16},
    'mistral': {'sliding_window': None},
    'mixtral': {'sliding_window': None, **_LOCAL_EXPERTS},
    'olmo': {},
    'olmo2': {},
    'olmo3': _SLIDING,
    'olmoe': _EXPERTS,
    'persimmon': {},
    'phi': {},
    'phi3': {'sliding_window': None},
    'phimoe': _LOCAL_EXPERTS,
    'qwen2': {},
    'qwen2_moe': {**_EXPERTS, 'shared_expert_intermediate_size': 32},
    'qwen3': {'head_dim': 32},
    'qwen3_moe': {'head_dim': 32, **_EXPERTS},
    'seed_oss': {'head_dim': 16},
    'smollm3': {'no_rope_layer_interval': 2},
    'starcoder2': {'sliding_window': None},
}
# Families without grouped queries: they have as many heads as KV heads.
UNGROUPED = ('gpt_neox', 'persimmon')


def plain_config(family: str, shape: dict[str, Any]) -> tuple[Any, type]:
    """
    Make config and model class of a family of `PLAIN`.

    Parameters
    ----------
    family : str
        One of `PLAIN`.
    shape : dict
        Sizes that all tiny models share, and the changes that were asked for.

    Returns
    -------
    tuple
        The config and the class of the whole model.
    """
    fields = {**PLAIN[family], **shape}
    if family in UNGROUPED:
        fields['num_attention_heads'] = fields['num_key_value_heads']
    if family == 'lfm2_moe':        # its layers follow from nothing else
        depth = fields['num_hidden_layers']
        fields['layer_types'] = (['full_attention', 'conv'] * depth)[:depth]
    config = transformers.AutoConfig.for_model(family, **fields)
    return config, transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
