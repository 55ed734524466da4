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

"""What a user can get wrong is refused in one line, and the memory stays as it was."""

import re

from infmllm_ros.engine import (
    BudgetError,
    check_budget,
    EngineError,
    FrameError,
    inspect_model,
    make_policy,
    ModelError,
    PolicyError,
    StreamingSession,
)
from infmllm_ros.engine import POLICIES as NAMES
import numpy as np
import pytest
import torch
from zoo import (
    cells,
    folder,
    load,
    picture,
    policy,
    session,
    show,
    SIGHTED,
    words,
)

ROOM = {'system_prompt': 'Be brief.', 'max_question': 48, 'max_answer': 16}


def one_line(refusal) -> str:
    """Return the message of a refusal: one line of a readable length."""
    message = str(refusal.value)
    assert message and '\n' not in message and len(message) < 400
    return message


# ----------------------------------------------------------------------------------- images
BAD = {
    'grey': np.zeros((64, 64), np.uint8),
    'four channels': np.zeros((64, 64, 4), np.uint8),
    'channels first': np.zeros((3, 64, 64), np.uint8),
    'a batch': np.zeros((1, 64, 64, 3), np.uint8),
    'float': np.zeros((64, 64, 3), np.float32),
    'signed': np.zeros((64, 64, 3), np.int8),
    'no rows': np.zeros((0, 64, 3), np.uint8),
    'no columns': np.zeros((64, 0, 3), np.uint8),
    'float tensor': torch.zeros(64, 64, 3),
    'text': 'picture.png',
    'nothing': None,
}


@pytest.mark.parametrize('name', BAD)
@pytest.mark.parametrize('family', ['smolvlm', 'qwen2_5_vl'])
def test_a_bad_image_is_refused_and_the_memory_untouched(family, name):
    target = session(family, 'saddle', 160)
    show(target, 1)
    before = target.kept(0), target.newest, target.stats().tokens_seen, target.frames_seen
    with pytest.raises(FrameError) as refusal:
        target.observe(BAD[name], stamp_ns=2 * 10**9)
    one_line(refusal)
    after = target.kept(0), target.newest, target.stats().tokens_seen, target.frames_seen
    assert after[0].equal(before[0]) and after[1:] == before[1:]
    show(target, 3)
    assert target.frames_seen == 2


@pytest.mark.parametrize('family', SIGHTED)
@pytest.mark.parametrize('size', [(1, 1), (1, 500), (500, 1), (37, 91), (480, 640)])
def test_any_shape_of_image_fits_its_room(family, size):
    model = load(family)
    target = session(family, 'recent_frames', 200)
    seen = target.stats().tokens_seen
    target.observe(picture(0, *size), stamp_ns=10**9)
    assert 0 < target.stats().tokens_seen - seen <= model.adapter.frame_tokens
    target.observe(torch.from_numpy(picture(1, *size)), stamp_ns=2 * 10**9)
    target.observe(np.full((*size, 3), 128, np.uint8), stamp_ns=10**18)
    assert target.frames_seen == 3
    assert torch.isfinite(target.logits(words(model, 4, 0))).all()


LAYOUTS = {
    'mirrored channels': lambda image: image[..., ::-1],
    'upside down': lambda image: image[::-1],
    'every other pixel': lambda image: image.repeat(2, 0).repeat(2, 1)[::2, ::2],
    'column by column': np.asfortranarray,
    'read-only': lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
    'a tensor': torch.from_numpy,
}


@pytest.mark.parametrize('name', LAYOUTS)
@pytest.mark.filterwarnings('error')
def test_an_image_may_lie_in_memory_as_it_likes(name):
    image = picture(0, 40, 50)
    laid = LAYOUTS[name](image)
    logits = []
    for shown in (laid, np.ascontiguousarray(np.asarray(laid))):
        target = session('smolvlm', 'saddle', 160)
        target.observe(shown)
        logits.append(target.logits(words(load('smolvlm'), 4, 0)))
    assert logits[0].equal(logits[1])


def test_a_model_without_eyes_says_so():
    with pytest.raises(ModelError) as refusal:
        session('llama', 'saddle', 160).observe(picture(0))
    one_line(refusal)


