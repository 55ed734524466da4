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

"""The page of policies names them all, and its example is a policy."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
import re

from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.engine import load_model, make_policy, POLICIES, StreamingSession
import numpy as np
import pytest

PAGE = (Path(__file__).parents[1] / 'docs/policies.md').read_text()


def test_every_policy_has_its_row_and_its_section():
    table = re.findall(r'^\| `(\w+)` \|', PAGE, re.M)
    sections = re.findall(r'^### `(\w+)`', PAGE, re.M)
    assert sorted(table) == sorted(sections) == sorted(POLICIES)


@pytest.mark.parametrize('name', POLICIES)
def test_names_in_a_section_are_those_of_the_code(name):
    section = re.search(rf'^### `{name}`(.*?)(?=^##)', PAGE, re.M | re.S)[1]
    own = {field.name for field in fields(POLICIES[name])}
    for assigned in re.findall(r'`(\w+): ', section):
        assert assigned in own, f'{name} has no field {assigned}'


def test_the_example_is_a_policy_that_keeps_what_it_says(tmp_path, monkeypatch):
    example = re.search(r'```python\n(.*?)```', PAGE, re.S)[1]
    assert len(example.splitlines()) <= 36
    monkeypatch.setattr('infmllm_ros.engine.policies.POLICIES', dict(POLICIES))
    exec(compile(example, 'policies.md', 'exec', dont_inherit=True), {'__name__': 'example'})
    from infmllm_ros.engine.policies import POLICIES as more
    assert set(more) - set(POLICIES) == {'key_frames'}
    monkeypatch.setitem(POLICIES, 'key_frames', more['key_frames'])
    model = load_model(make_tiny('smolvlm', tmp_path / 'model'), device='cpu', dtype='float32')
    session = StreamingSession(model, make_policy('key_frames', budget=200, every=5),
                               max_question=32, max_answer=8)
    for number in range(30):
        session.observe(np.full((64, 64, 3), 8 * number, np.uint8), stamp_ns=number * 10**9)
        if number == 2:
            session.tell('The target is the blue cup.')
    frames = session.cache.frames()
    assert session.stats().evictions > 3 and session.stats().tokens == 200
    assert {0, 5, 10, 15, 20, 25, 29} <= set(frames)
    # of the frames between, what is left fills the budget: the newest of them
    between = [frame for frame in frames if frame % 5]
    assert min(between) > 18
    session.save(tmp_path / 'memory')
    again = StreamingSession.load(tmp_path / 'memory', model)
    assert again.policy == session.policy and again.kept(0).equal(session.kept(0))
