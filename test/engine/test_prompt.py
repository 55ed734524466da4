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

"""Prompts: the tokens that each family's own chat template gives, and nothing a user can bend."""

import shutil
from types import SimpleNamespace

from infmllm_ros.engine import inspect_model
from infmllm_ros.engine.errors import ModelError
from infmllm_ros.engine.models import Prompt
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, ProcessorMixin
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.lfm2_vl.processing_lfm2_vl import Lfm2VlProcessor
from transformers.models.lfm3_vl.processing_lfm3_vl import Lfm3VlProcessor
from transformers.models.minicpmv4_6.processing_minicpmv4_6 import MiniCPMV4_6Processor
import zoo

SYSTEM, QUESTION, ANSWER = 'You are a robot.', 'Where is the red box?', 'It is left of the door.'
# what a template writes for a frame or a video, and what the processor writes after the last one
MEDIA = {
    'smolvlm': ('image', '<image>', '\n\n'),
    'llava_onevision': ('video', '<video>', ''),
    'qwen2_vl': ('image', '<|vision_start|><|image_pad|><|vision_end|>', ''),
    'qwen2_5_vl': ('image', '<|vision_start|><|image_pad|><|vision_end|>', ''),
    'qwen3_vl': ('image', '<|vision_start|><|image_pad|><|vision_end|>', ''),
    'qwen3_5': ('image', '<|vision_start|><|image_pad|><|vision_end|>', ''),
    'idefics3': ('image', '<image>', ''),
    'internvl': ('video', '<video>\n', ''),
    'gemma3': ('image', '<start_of_image>', ''),
    'lfm2_vl': ('image', '<image>', ''),
    'gemma4': ('video', '<|video|>', ''),
    'minicpmv4_6': ('video', '<|video_pad|>', ''),
    'lfm3_vl': ('image', '<|vision_start|><|image_pad|><|vision_end|>', ''),
}


def tokens(family):
    """Load the tokenizer of a tiny folder with transformers alone, with its template."""
    tokenizer = AutoTokenizer.from_pretrained(zoo.folder(family))
    if family in zoo.SIGHTED:
        processor, _ = ProcessorMixin.get_processor_dict(zoo.folder(family))
        tokenizer.chat_template = processor['chat_template']
    return tokenizer


def prompt(family):
    """Make the prompt of a tiny folder."""
    return inspect_model(zoo.folder(family)).adapter.prompt


def chat(family, system, *turns, media=()):
    """Write messages in the form of the family's template."""
    def content(text, shown=()):
        parts = [{'type': kind} for kind in shown] + [{'type': 'text', 'text': text}]
        return parts if family in MEDIA else text

    if family == 'mistral' and system:      # no such role; the template's space stays by the turn
        system, turns = '', (f'{system}\n\n {turns[0]}', *turns[1:])
    start = [{'role': 'system', 'content': content(system)}] if system else []
    roles = ('user', 'assistant')
    return start + [
        {'role': roles[i % 2], 'content': content(text, media if i == 0 else ())}
        for i, text in enumerate(turns)
    ]


def template(tokenizer, messages):
    """Render with transformers alone, an answer to follow without thoughts before it."""
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)


def ids(tokenizer, text):
    """Tokenize rendered text."""
    return tokenizer(text, add_special_tokens=False)['input_ids']


@pytest.mark.parametrize('system', [SYSTEM, ''])
@pytest.mark.parametrize('family', [
    *zoo.TEXT_ONLY, 'qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'qwen3_5', 'internvl', 'gemma3',
    'lfm2_vl', 'lfm3_vl', 'minicpmv4_6'])
def test_system_and_question_are_tokenized_as_the_whole_template_is(family, system):
    tokenizer, own = tokens(family), prompt(family)
    rendered = template(tokenizer, chat(family, system, QUESTION))
    ours = torch.cat((own.prefix(system), own.question(QUESTION)))
    assert ours.tolist() == ids(tokenizer, rendered)


@pytest.mark.parametrize('system', [SYSTEM, ''])
@pytest.mark.parametrize('family', zoo.SIGHTED)
def test_frames_between_them_stand_where_the_template_shows_media(family, system):
    model, tokenizer = zoo.load(family), tokens(family)
    chunks = [model.adapter.encode(model.model, zoo.picture(i), i) for i in (0, 1)]
    kind, mark, after = MEDIA[family]
    shown = ''.join(tokenizer.decode(chunk.ids) for chunk in chunks) + after
    rendered = template(tokenizer, chat(family, system, QUESTION, media=[kind]))
    assert rendered.count(mark) == 1
    own = model.adapter.prompt
    ours = torch.cat((own.prefix(system), *(c.ids for c in chunks), own.question(QUESTION)))
    assert ours.tolist() == ids(tokenizer, rendered.replace(mark, shown))


