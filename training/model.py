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
             'num_attention_heads': 4, 'num_key_value_heads': 4},
}
CONTEXT = 4096


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
    end, pad = config.text_config.eos_token_id, config.text_config.pad_token_id
    model.generation_config = transformers.GenerationConfig(eos_token_id=[end, pad],
                                                            pad_token_id=pad)
    return model


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
