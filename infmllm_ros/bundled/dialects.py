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

"""What the tokenizers of the families write: chat templates and special tokens."""

from .tiny_text import PLAIN

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
SILENT = "{{ '<think>\n\n</think>\n\n' }}"
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
    # Content may also be a list of parts.
    'gemma4_text': (
        '{{ bos_token }}{% for message in messages %}'
        "{% set role = 'model' if message.role == 'assistant' else message.role %}"
        "{{ '<|turn>' + role + '\n' }}"
        '{% if message.content is string %}{{ message.content | trim }}{% else %}'
        "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text | trim }}"
        "{% else %}{{ '\n\n<|' + part.type + '|>\n\n' }}{% endif %}{% endfor %}{% endif %}"
        "{{ '<turn|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
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
    'internvl': (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
        '{% if message.content is string %}{{ message.content }}{% else %}'
        '{% for part in message.content %}'
        "{% if part.type == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
        "{% elif part.type == 'video' %}{{ '<video>\n' }}"
        "{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
        "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    # The system prompt opens the first user turn.
    'gemma3': (
        "{{ bos_token }}{% set first = '' %}"
        "{% if messages[0].role == 'system' %}"
        '{% if messages[0].content is string %}'
        "{% set first = messages[0].content + '\n\n' %}"
        "{% else %}{% set first = messages[0].content[0].text + '\n\n' %}{% endif %}"
        '{% set messages = messages[1:] %}{% endif %}'
        '{% for message in messages %}'
        "{% set role = 'model' if message.role == 'assistant' else message.role %}"
        "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}"
        '{% if message.content is string %}{{ message.content | trim }}{% else %}'
        "{% for part in message.content %}{% if part.type == 'image' %}<start_of_image>"
        "{% elif part.type == 'text' %}{{ part.text | trim }}{% endif %}{% endfor %}{% endif %}"
        "{{ '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    'lfm2_vl': (
        "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
        '{% if message.content is string %}{{ message.content }}{% else %}'
        "{% for part in message.content %}{% if part.type == 'image' %}<image>"
        "{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
        "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    'qwen2_vl': "{% set default_system = 'You are a helpful assistant.' %}" + CHATML,
    'qwen3_vl': CHATML,
}
# These may think aloud, and are told not to; their templates write that down for the last answer.
TEMPLATES['qwen3_5'] = CHATML.replace(
    "{{ '<|im_start|>' + message.role + '\n' }}",
    "{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' and loop.last %}" + SILENT + '{% endif %}',
).replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}"
    '{% if enable_thinking is defined and enable_thinking is false %}' + SILENT + '{% endif %}',
)
TEMPLATES['minicpmv4_6'] = TEMPLATES['qwen3_5'].replace('<|vision_start|>', '').replace(
    '<|vision_end|>', '')
TEMPLATES['lfm3'] = TEMPLATES['lfm2']
TEMPLATES['lfm3_vl'] = '{{ bos_token }}' + CHATML
TEMPLATES['gemma4'] = TEMPLATES['gemma4_text']
TEMPLATES['gemma3n_text'] = TEMPLATES['gemma3_text']
TEMPLATES['idefics3'] = TEMPLATES['smolvlm']
TEMPLATES['qwen2_5_vl'] = TEMPLATES['qwen2_vl']
TEMPLATES['qwen3_next'] = TEMPLATES['qwen3_5_text'] = TEMPLATES['qwen3']
_QWEN = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
_QWEN_VISION = ['<|vision_start|>', '<|vision_end|>', '<|image_pad|>', '<|video_pad|>']
# The first three of each: padding, beginning, end of turn.
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
    'gemma3n_text': ['<pad>', '<bos>', '<end_of_turn>', '<start_of_turn>'],
    'gemma4_text': ['<pad>', '<bos>', '<turn|>', '<|turn>'],
    'lfm2': ['<|pad|>', '<|startoftext|>', '<|im_end|>', '<|im_start|>'],
    'lfm3': ['<|pad|>', '<|startoftext|>', '<|im_end|>', '<|im_start|>'],
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
    'idefics3': [
        '<|end_of_text|>',
        '<|im_start|>',
        '<end_of_utterance>',
        '<fake_token_around_image>',
        '<image>',
    ],
    'llava_onevision': [*_QWEN, '<image>', '<video>'],
    'internvl': [*_QWEN, '<img>', '</img>', '<IMG_CONTEXT>', '<video>'],
    'gemma3': [
        '<pad>',
        '<bos>',
        '<end_of_turn>',
        '<start_of_turn>',
        '<start_of_image>',
        '<end_of_image>',
        '<image_soft_token>',
    ],
    'gemma4': [
        '<pad>',
        '<bos>',
        '<turn|>',
        '<|turn>',
        '<|image>',
        '<image|>',
        '<|image|>',
        '<|video|>',
    ],
    'lfm2_vl': [
        '<|pad|>',
        '<|startoftext|>',
        '<|im_end|>',
        '<|im_start|>',
        '<image>',
        '<|image_start|>',
        '<|image_end|>',
    ],
    'qwen2_vl': _QWEN + _QWEN_VISION,
    'qwen2_5_vl': _QWEN + _QWEN_VISION,
    'qwen3_vl': _QWEN + _QWEN_VISION,
    'qwen3_5': _QWEN + _QWEN_VISION,
    'minicpmv4_6': [*_QWEN, '<|image_pad|>', '<|video_pad|>', '<image>', '</image>'],
    'lfm3_vl': ['<|pad|>', '<|startoftext|>', '<|im_end|>', '<|im_start|>', *_QWEN_VISION],
}
for _family in PLAIN:      # without their own: Qwen's
    TEMPLATES.setdefault(_family, TEMPLATES['qwen2'])
    SPECIALS.setdefault(_family, SPECIALS['qwen2'])