def by_processor(family):
    """Let the family's own processor write the placeholders of two small frames."""
    if family == 'idefics3':
        self = SimpleNamespace(
            fake_image_token='<fake_token_around_image>', global_image_tag='<global-img>',
            image_token='<image>', image_seq_len=4)
        whole = {'rows': [[0, 0]], 'cols': [[0, 0]]}
        return [Idefics3Processor.replace_image_token(self, whole, i) for i in (0, 1)]
    if family == 'internvl':
        self = SimpleNamespace(
            start_image_token='<img>', end_image_token='</img>', image_token='<IMG_CONTEXT>',
            image_seq_length=4)
        two = {'pixel_values_videos': torch.zeros(1, 2, 3, 56, 56)}
        return [InternVLProcessor.replace_video_token(self, two, 0)]
    if family == 'lfm3_vl':
        self = SimpleNamespace(
            vision_start_token='<|vision_start|>', vision_end_token='<|vision_end|>',
            video_token='<|image_pad|>',
            video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
            _calculate_timestamps=lambda *args: Lfm3VlProcessor._calculate_timestamps(None, *args))
        # two pairs of frames, which become one each
        two = {'video_grid_thw': torch.tensor([[2, 4, 4]]),
               'video_metadata': [SimpleNamespace(fps=1, frames_indices=[0, 0, 1, 1])]}
        return [Lfm3VlProcessor.replace_video_token(self, two, 0)]
    if family == 'minicpmv4_6':
        self = SimpleNamespace(
            image_start_token='<image>', image_end_token='</image>', video_token='<|video_pad|>',
            video_slice_mode=False)
        two = {'target_sizes_videos': np.array([[16, 16]] * 2), 'num_frames_per_video': [2],
               'grids_videos': np.zeros((2, 2), int)}
        return [MiniCPMV4_6Processor.replace_video_token(self, two, 0, video_token_divisor=16)]
    if family == 'gemma4':
        self = SimpleNamespace(boi_token='<|image>', eoi_token='<image|>', video_token='<|video|>')
        two = {'num_soft_tokens_per_video': [16],
               'video_metadata': [SimpleNamespace(fps=1, timestamps=[0, 1])]}
        # each frame brings the space before it, where the processor joins frames by one
        return [' ' + Gemma4Processor.replace_video_token(self, two, 0)]
    if family == 'lfm2_vl':
        self = SimpleNamespace(
            image_token='<image>', image_start_token='<|image_start|>',
            image_end_token='<|image_end|>')
        tokens_of_64_by_64_pixels = 16
        return 2 * [Lfm2VlProcessor._build_image_tokens(
            self, 1, 1, 0, tokens_of_64_by_64_pixels, True, True)]
    tokenizer = AutoTokenizer.from_pretrained(zoo.folder('gemma3'), extra_special_tokens={
        'boi_token': '<start_of_image>', 'eoi_token': '<end_of_image>',
        'image_token': '<image_soft_token>'})
    own = Gemma3Processor(Gemma3ImageProcessorPil(), tokenizer, image_seq_length=4)
    return [own.replace_image_token({'num_crops': [0, 0]}, i) for i in (0, 1)]


@pytest.mark.parametrize('system', [SYSTEM, ''])
@pytest.mark.parametrize('family', [
    'idefics3', 'internvl', 'gemma3', 'lfm2_vl', 'gemma4', 'lfm3_vl', 'minicpmv4_6'])
def test_two_frames_are_tokenized_as_the_processor_of_the_family_writes_them(family, system):
    model, tokenizer, (kind, mark, _) = zoo.load(family), tokens(family), MEDIA[family]
    written = by_processor(family)
    rendered = template(tokenizer, chat(family, system, QUESTION, media=[kind] * len(written)))
    for text in written:
        rendered = rendered.replace(mark.strip(), text.replace(mark.strip(), '\ue000'), 1)
    rendered = rendered.replace('\ue000', mark.strip())
    chunks = [model.adapter.encode(model.model, zoo.picture(i), i) for i in (0, 1)]
    own = model.adapter.prompt
    ours = torch.cat((own.prefix(system), *(c.ids for c in chunks), own.question(QUESTION)))
    assert ours.tolist() == ids(tokenizer, rendered)


def test_tags_that_a_vocabulary_lacks_are_spelled(tmp_path):
    place = shutil.copytree(zoo.folder('smolvlm'), tmp_path / 'idefics3')
    for name, config in (('spelled', zoo.folder('idefics3')), ('whole', place)):
        if name == 'whole':
            path = place / 'config.json'
            path.write_text(path.read_text().replace('smolvlm', 'idefics3'))
        own = inspect_model(config).adapter
        said = own._tokenizer.decode(own.opening)
        assert said == '<fake_token_around_image><global-img>'
        assert (len(own.opening) == 2) == (name == 'whole')


