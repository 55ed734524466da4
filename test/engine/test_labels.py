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

"""Text before the frames of a camera, so that a model can tell several cameras apart."""

from types import MappingProxyType

from infmllm_ros.engine import BudgetError, StreamingSession
from infmllm_ros.engine.plain import plain_inputs, Shown
import pytest
import torch
from zoo import load, picture, plain, policy, session, words

LABELS = {'front': 'The front camera: ', 'left': 'And on the left hand side: '}
SHOTS = [('front', 64, 64), ('left', 90, 40), ('', 64, 64), ('left', 64, 64)]


def told(model, camera):
    return [model.adapter.prompt.text(LABELS[camera])] if camera in LABELS else []


# a frame without a stamp, one with a stamp and M-RoPE, one whose tokens see each other
@pytest.mark.parametrize('family', ['smolvlm', 'qwen3_vl', 'gemma3'])
@pytest.mark.parametrize('many', [False, True])
def test_a_label_is_read_as_text_right_before_its_frame(family, many):
    model, target = load(family), session(family, 'full', 700, labels=LABELS)
    frames = [Shown(picture(n, *size), float(n), camera)
              for n, (camera, *size) in enumerate(SHOTS)]
    if many:
        target.observe_many([f.image for f in frames], [int(f.seconds * 1e9) for f in frames],
                            [f.camera for f in frames])
    else:
        for frame in frames:
            target.observe(frame.image, int(frame.seconds * 1e9), frame.camera)
    asked = words(model, 20, 5)
    found = target.logits(asked).float()
    whole = [model.adapter.prompt.prefix('Be brief.'),
             *(part for f in frames for part in (*told(model, f.camera), f)), asked]
    inputs, count = plain_inputs(model, whole)
    with torch.no_grad():
        expected = plain(family)(**inputs).logits[0, count - 20:count].float()
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_longest_label_has_its_room():
    model = load('smolvlm')
    frame = model.adapter.frame_tokens
    longest = max(len(model.adapter.prompt.text(text)) for text in LABELS.values())
    room = {'max_question': 8, 'max_answer': 1, 'chunk': 1}
    bare, labelled = (session('smolvlm', 'streaming_llm', 96, labels=labels, **room)
                      for labels in ({}, LABELS))
    assert bare.plan.headroom == frame  # else a frame is not what sets it here
    assert labelled.plan.headroom == frame + longest
    for number in range(12):
        labelled.observe(picture(number), number, 'left')
        assert labelled.stats().tokens <= 96
    each = len(model.adapter.lay_out(picture(0), 0.0)) + longest
    assert labelled.stats().tokens_seen == len(bare.prefix) + 12 * each
    least = len(bare.prefix) + frame + 8
    with pytest.raises(BudgetError, match=str(least + longest)):
        StreamingSession(model, policy('streaming_llm', least), system_prompt='Be brief.',
                         labels=LABELS, **room)


def test_labels_are_saved_with_the_memory_in_whatever_mapping_they_came(tmp_path):
    target = session('smolvlm', 'full', 300, labels=MappingProxyType(LABELS))
    target.observe(picture(0), 0, 'left')
    target.save(tmp_path / 'memory')
    revived = StreamingSession.load(tmp_path / 'memory', load('smolvlm'))
    for one in (target, revived):
        one.observe(picture(1), 10**9, 'front')
    assert revived.stats().tokens_seen == target.stats().tokens_seen


def test_labels_that_change_later_are_not_those_of_the_session():
    labels = dict(LABELS)
    target = session('smolvlm', 'full', 300, labels=labels)
    labels['left'] = 'of more tokens than there is room for ' * 99
    target.observe(picture(0), 0, 'left')
    each = len(load('smolvlm').adapter.lay_out(picture(0), 0.0, LABELS['left']))
    assert target.stats().tokens_seen == len(target.prefix) + each
