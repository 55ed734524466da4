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
Models of published shapes with random weights, made where they are to run.

Speed does not depend on what the weights are, only on how many there are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from infmllm_ros.engine import StreamingModel
from infmllm_ros.engine.chunk import Chunk
from infmllm_ros.engine.models.packed import pack
from infmllm_ros.engine.models.source import quiet
import numpy as np
import torch

from .model_sizes import spec_of

SIGLIP = {'model_type': 'siglip_vision_model', 'hidden_size': 1152, 'intermediate_size': 4304,
          'num_hidden_layers': 26, 'num_attention_heads': 16, 'image_size': 384, 'patch_size': 14,
          'vision_use_head': False}
ONEVISION = {'model_type': 'llava_onevision', 'vision_config': SIGLIP, 'vision_feature_layer': -1,
             'vision_feature_select_strategy': 'full', 'image_grid_pinpoints': [[384, 384]]}
QWEN2 = {'model_type': 'qwen2', 'max_position_embeddings': 32768, 'rms_norm_eps': 1e-6,
         'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e6}}
# Of the checkpoints' config.json; tiny is nobody's, but goes through the same code in a moment.
SHAPES: dict[str, dict[str, Any]] = {
    'LLaVA-OneVision-0.5B': {**ONEVISION, 'tie_word_embeddings': True, 'text_config': {
        **QWEN2, 'hidden_size': 896, 'intermediate_size': 4864, 'num_hidden_layers': 24,
        'num_attention_heads': 14, 'num_key_value_heads': 2, 'vocab_size': 152000,
        'tie_word_embeddings': True}},
    'SmolVLM-256M': {
        'model_type': 'smolvlm', 'scale_factor': 4, 'tie_word_embeddings': False,
        'vision_config': {'hidden_size': 768, 'intermediate_size': 3072, 'num_hidden_layers': 12,
                          'num_attention_heads': 12, 'image_size': 512, 'patch_size': 16},
        'text_config': {
            'model_type': 'llama', 'hidden_size': 576, 'intermediate_size': 1536,
            'num_hidden_layers': 30, 'num_attention_heads': 9, 'num_key_value_heads': 3,
            'head_dim': 64, 'vocab_size': 49280, 'max_position_embeddings': 8192,
            'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e5}}},
    'LLaVA-OneVision-7B': {**ONEVISION, 'tie_word_embeddings': False, 'text_config': {
        **QWEN2, 'hidden_size': 3584, 'intermediate_size': 18944, 'num_hidden_layers': 28,
        'num_attention_heads': 28, 'num_key_value_heads': 4, 'vocab_size': 152128,
        'tie_word_embeddings': False}},
    'Qwen3-VL-2B': {
        'model_type': 'qwen3_vl', 'tie_word_embeddings': True,
        'vision_config': {
            'depth': 24, 'hidden_size': 1024, 'intermediate_size': 4096, 'num_heads': 16,
            'out_hidden_size': 2048, 'patch_size': 16, 'spatial_merge_size': 2,
            'temporal_patch_size': 2, 'num_position_embeddings': 2304,
            'deepstack_visual_indexes': [5, 11, 17]},
        'text_config': {
            'hidden_size': 2048, 'intermediate_size': 6144, 'num_hidden_layers': 28,
            'num_attention_heads': 16, 'num_key_value_heads': 8, 'head_dim': 128,
            'vocab_size': 151936, 'max_position_embeddings': 262144,
            'tie_word_embeddings': True, 'rope_parameters': {
                'rope_type': 'default', 'rope_theta': 5e6, 'mrope_section': [24, 20, 20],
                'mrope_interleaved': True}}},
    'tiny': {**ONEVISION, 'vision_config': {
        **SIGLIP, 'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 2,
        'num_attention_heads': 2, 'image_size': 112}, 'image_grid_pinpoints': [[112, 112]],
        'text_config': {**QWEN2, 'hidden_size': 64, 'intermediate_size': 128,
                        'num_hidden_layers': 2, 'num_attention_heads': 4,
                        'num_key_value_heads': 2, 'vocab_size': 1024}},
}


@cache
def random_model(shape: str, device: str = 'cpu', dtype: torch.dtype = torch.bfloat16,
                 packed: bool = True) -> StreamingModel:
    """
    Make a model of a shape, its weights drawn where it computes.

    Parameters
    ----------
    shape : str
        One of `SHAPES`.
    device : str
    dtype : torch.dtype
    packed : bool
        As ``load_model`` loads it; False: as Hugging Face does.
    """
    spec, place = spec_of(shape, SHAPES[shape]), torch.device(device)
    with quiet(), place, torch.random.fork_rng([place] if place.type == 'cuda' else []):
        torch.manual_seed(0)
        model = spec.auto.from_config(spec.config, dtype=dtype).eval().requires_grad_(False)
    if packed:
        pack(model)
    return StreamingModel(spec, model, place, dtype)


def picture(seed: int = 0) -> np.ndarray:
    """Draw a frame: uint8 [384, 384, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (384, 384, 3), dtype=np.uint8)


class Seen:
    """An adapter that has seen the one frame that there is: the vision tower takes no time."""

    def __init__(self, model: StreamingModel, image: np.ndarray) -> None:
        self._adapter = model.adapter
        self.chunk = model.adapter.encode(model.model, image, 0.0)

    def __getattr__(self, name: str) -> Any:
        """Leave all else to the adapter."""
        return getattr(self._adapter, name)

    def encode(self, *_: Any) -> Chunk:
        """Give the chunk."""
        return self.chunk
