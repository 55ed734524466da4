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
Slow, independent references: what the papers' formulas say, in plain Python and float64.

Nothing here is shared with the engine: all is worked out again, one token at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
import math

import numpy as np
import torch


@dataclass(frozen=True)
class Token:
    """One token of the stream, as the model was fed it."""

    word: int  # its id in the vocabulary
    embed: np.ndarray = field(repr=False, compare=False)  # what enters the first layer
    frame: int | None = None  # ordinal of the frame that it came with, wrapper and stamp included
    grid: tuple[int, int, int, int] | None = None  # (row, column, rows, columns) of a vision token
    marker: bool = False
    index: int = -1  # place in the stream


# ------------------------------------------------------------------------------- positions
def packed_positions(tokens: list[Token]) -> list[tuple[int, int, int]]:
    """
    Place the held tokens for M-RoPE: text advances by one, a frame's grid stands on one base.

    A vision token is at (base, base + row, base + column) of the whole grid; a grid advances
    the base by its longer side, but by no more than the tokens that are left of it.
    """
    places, base, at = [], 0, 0
    while at < len(tokens):
        token = tokens[at]
        if token.grid is None:
            places.append((base, base, base))
            base, at = base + 1, at + 1
            continue
        segment = []
        while at < len(tokens) and tokens[at].grid and tokens[at].frame == token.frame:
            segment.append(tokens[at].grid)
            at += 1
        places += [(base, base + row, base + column) for row, column, _, _ in segment]
        base += min(max(token.grid[2:]), len(segment))
    return places


