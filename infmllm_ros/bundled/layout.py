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

"""Which files a checkpoint of each family has, and what its processor's files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Where checkpoints keep the chat template: most old ones that see beside the tokenizer, most that
# only read within its config; all others in a file of its own, where transformers now writes it.
BESIDE, WITHIN = 'chat_template.json', 'tokenizer_config.json'
TEMPLATE = {
    'smolvlm': BESIDE,
    'idefics3': BESIDE,
    'llava_onevision': BESIDE,
    'gemma3': BESIDE,
    'qwen2_vl': BESIDE,
    'qwen2_5_vl': BESIDE,
    'qwen3_vl': BESIDE,
    'llama': WITHIN,
    'mistral': WITHIN,
    'qwen2': WITHIN,
    'qwen3': WITHIN,
    'gemma3_text': WITHIN,
}
# processor_config.json of the families that have one, beside the name of their processor.
PROCESSORS: dict[str, tuple[str, dict[str, Any] | None]] = {
    'smolvlm': ('SmolVLMProcessor', {'image_seq_len': 4}),
    'idefics3': ('Idefics3Processor', {'image_seq_len': 4}),
    'llava_onevision': (
        'LlavaOnevisionProcessor',
        {
            'image_token': '<image>',
            'num_image_tokens': 16,
            'video_token': '<video>',
            'vision_feature_select_strategy': 'full',
        },
    ),
    'internvl': ('InternVLProcessor', {'image_seq_length': 4}),
    'gemma3': ('Gemma3Processor', {'image_seq_length': 4}),
    'lfm2_vl': ('Lfm2VlProcessor', {}),
    'qwen2_vl': ('Qwen2VLProcessor', None),
    'qwen2_5_vl': ('Qwen2_5_VLProcessor', None),
    'qwen3_vl': ('Qwen3VLProcessor', None),
    'qwen3_5': ('Qwen3VLProcessor', None),
    'gemma4': ('Gemma4Processor', {'image_seq_length': 16}),
    'lfm3_vl': ('Lfm3VlProcessor', {}),
    'minicpmv4_6': ('MiniCPMV4_6Processor', None),
}
# Saved by transformers 5: image settings within processor_config.json.
NESTED = ('lfm2_vl', 'gemma4', 'lfm3_vl')


def lay_out(folder: Path, family: str, template: str, settings: dict[str, Any] | None) -> None:
    """
    Write what goes with weights and tokenizer as the family's checkpoints have it.

    Parameters
    ----------
    folder : pathlib.Path
        Holds the tokenizer's files already.
    family : str
    template : str
        The chat template.
    settings : dict or None
        Of the image processor; None for a family that only reads.
    """
    name, own = PROCESSORS.get(family, (None, None))
    given = {} if name is None else {'processor_class': name}
    place = TEMPLATE.get(family)
    tokenizer = json.loads((folder / WITHIN).read_text()) | given
    if place:
        (folder / 'chat_template.jinja').unlink()
    if place == WITHIN:
        tokenizer['chat_template'] = template
    elif place == BESIDE:
        _write(folder / BESIDE, {'chat_template': template})
    _write(folder / WITHIN, tokenizer)
    if settings and family in NESTED:
        own = {'image_processor': settings, **(own or {})}
    elif settings:
        _write(folder / 'preprocessor_config.json', {**settings, **given})
    if own is not None:
        _write(folder / 'processor_config.json', {**own, **given})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
