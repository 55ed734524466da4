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
H2O as it was published, on plain Hugging Face: a rival for the benchmarks.

After the released code (FMInference/H2O, h2o_hf, ``H2OKVCache_LayerWise``): eager attention
materialises the probabilities of all queries over all keys, each layer copies them, adds their
column sums to its scores, and gathers the recent tokens and the heavy hitters into new tensors.
Where query heads share keys, their sums are added up, since the release knows no grouped queries.
Left out is what only costs: of its streaming variant, the rotation of all keys in each pass.
"""

from __future__ import annotations

from typing import Any

from infmllm_ros.engine.attention import install, NAME
from infmllm_ros.engine.chunk import Chunk
from infmllm_ros.engine.models import StreamingModel
import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import eager_mask

PUBLISHED = 'h2o_as_published'


class PublishedH2O:
    """
    A memory of `heavy` + `recent` tokens a layer.

    Parameters
    ----------
    model : StreamingModel
        Whose attention is replaced during each call.
    heavy, recent : int
        [tokens]
    """

    def __init__(self, model: StreamingModel, heavy: int, recent: int) -> None:
        self.model, self.heavy, self.recent = model, heavy, recent
        self.cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        self.scores: dict[int, torch.Tensor] = {}
        self.seen = 0

    @torch.no_grad()
    def observe(self, chunk: Chunk) -> torch.Tensor:
        """Prefill a frame whose features are there; return the last hidden states [1, q, D]."""
        model, place = self.model.model, self.model.device
        install(model, PUBLISHED)
        try:
            positions = torch.arange(self.seen, self.seen + len(chunk), device=place)[None]
            out = model.base_model(
                input_ids=chunk.ids.to(place)[None], position_ids=positions, use_cache=True,
                past_key_values=self.cache, memory=self,
                **{'mm_encoder_outputs': chunk.features} if chunk.features else {})
        finally:
            install(model, NAME)
        self.seen += len(chunk)
        return out.last_hidden_state

    def keep(self, number: int, weights: torch.Tensor) -> None:
        """Evict from one layer after attention with these probabilities, [1, H, q, K]."""
        layer = self.cache.layers[number]
        heads = layer.keys.shape[1]
        # as released: over the batch, which is one, and then over the queries
        sums = weights.clone().sum(0).sum(1)
        sums = sums.view(heads, -1, sums.shape[-1]).sum(1)
        if number in self.scores:
            sums[:, :self.scores[number].shape[1]] += self.scores[number]
        held = sums.shape[1]
        if held > self.heavy + self.recent:
            best = sums[:, :held - self.recent].topk(self.heavy, -1).indices.sort(-1).values
            last = torch.arange(held - self.recent, held, device=best.device).expand(heads, -1)
            chosen = torch.cat((best, last), 1)
            kept = torch.zeros_like(sums, dtype=torch.bool).scatter(1, chosen, True)
            sums = sums[kept].view(heads, -1)
            layer.keys, layer.values = (part[0, kept].view(1, heads, -1, part.shape[-1])
                                        for part in (layer.keys, layer.values))
        self.scores[number] = sums


def _attention(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
               attention_mask: torch.Tensor | None, scaling: float, memory: PublishedH2O,
               **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend as ``eager_attention_forward`` of transformers' models does, and evict."""
    groups = query.shape[1] // key.shape[1]
    weights = torch.matmul(query, repeat_kv(key, groups).transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = functional.softmax(weights, -1, dtype=torch.float32).to(query.dtype)
    memory.keep(module.layer_idx, weights)
    out = torch.matmul(weights, repeat_kv(value, groups))
    return out.transpose(1, 2).contiguous(), weights


AttentionInterface.register(PUBLISHED, _attention)
AttentionMaskInterface.register(PUBLISHED, eager_mask)
