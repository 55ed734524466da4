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

from infmllm_ros.engine.models.source import quiet
from tokenizers import AddedToken, decoders, pre_tokenizers, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
import torch
import transformers

from .dialects import SPECIALS, TEMPLATES
from .layout import lay_out
from .shapes import HYBRIDS, language
from .sighted import sighted
from .tiny_text import PLAIN

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
        for module in model.modules():
            if getattr(module, 'scaling', None) == 1.0 and hasattr(module, 'q_norm'):
                # Gemma's logits have no scale of their own but what training gives this norm.
                module.q_norm.weight.mul_(module.head_dim ** -0.5)
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
    if '<think>' in TEMPLATES[family]:
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
    """Make config, model class and image-processor settings (None if it does not see)."""
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
        **text,
    }
    if family in PLAIN or family in HYBRIDS:
        return *language(family, shape), None
    return sighted(family, ids, shape)


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