# ---------------------------------------------------------------------------------- budgets
@pytest.mark.parametrize(('family', 'row'), cells())
def test_the_smallest_budget_that_a_refusal_names_works_and_one_less_does_not(family, row):
    spec = inspect_model(str(folder(family)))
    with pytest.raises(BudgetError) as refusal:
        check_budget(spec, policy(row, 5), **ROOM)
    numbers = {int(number) for number in re.findall(r'\d+', one_line(refusal))} - {0}
    working = []
    for number in numbers:
        try:
            check_budget(spec, policy(row, number), **ROOM)
            working.append(number)
        except (BudgetError, PolicyError):
            pass
    assert working, f'no budget named in "{refusal.value}" works'
    smallest = min(working)
    pinned = len(spec.adapter.prompt.prefix(ROOM['system_prompt']))  # more than the sinks
    text = max(ROOM['max_question'], policy(row).reserve)
    assert smallest == pinned + spec.adapter.frame_tokens + text
    with pytest.raises((BudgetError, PolicyError)):
        check_budget(spec, policy(row, smallest - 1), **ROOM)
    target = StreamingSession(load(family), policy(row, smallest), **ROOM)
    with pytest.raises((BudgetError, PolicyError)):
        StreamingSession(load(family), policy(row, smallest - 1), **ROOM)
    if row != 'full':
        for number in range(3):
            if load(family).adapter.sees:
                show(target, number)
            target.tell(words(load(family), 20, number))
            target.answer('Where is the cup?', max_tokens=16, remember=bool(number % 2))
            assert target.kept(0).shape[1] <= smallest


def test_a_budget_beyond_the_context_is_refused():
    from zoo import changed
    spec = inspect_model(str(folder('llama', changed(max_position_embeddings=256))))
    with pytest.raises(BudgetError) as refusal:
        check_budget(spec, make_policy('saddle', budget=256), **ROOM)
    assert '256' in one_line(refusal)


@pytest.mark.parametrize('size', ['2MiB', '1.5MiB', '1300KiB'])
@pytest.mark.parametrize('family', ['smolvlm', 'qwen3'])
def test_a_budget_in_bytes_bounds_all_buffers(family, size):
    number, unit = re.fullmatch(r'([\d.]+)(\w+)', size).groups()
    limit = float(number) * {'KiB': 2**10, 'MiB': 2**20}[unit]
    target = session(family, 'saddle', size)
    stats = target.stats()
    assert stats.kv_bytes <= limit
    assert stats.kv_bytes > 0.8 * limit, 'the size is not used'
    while target.stats().evictions < 2:
        target.tell(words(load(family), 40, target.stats().tokens_seen))
    assert target.stats().kv_bytes == stats.kv_bytes
    assert target.kept(0).shape[1] <= target.stats().budget


@pytest.mark.parametrize('size', ['1KiB', '0MiB'])
def test_a_size_too_small_names_one_that_works(size):
    with pytest.raises(BudgetError) as refusal:
        session('smolvlm', 'saddle', size)
    working = int(re.findall(r'(\d+)MiB', one_line(refusal))[-1])
    assert session('smolvlm', 'saddle', f'{working}MiB').stats().kv_bytes <= working * 2**20
    with pytest.raises(BudgetError):
        session('smolvlm', 'saddle', f'{working - 1}MiB')


# --------------------------------------------------------------------------------- policies
@pytest.mark.parametrize('size', ['', 'much', '-1', '10 parsecs', -5, 1.5, True])
def test_a_budget_that_is_none_is_refused(size):
    with pytest.raises(PolicyError) as refusal:
        make_policy('saddle', budget=size)
    one_line(refusal)


@pytest.mark.parametrize(('name', 'fields', 'told'), [
    ('sadle', {}, 'saddle'),
    ('saddle', {'biass': 1}, 'biass'),
    ('saddle', {'scope': 'heads'}, 'heads'),
    ('saddle', {'window': ''}, 'window'),
    ('saddle', {'reduce': 'sum'}, 'sum'),
    ('saddle', {'age': 'years'}, 'years'),
    ('saddle', {'bias': -0.1}, 'bias'),
    ('saddle', {'bias': float('nan')}, 'bias'),
    ('saddle', {'rows': -1}, 'rows'),
    ('saddle', {'bias': float('inf')}, 'bias'),
    ('saddle', {'discount': 1.5}, 'discount'),
    ('saddle', {'sinks': -1}, 'sinks'),
    ('saddle', {'recent': -0.5}, 'recent'),
    ('saddle', {'probe_every': 0}, 'probe_every'),
    ('saddle', {'window': 'probe', 'probe': ''}, 'probe'),
    ('saddle', {'rows': 8.5}, 'rows'),
    ('hermes', {'probe': ' '}, 'hermes.probe'),
    ('hermes', {'shallow': 0.8, 'deep': 0.3}, 'hermes.deep 0.3'),
    ('hermes', {'weight': 0.5}, 'hermes.weight_fall is 0.6'),
    ('streaming_llm', {'sinks': -1}, 'sinks'),
    ('streaming_llm', {'bias': 0.1}, 'bias'),
    ('recent_frames', {'frames': 0}, 'frames'),
    ('recent_frames', {'frames': 'all'}, 'frames'),
    ('random', {'seed': -1}, 'seed'),
    ('random', {'scope': 'token'}, 'scope'),
])
def test_a_policy_field_out_of_range_is_refused(name, fields, told):
    with pytest.raises(PolicyError) as refusal:
        make_policy(name, budget=256, **fields)
    assert told in one_line(refusal)


