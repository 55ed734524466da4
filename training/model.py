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

"""The bundled model before training: sizes, tokenizer, and the folder that `load_model` takes."""

from __future__ import annotations

from collections.abc import Callable
import json
import math
from pathlib import Path
from typing import Any

from infmllm_ros.bundled.scenes.words import VOCABULARY
from infmllm_ros.engine.models.base import STATUS_TOKEN
from infmllm_ros.engine.models.source import quiet
from tokenizers import AddedToken, normalizers, pre_tokenizers, Regex, Tokenizer
from tokenizers.models import WordLevel
import torch
from torch import nn
import transformers

PAD, UNKNOWN, START, ASK, ANSWER, END, IMAGE, FRAME, STATUS = SPECIALS = (
    '<pad>', '<unk>', '<start>', '<ask>', '<answer>', '<end>', '<image>', '<frame>', '<status>')
# One token opens the stream, one a question, one an answer, one closes it: a question is cheap.
TEMPLATE = (
    '<start>{% for message in messages %}'
    "{% if message.role == 'assistant' %}{{ message.content[0].text }}<end>"
    "{% elif message.role == 'system' %}{{ message.content[0].text }}"
    "{% else %}{% for part in message.content if part.type == 'video' %}<frame>{% endfor %}<ask>"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    '{% if not loop.last or add_generation_prompt %}<answer>{% endif %}{% endif %}{% endfor %}'
)
SHAPE: dict[str, dict[str, Any]] = {
    'vision': {'image_size': 64, 'patch_size': 16, 'hidden_size': 160, 'intermediate_size': 480,
               'num_hidden_layers': 4, 'num_attention_heads': 4},
    'text': {'hidden_size': 128, 'intermediate_size': 384, 'num_hidden_layers': 4,
             'num_attention_heads': 4, 'num_key_value_heads': 4,
             'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e5}},
}
CONTEXT = 4096
WORD_SIZE = .1  # standard deviation of the word embeddings


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Make a tokenizer of whole words; case and punctuation do not matter."""
    words = {word: place for place, word in enumerate((*SPECIALS, *VOCABULARY))}
    backend = Tokenizer(WordLevel(words, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence([
        normalizers.Lowercase(), normalizers.Replace(Regex(r'[^\w\s<>]+'), ' ')])
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, unk_token=UNKNOWN, bos_token=START,
        eos_token=END, chat_template=TEMPLATE, model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False)


def make_config(tokenizer: transformers.PreTrainedTokenizerFast,
                shape: dict[str, dict[str, Any]] = SHAPE, status: bool = True,
                ) -> transformers.LlavaOnevisionConfig:
    """Describe the model: a small SigLIP tower and a small Qwen2, with status tokens or not."""
    ids = dict(zip(SPECIALS, tokenizer.convert_tokens_to_ids(list(SPECIALS)), strict=True))
    text = {
        'model_type': 'qwen2', 'vocab_size': -(-len(tokenizer) // 64) * 64,
        'max_position_embeddings': CONTEXT, 'pad_token_id': ids[PAD],
        'bos_token_id': ids[START], 'eos_token_id': ids[END], 'tie_word_embeddings': True,
        **shape['text']}
    vision = {'model_type': 'siglip_vision_model', 'vision_use_head': False, **shape['vision']}
    side = vision['image_size']
    return transformers.LlavaOnevisionConfig(
        text_config=text, vision_config=vision, image_token_id=ids[IMAGE],
        video_token_id=ids[FRAME], vision_feature_layer=-1, image_grid_pinpoints=[[side, side]],
        tie_word_embeddings=True, **({STATUS_TOKEN: STATUS} if status else {}))


def vision_tokens(config: transformers.LlavaOnevisionConfig) -> int:
    """Count the tokens of a frame, its status token not among them."""
    vision = config.vision_config
    return math.ceil(vision.image_size // vision.patch_size / 2) ** 2


def make_model(config: transformers.LlavaOnevisionConfig, seed: int,
               ) -> transformers.LlavaOnevisionForConditionalGeneration:
    """Make the model with random weights."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = transformers.LlavaOnevisionForConditionalGeneration(config)
        # words keep the vectors they begin with: the tower learns to write them meanwhile
        model.get_input_embeddings().weight.requires_grad_(False).normal_(0, WORD_SIZE)
    decoder = model.get_decoder()
    inverse = decoder.rotary_emb.inv_freq
    basis = torch.linalg.qr(torch.randn(
        config.text_config.hidden_size, 2 * len(inverse),
        generator=torch.Generator().manual_seed(seed)))[0].T
    for number, layer in enumerate(decoder.layers):     # first heads for words, second for frames
        if number < len(decoder.layers) // 2:
            carry(layer.self_attn, 0, basis)
            lean(layer.self_attn, 1, newest, inverse)
        else:
            for head in range(2):
                match(layer.self_attn, head, basis, inverse)
            lean(layer.self_attn, 1, recency, inverse)
    end, pad = config.text_config.eos_token_id, config.text_config.pad_token_id
    model.generation_config = transformers.GenerationConfig(eos_token_id=[end, pad],
                                                            pad_token_id=pad)
    return model


def recency(distance: torch.Tensor) -> torch.Tensor:
    """Prefer what is near: logits that fall with the logarithm of the distance."""
    return -4 * torch.log1p(distance / 8)


def newest(distance: torch.Tensor) -> torch.Tensor:
    """Prefer the frame just before: logits that peak at its vision tokens."""
    return 16 * torch.exp(-(distance - 3.5) ** 2 / 18)


def carry(attention: nn.Module, head: int, basis: torch.Tensor, gain: float = .25) -> None:
    """
    Make a head hand on the words that it looks at as they are, in a subspace.

    Parameters
    ----------
    attention : torch.nn.Module
    head : int
    basis : torch.Tensor
        Of the subspace, orthonormal rows: [head size, hidden].
    gain : float
        Of what is handed on.
    """
    size = len(basis)
    with torch.no_grad():
        key_head = head // attention.num_key_value_groups
        attention.v_proj.weight.view(-1, size, basis.shape[1])[key_head] = basis * gain ** .5
        attention.o_proj.weight[:, head * size:(head + 1) * size] = basis.T * gain ** .5


def match(attention: nn.Module, head: int, basis: torch.Tensor, inverse: torch.Tensor,
          gain: float = 1.8, reach: int = 400) -> None:
    """
    Make a head look for tokens that hold the same words, however far away.

    Query and key are the same projection of a token, onto the channels that rotary embedding
    turns by less than a whole turn within the reach.

    Parameters
    ----------
    attention : torch.nn.Module
    head : int
    basis : torch.Tensor
        Of the subspace in which words are compared, orthonormal rows: [head size, hidden].
    inverse : torch.Tensor
        Rotary frequencies, [head size / 2].
    gain : float
        Of query and key.
    reach : int
        In tokens.
    """
    slow = (inverse * reach < 2 * math.pi).repeat(2)[:, None]
    with torch.no_grad():
        for linear, at in ((attention.q_proj, head),
                           (attention.k_proj, head // attention.num_key_value_groups)):
            linear.weight.view(-1, *basis.shape)[at] = basis * slow * gain


def lean(attention: nn.Module, head: int, wanted: Callable[[torch.Tensor], torch.Tensor],
         inverse: torch.Tensor, reach: int = 1000) -> None:
    """
    Make a head look at a distance, whatever stands there, before it learns what to look for.

    The biases of query and key, rotated, give a logit sum_i a_i cos(f_i d + p_i) at distance d,
    which is fitted to what is wanted. Adam moves a bias by its learning rate a step: it would not
    get there by itself.

    Parameters
    ----------
    attention : torch.nn.Module
        With biased `q_proj` and `k_proj`.
    head : int
        A query head; the bias of its key head is set too.
    wanted : Callable
        Distances in tokens -> logits.
    inverse : torch.Tensor
        Rotary frequencies, [head size / 2].
    reach : int
        Greatest distance that is fitted.
    """
    distance = torch.arange(reach, dtype=torch.float64)
    weight = (1 / (1 + distance / 20)).sqrt()[:, None]      # what is near must be exact
    angle = distance[:, None] * inverse.double()
    waves = torch.cat((angle.cos(), angle.sin(), torch.ones_like(angle[:, :1])), 1) * weight
    half = len(inverse)
    small = torch.eye(2 * half + 1, dtype=torch.float64) * .1
    small[-1, -1] = 0       # softmax does not see a constant
    fit = torch.linalg.solve(waves.T @ waves + small, waves.T @ (weight[:, 0] * wanted(distance)))
    wave = torch.complex(fit[:half], -fit[half:-1])
    size = (wave.abs() / attention.scaling).sqrt()
    turned = wave / wave.abs().clamp_min(1e-12) * size
    key_head = head // attention.num_key_value_groups
    with torch.no_grad():
        attention.q_proj.bias.view(-1, 2 * half)[head] = torch.cat((turned.real, turned.imag))
        attention.k_proj.bias.view(-1, 2 * half)[key_head] = torch.cat((size, 0 * size))


def write_folder(model: Any, tokenizer: Any, folder: Path,
                 dtype: torch.dtype = torch.float16) -> None:
    """
    Write what `load_model` reads: config, tokenizer, image settings and weights.

    Parameters
    ----------
    model : transformers.LlavaOnevisionForConditionalGeneration
        In fp32; it is left as it is.
    tokenizer : transformers.PreTrainedTokenizerFast
    folder : Path
        Made if missing.
    dtype : torch.dtype
        Of the weights on disk; fp16 is loaded as fp32 on a CPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    side = model.config.vision_config.image_size
    settings = {
        'image_processor_type': 'LlavaOnevisionImageProcessor', 'image_mean': [0.5] * 3,
        'image_std': [0.5] * 3, 'resample': 2, 'size': {'height': side, 'width': side},
        'image_grid_pinpoints': [[side, side]]}
    tokenizer.save_pretrained(folder)
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    with quiet():
        copy.to(dtype).save_pretrained(folder)
    for path in folder.glob('*.safetensors'):
        path.chmod(0o644)
    (folder / 'preprocessor_config.json').write_text(json.dumps(settings, indent=2) + '\n')
