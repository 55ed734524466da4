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
The bundled model answers about scenes it was not trained on, long after eviction began.

What was told it has to know; for the rest the floors lie a little below the targets of the memory
exam, since fewer questions are asked here.
"""

from collections import defaultdict
from pathlib import Path
import re

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.engine import load_model, make_policy, StreamingSession
import pytest
import torch

SEED = 3_000_000  # training draws its seeds below 2,000,000
FRAMES = 400
FACTS = (('target', 'blue cup'), ('code', 'seven'), ('visitor', 'emma'))
FLOORS = {'now': .95, 'no': .95, 'back': .9}
WINDOW = MODEL_BUDGET // 5  # [frames] that the budget would hold as a plain rolling window
TELL, CHANGE, EVERY = 2, 200, 8  # [frames]


@pytest.fixture(scope='module')
def model():
    torch.set_num_threads(1)
    return load_model(MODEL)


def watch(model, policy, kind):
    """Watch a world and answer questions about it: kind of question -> right or wrong."""
    session = StreamingSession(model, policy, max_question=32, max_answer=8)
    episode, right = Episode(kind, SEED, keys=0), defaultdict(list)

    def ask(question, label):
        said = session.answer(question.text).text.strip()
        right[label].append(said == question.answer)

    for step in (next(episode) for _ in range(FRAMES)):
        session.observe(step.frame, step.ordinal * 10**9)
        if step.ordinal == TELL:
            for key, value in FACTS:
                session.tell(episode.tell(key, value).text)
        if step.ordinal == CHANGE:
            session.tell(episode.tell('code', 'two').text)
        if step.ordinal > TELL and step.ordinal % EVERY == 0:
            for label in FLOORS:
                question = episode.ask((label,))
                if question is not None and (question.age_frames or 0) <= WINDOW:
                    ask(question, label)
    assert session.stats().tokens_evicted > 4 * MODEL_BUDGET
    for question in episode.questions(('told', 'again')):
        if question.name in {f'told:{key}' for key, _ in FACTS}:
            ask(question, 'changed' if question.name == 'told:code' else 'told')
    return {label: sum(found) / len(found) for label, found in right.items()}


@pytest.mark.parametrize('kind', ['drive', 'bench'])
def test_facts_told_once_are_known_when_the_cache_has_turned_over_many_times(model, kind):
    right = watch(model, make_policy('saddle', budget=MODEL_BUDGET, **MODEL_POLICY), kind)
    assert right['told'] == right['changed'] == 1
    for label, floor in FLOORS.items():
        assert right[label] >= floor, label


def test_streaming_llm_forgets_what_was_told_and_sees_what_is_there(model):
    right = watch(model, make_policy('streaming_llm', budget=MODEL_BUDGET), 'drive')
    assert right['told'] == right['changed'] == 0
    assert right['now'] >= FLOORS['now']


def test_pages_name_the_policy_that_is_shipped():
    docs = Path(__file__).parents[1] / 'docs'
    page = (docs / 'bundled_model.md').read_text()
    stated = re.search(r'`(window=.*?)` \(`infmllm_ros\.bundled\.MODEL_POLICY`\)', page)[1]
    assert {name: str(value).lstrip('0') for name, value in MODEL_POLICY.items()} == dict(
        field.split('=') for field in stated.split(', '))
    stated = re.search(r'`saddle` is ours:.*?bias (\S+), discount (\S+);',
                       (docs / 'memory_exam.md').read_text(), re.S)
    assert tuple(map(float, stated.groups())) == (MODEL_POLICY['bias'], MODEL_POLICY['discount'])
