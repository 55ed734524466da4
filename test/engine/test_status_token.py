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

"""A status token declared in a checkpoint's config ends every frame."""

import json
from pathlib import Path

from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.engine import load_model, make_policy, ModelError, StreamingSession
from infmllm_ros.engine.chunk import Kind
from infmllm_ros.engine.positions import KIND
import numpy as np
import pytest
import zoo

FRAME = np.zeros((56, 56, 3), np.uint8)


def declared(folder: Path, family: str, token: str) -> str:
    """Write a tiny model whose config declares a status token."""
    make_tiny(family, folder)
    path = folder / 'config.json'
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, 'infmllm_status_token': token}))
    return str(folder)


@pytest.mark.parametrize('family', zoo.SIGHTED)
def test_status_token_ends_every_frame_and_is_its_marker(tmp_path, family):
    plain = load_model(make_tiny(family, tmp_path / 'plain'))
    # any token of the vocabulary will do
    token = plain.tokenizer.convert_ids_to_tokens(70)
    model = load_model(declared(tmp_path / 'status', family, token))
    before = plain.adapter.encode(plain.model, FRAME, 3.0)
    chunk = model.adapter.encode(model.model, FRAME, 3.0)
    assert chunk.ids.tolist() == [*before.ids.tolist(), 70]
    assert chunk.spans == before.spans
    assert (before.markers, chunk.markers) == ((), (len(chunk) - 1,))
    assert model.adapter.frame_tokens == plain.adapter.frame_tokens + 1


def test_marker_window_scores_by_status_tokens_alone(tmp_path):
    tokenizer = load_model(make_tiny('llava_onevision', tmp_path / 'plain')).tokenizer
    token = tokenizer.convert_ids_to_tokens(70)
    model = load_model(declared(tmp_path / 'status', 'llava_onevision', token))
    session = StreamingSession(
        model, make_policy('saddle', budget=64, window='marker'), max_question=16, max_answer=8,
        chunk=16)
    slots = session.cache.slots[0]
    session.tell('a car on the road')
    assert slots.state[1, 0, :slots.count].sum() == 0
    session.observe(FRAME)
    assert slots.held(KIND)[0, -1] == Kind.MARKER
    assert (slots.state[1, 0, :slots.count] == 1).all()
    # the row of one query: it sums to 1 over all that it sees
    assert slots.state[0, 0, :slots.count].sum().item() == pytest.approx(1, abs=1e-4)


def test_unknown_status_token_is_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match='<nowhere>'):
        load_model(declared(tmp_path, 'llava_onevision', '<nowhere>'))