@pytest.mark.parametrize('family', [
    'llama', 'qwen2', 'qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'internvl', 'gemma3', 'lfm2_vl',
    'lfm3_vl'])
def test_a_kept_answer_and_the_next_question_go_on_as_the_template_does(family):
    tokenizer, own = tokens(family), prompt(family)
    ours = torch.cat((
        own.prefix(SYSTEM), own.question(QUESTION), own.choice(ANSWER), own.reopen(),
        own.question('And now?')))
    messages = chat(family, SYSTEM, QUESTION, ANSWER, 'And now?')
    assert ours.tolist() == ids(tokenizer, template(tokenizer, messages))


def test_models_that_may_think_aloud_are_told_not_to():
    tokenizer = tokens('qwen3')
    said = tokenizer.decode(prompt('qwen3').question(QUESTION))
    assert said.endswith('<|im_start|>assistant\n<think>\n\n</think>\n\n')


@pytest.mark.parametrize('family', zoo.FAMILIES)
def test_a_choice_is_tokenized_as_it_follows_the_question(family):
    tokenizer, own = tokens(family), prompt(family)
    whole = tokenizer.apply_chat_template(
        chat(family, SYSTEM, QUESTION, 'yes'), tokenize=False, enable_thinking=False)
    joint = torch.cat((own.prefix(SYSTEM), own.question(QUESTION), own.choice('yes'))).tolist()
    expected = ids(tokenizer, whole)
    # these open differently with frames
    if family not in ('smolvlm', 'idefics3', 'llava_onevision', 'gemma4'):
        assert joint == expected[:len(joint)]
    answer = ' yes' if family in ('smolvlm', 'idefics3', 'mistral') else 'yes'
    assert tokenizer.decode(own.choice('yes')) == answer
    assert own.choice('yes').tolist() == ids(tokenizer, answer)


@pytest.mark.parametrize('family', zoo.FAMILIES)
def test_text_from_outside_never_becomes_special_tokens(family):
    tokenizer, own = tokens(family), prompt(family)
    added = {index: token.content for index, token in tokenizer.added_tokens_decoder.items()}
    plain = own.question('is')
    for index, name in added.items():
        for attack in (name, f'is{name}{name}', f'{name[:2]}{name}{name[2:]}', f'<{name}>'):
            asked = own.question(attack)
            for other in added:
                assert (asked == other).sum() == (plain == other).sum(), (attack, added[other])
            assert attack in tokenizer.decode(asked)
            for pieces in (own.text(attack), own.choice(attack)):
                assert not set(pieces.tolist()) & set(added)
            system = own.prefix(attack)
            assert (system == index).sum() == (own.prefix('is') == index).sum()


def test_text_that_is_normalised_to_a_special_token_does_not_become_one():
    from tokenizers import AddedToken, normalizers
    tokenizer = tokens('llama')
    tokenizer._tokenizer.normalizer = normalizers.Lowercase()
    stop = AddedToken('<|stop|>', special=True, normalized=True)
    tokenizer.add_tokens([stop], special_tokens=True)
    index = tokenizer.convert_tokens_to_ids('<|stop|>')
    assert index in tokenizer('<|STOP|>')['input_ids']
    assert index not in Prompt(tokenizer).question('<|STOP|>')


def test_plain_text_keeps_its_letters_and_spaces():
    tokenizer, own = tokens('qwen3_vl'), prompt('qwen3_vl')
    text = ' Größe: 3\n\n<|im_end|> ü 你好 \t'
    assert tokenizer.decode(own.text(text)) == text
    assert own.text('').shape == (0,)


def test_space_around_a_question_does_not_change_it():
    own = prompt('llama')
    assert own.question(f' \n{QUESTION}\n').equal(own.question(QUESTION))


@pytest.mark.parametrize('family', zoo.FAMILIES)
def test_an_answer_stops_at_the_end_of_the_turn_and_of_the_text(family):
    tokenizer = tokens(family)
    end = {'llama': '<|eot_id|>', 'smolvlm': '<end_of_utterance>',
           'idefics3': '<end_of_utterance>', 'gemma3_text': '<end_of_turn>',
           'gemma3': '<end_of_turn>', 'gemma3n_text': '<end_of_turn>',
           'gemma4_text': '<turn|>', 'gemma4': '<turn|>', 'mistral': '</s>'}.get(
               family, '<|im_end|>')
    assert prompt(family).stop_ids == {
        tokenizer.convert_tokens_to_ids(end), tokenizer.pad_token_id}


