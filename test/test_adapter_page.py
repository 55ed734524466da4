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

"""The adapter in the page is a whole one: it reads frames as the package's own does."""

from pathlib import Path
import re

from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.engine import load_model, StreamingSession
from infmllm_ros.engine.models.load import ADAPTERS
from infmllm_ros.engine.policies import make_policy
import numpy as np

PAGE = (Path(__file__).parents[1] / 'docs/adapter.md').read_text()


def answer(folder):
    model = load_model(folder, device='cpu', dtype='float32')
    session = StreamingSession(model, make_policy('full', budget=900), max_question=32,
                               max_answer=8)
    for number in range(2):
        frame = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        session.observe(frame, number * 10**9)
    return model.adapter, session.answer('What is there?', max_tokens=8).token_ids


def test_the_example_is_an_adapter(tmp_path, monkeypatch):
    example = re.search(r'```python\n(.*?)```', PAGE, re.S)[1]
    scope = {'__name__': 'example'}
    exec(compile(example, 'adapter.md', 'exec', dont_inherit=True), scope)
    [family] = scope['Family'].model_types
    folder = make_tiny(family, tmp_path)
    own, expected = answer(folder)
    monkeypatch.setitem(ADAPTERS, family, scope['Family'])
    adapter, said = answer(folder)
    assert type(adapter) is scope['Family'] is not type(own)
    assert adapter.frame_tokens == own.frame_tokens
    assert said == expected != ()


def test_what_the_page_asks_for_is_what_adapters_have():
    base = (Path(__file__).parents[1] / 'infmllm_ros/engine/models/base.py').read_text()
    table = re.search(r'^\| question.*?(?=\n\n)', PAGE, re.M | re.S)[0]
    for name in re.findall(r'`(\w+)', ' '.join(row.split('|')[2] for row in table.splitlines())):
        assert re.search(rf'\b{name}\b', base), f'adapters have no {name}'