# ------------------------------------------------------------------------------- attention
class TinyLlama:
    """
    A Llama or Qwen2 decoder in float64 that holds other tokens in each layer and KV head.

    Keys are turned anew on every use. `plain` is the Hugging Face model that lends its weights.
    """

    def __init__(self, plain):
        config = plain.config.get_text_config(decoder=True)
        self.weights = {
            name: value.detach().double().numpy()
            for name, value in plain.get_decoder().state_dict().items()}
        self.head = plain.get_output_embeddings().weight.detach().double().numpy()
        self.layers = config.num_hidden_layers
        self.heads = config.num_attention_heads
        self.groups = config.num_key_value_heads
        self.eps = config.rms_norm_eps
        width = config.hidden_size // self.heads
        theta = config.rope_parameters['rope_theta']
        self.turns = theta ** (-np.arange(0, width, 2) / width)
        sections = config.rope_parameters.get('mrope_section')
        # which of (time, row, column) turns each frequency
        self.axes = np.repeat(range(3), sections) if sections else None
        self.store = [[[] for _ in range(self.groups)] for _ in range(self.layers)]

    def _norm(self, x, name):
        return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + self.eps) * self.weights[name]

    def _project(self, x, name):
        return x @ self.weights[name + '.weight'].T + self.weights.get(name + '.bias', 0)

    def _places(self, tokens):
        if self.axes is None:
            return [(at, at, at) for at in range(len(tokens))]
        return packed_positions(tokens)

    def _rotate(self, x, places):
        along = np.array(places)[:, [0] if self.axes is None else self.axes]
        angle = np.tile(along * self.turns, 2)
        first, second = np.split(x, 2, axis=1)
        return x * np.cos(angle) + np.concatenate([-second, first], axis=1) * np.sin(angle)

    def feed(self, tokens: list[Token], sight=None) -> list[np.ndarray]:
        """
        Run a chunk; return each layer's attention, [heads, queries, seen + queries].

        All that is held is seen, or of each layer only the slots `sight(layer, queries)`, as if
        there were no others; queries are [queries, heads, D], un-rotated.
        """
        x = np.stack([token.embed for token in tokens]).astype(np.float64)
        seen = []
        for layer in range(self.layers):
            name = f'layers.{layer}.'
            inner = self._norm(x, name + 'input_layernorm.weight')
            query, key, value = (
                self._project(inner, f'{name}self_attn.{which}_proj') for which in 'qkv')
            query = query.reshape(len(x), self.heads, -1)
            key = key.reshape(len(x), self.groups, -1)
            value = value.reshape(len(x), self.groups, -1)
            attention, mixed = [], np.zeros_like(query)
            old = len(self.store[layer][0])
            known = list(range(old) if sight is None else sight(layer, query))
            before = len(known)
            for head in range(self.heads):
                if head % (self.heads // self.groups) == 0:
                    group = head * self.groups // self.heads
                    store = self.store[layer][group]
                    store += list(zip(key[:, group], value[:, group], tokens))
                    store = [store[slot] for slot in [*known, *range(old, old + len(x))]]
                    places = self._places([token for _, _, token in store])
                    keys = self._rotate(np.stack([k for k, _, _ in store]), places)
                asks = self._rotate(query[:, head], places[before:])
                scores = asks @ keys.T / math.sqrt(keys.shape[1])
                for row in range(len(x)):
                    scores[row, before + row + 1:] = -np.inf
                scores = np.exp(scores - scores.max(-1, keepdims=True))
                scores /= scores.sum(-1, keepdims=True)
                attention.append(scores)
                mixed[:, head] = scores @ np.stack([v for _, v, _ in store])
            seen.append(np.stack(attention))
            x = x + self._project(mixed.reshape(len(x), -1), name + 'self_attn.o_proj')
            inner = self._norm(x, name + 'post_attention_layernorm.weight')
            gate, up = (
                self._project(inner, f'{name}mlp.{which}_proj') for which in ('gate', 'up'))
            x = x + self._project(gate / (1 + np.exp(-gate)) * up, name + 'mlp.down_proj')
        self.logits = self._norm(x, 'norm.weight') @ self.head.T
        return seen

    def keep(self, layer: int, group: int, slots: list[int]) -> None:
        """Forget all but these slots of one KV head."""
        self.store[layer][group] = [self.store[layer][group][slot] for slot in slots]

    def forget(self, count: int) -> None:
        """Forget the newest `count` tokens everywhere."""
        self.store = [[group[:len(group) - count] for group in layer] for layer in self.store]


class OneLayer:
    """
    Attention of a one-layer model by plain Hugging Face, run anew on what is held.

    Keys and values do not depend on context there. `plain` must run eager attention.
    """

    layers = 1

    def __init__(self, plain):
        config = plain.config.get_text_config(decoder=True)
        self.plain = plain
        self.heads = config.num_attention_heads
        self.groups = config.num_key_value_heads
        self.store: list[Token] = []

    def feed(self, tokens: list[Token]) -> list[np.ndarray]:
        """Run a chunk; return the attention of its queries, [heads, queries, held + queries]."""
        self.store = self.store + tokens
        out = decode_plainly(self.plain, self.store, output_attentions=True)
        return [out.attentions[0][0, :, -len(tokens):].double().numpy()]

    def keep(self, layer: int, group: int, slots: list[int]) -> None:
        """Forget all but these slots: heads must not differ, so the first one decides."""
        if group == 0:
            self.store = [self.store[slot] for slot in slots]

    def forget(self, count: int) -> None:
        """Forget the newest `count` tokens."""
        self.store = self.store[:len(self.store) - count]


@torch.no_grad()
def decode_plainly(plain, tokens: list[Token], **options):
    """Run Hugging Face's language model on these tokens alone, packed from position 0."""
    embeds = torch.tensor(np.stack([token.embed for token in tokens]))[None].to(plain.dtype)
    config = plain.config.get_text_config(decoder=True)
    # MiniCPM-V has such a language model too, but no rule for grids
    grids = hasattr(plain.base_model, 'get_rope_index')
    if grids and 'mrope_section' in (config.rope_parameters or {}):
        places = torch.tensor(packed_positions(tokens)).T[:, None]  # [3, 1, n]
    else:
        places = torch.arange(len(tokens))[None]
    decoder = plain.get_decoder()
    if hasattr(decoder, 'get_per_layer_inputs'):    # Gemma looks words up for each layer
        words = [config.pad_token_id if token.grid else token.word for token in tokens]
        options['per_layer_inputs'] = decoder.get_per_layer_inputs(torch.tensor([words]))
    return decoder(
        inputs_embeds=embeds, position_ids=places, use_cache=False, **options)


@torch.no_grad()
def logits_plainly(plain, tokens: list[Token]) -> torch.Tensor:
    """Hugging Face's logits, float32 [n, vocabulary], of these tokens alone."""
    hidden = decode_plainly(plain, tokens).last_hidden_state
    logits = plain.get_output_embeddings()(hidden)[0].float()
    cap = getattr(plain.config.get_text_config(decoder=True), 'final_logit_softcapping', None)
    return logits if cap is None else cap * torch.tanh(logits / cap)