def test_the_end_of_turn_stops_even_when_no_file_names_it():
    tokenizer = tokens('llama')
    tokenizer.eos_token = '<|end_of_text|>'
    names = tokenizer.convert_ids_to_tokens(sorted(Prompt(tokenizer).stop_ids))
    assert set(names) == {'<|end_of_text|>', '<|eot_id|>'}


def test_without_a_template_prompts_are_plain():
    tokenizer = tokens('llama')
    tokenizer.chat_template = None
    own = Prompt(tokenizer)
    assert tokenizer.decode(own.prefix(SYSTEM)) == SYSTEM + '\n'
    assert own.prefix('').shape == (0,)
    assert tokenizer.decode(own.question(QUESTION)) == f'\nQuestion: {QUESTION}\nAnswer:'
    assert tokenizer.decode(own.choice('yes')) == ' yes'
    assert tokenizer.decode(own.reopen()) == '\n'


def test_without_a_template_the_stream_begins_as_the_tokenizer_begins_texts():
    from tokenizers.processors import TemplateProcessing
    tokenizer = tokens('llama')
    tokenizer.chat_template = None
    begin = tokenizer.bos_token
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f'{begin} $A', special_tokens=[(begin, tokenizer.bos_token_id)])
    own = Prompt(tokenizer)
    assert own.prefix('').tolist() == [tokenizer.bos_token_id]
    assert own.prefix(SYSTEM)[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in own.question(QUESTION)


TURNS = (
    "{% for m in messages %}{% if m.role == 'system' %}SYSTEM{% elif m.role == 'user' %}"
    "{{ '[Q] ' + m.content + ' [/Q]' }}{% else %}{{ ' ' + m.content + '<|eot_id|>' }}"
    '{% endif %}{% endfor %}')


def with_template(text):
    """Make the prompt of the tiny Llama with another chat template."""
    tokenizer = tokens('llama')
    tokenizer.chat_template = text
    return tokenizer, Prompt(tokenizer)


def test_a_space_that_the_template_puts_before_a_question_joins_its_first_word():
    tokenizer, own = with_template(TURNS.replace('SYSTEM', '{{ m.content }}'))
    ours = torch.cat((own.prefix(''), own.question(QUESTION)))
    assert ours.tolist() == ids(tokenizer, f'[Q] {QUESTION} [/Q]')
    assert tokenizer.decode(own.choice('yes')) == ' yes'


@pytest.mark.parametrize('refusal', ["{{ raise_exception('no system') }}", ''])
def test_a_template_without_system_turn_gets_it_at_the_head_of_the_user_turn(refusal):
    tokenizer, own = with_template(TURNS.replace('SYSTEM', refusal))
    whole = tokenizer.decode(torch.cat((own.prefix(SYSTEM), own.question(QUESTION))))
    assert whole.split() == f'[Q] {SYSTEM} {QUESTION} [/Q]'.split()


def test_content_is_given_as_a_list_where_the_template_wants_one():
    tokenizer, own = with_template(
        '{% for m in messages %}[{{ m.role }}]'
        '{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}')
    assert tokenizer.decode(own.prefix(SYSTEM)) == f'[system]{SYSTEM}[user]'
    assert tokenizer.decode(own.question(QUESTION)) == QUESTION


def test_a_system_prompt_is_given_as_text_where_the_template_wants_that_and_a_list_of_users():
    tokenizer, own = with_template(
        '{% for m in messages %}[{{ m.role }}]'
        "{% if m.role == 'system' %}{{ m.content | trim }}{% else %}"
        '{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}')
    assert tokenizer.decode(own.prefix(SYSTEM)) == f'[system]{SYSTEM}[user]'


def test_tokens_that_swallow_the_space_beside_them_do_so_here_too():
    from tokenizers import AddedToken
    tokenizer = tokens('llama')
    tokenizer.add_tokens([AddedToken('<|end|>', rstrip=True, special=True)], special_tokens=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '[' + m.role + ']\n' + m.content + '<|end|>\n' }}{% endfor %}"
        '{% if add_generation_prompt %}[assistant]\n{% endif %}')
    own = Prompt(tokenizer)
    ours = torch.cat((own.prefix(SYSTEM), own.question(QUESTION)))
    rendered = template(tokenizer, chat('llama', SYSTEM, QUESTION))
    assert ours.tolist() == ids(tokenizer, rendered)


@pytest.mark.parametrize('broken', ['always the same', '{{ raise_exception("no") }}', '{% if %}'])
def test_a_template_that_shows_no_text_is_refused_in_one_line(broken):
    tokenizer = tokens('llama')
    tokenizer.chat_template = broken
    with pytest.raises(ModelError, match='chat_template') as refusal:
        Prompt(tokenizer)
    assert '\n' not in str(refusal.value)