@pytest.mark.parametrize(('name', 'fields'), [
    ('saddle', {'rows': 8.0, 'sinks': 4.0, 'bias': 0, 'window': 'chunk'}),
    ('streaming_llm', {'sinks': 4.0}), ('recent_frames', {'frames': 3.0})])
def test_a_whole_number_may_be_written_as_a_float(name, fields):
    target = StreamingSession(
        load('smolvlm'), make_policy(name, budget=160, **fields), **ROOM)
    for number in range(9):
        show(target, number)
        target.tell(words(load('smolvlm'), 20, number))
    assert target.stats().evictions and target.kept(0).shape[1] <= 160


@pytest.mark.parametrize(('name', 'value'), [
    ('chunk', 0), ('chunk', -1), ('max_question', 0), ('max_answer', 0), ('max_answer', -5)])
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(EngineError) as refusal:
        session('llama', 'saddle', 160, **{name: value})
    assert name in one_line(refusal)


@pytest.mark.parametrize('ids', [[5, 10**6], [5, -1]])
def test_a_token_that_is_none_is_refused(ids):
    target = session('llama', 'saddle', 160)
    before = target.kept(0)
    with pytest.raises((EngineError, IndexError)):
        target.tell(ids)
    assert target.kept(0).equal(before)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16])
def test_token_ids_of_a_narrow_type_are_taken(dtype):
    ids = torch.tensor([5, 100], dtype=dtype)
    assert session('llama', 'saddle', 160).logits(ids).equal(
        session('llama', 'saddle', 160).logits(ids.tolist()))


def test_every_option_of_a_policy_is_described():
    import dataclasses
    for name, kind in NAMES.items():
        assert kind.__doc__ and dataclasses.is_dataclass(kind), name
        for field in dataclasses.fields(kind):
            if field.name != 'budget':
                assert {'doc', 'low', 'high', 'choices'} <= set(field.metadata), field.name
                assert field.metadata['doc'], field.name
        for field in dataclasses.fields(kind):
            choices = field.metadata.get('choices')
            for choice in choices or ():
                assert getattr(make_policy(name, **{field.name: choice}), field.name) == choice


def test_every_error_is_an_engine_error():
    from infmllm_ros.engine import errors
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, EngineError), name


@pytest.mark.parametrize(('call', 'told'), [
    (lambda target: target.tell(None), 'NoneType'),
    (lambda target: target.tell([5.5]), 'whole numbers'),
    (lambda target: target.logits([10**6]), 'whole numbers'),
    (lambda target: target.answer(None), 'None'),
    (lambda target: target.answer('What?', choices=[1, 2]), 'choices'),
    (lambda target: target.answer('What?', max_tokens=2.5), 'max_tokens'),
    (lambda target: target.answer('What?', temperature=1.0, seed=2**70), 'seed')])
def test_a_value_of_the_wrong_kind_is_refused_and_the_memory_untouched(call, told):
    target = session('llama', 'saddle', 160)
    before = target.kept(0)
    with pytest.raises(EngineError) as refusal:
        call(target)
    assert told in one_line(refusal)
    assert target.kept(0).equal(before)


def test_half_a_character_and_a_numpy_stamp_are_taken(tmp_path):
    target = session('smolvlm', 'saddle', 160)
    target.observe(np.zeros((8, 8, 3), np.uint8), np.int64(5))
    target.tell('half a character: \ud800')
    target.save(tmp_path / 'memory')
    assert target.answer('And \ud800 again?', temperature=1e-40).stamp_ns == 5
