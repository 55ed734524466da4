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

"""What is left of each frame is what the layers keep of it."""

from __future__ import annotations

from infmllm_ros.engine import holdings
import numpy as np
import pytest
from zoo import holders, load, session, show, words


@pytest.mark.parametrize(('family', 'row'), [
    ('smolvlm', 'saddle'), ('smolvlm', 'h2o'), ('gemma3', 'streaming_llm'),
    ('qwen2_5_vl', 'infinipot_v')])
def test_holdings_count_what_the_layers_keep(family, row):
    target = session(family, row, 120)
    first, stop = [], []  # stream indices of the frames
    for number in range(7):
        first.append(target.cache.seen)
        show(target, number)
        stop.append(target.cache.seen)
        target.tell(words(load(family), 11, number))
    seen = target.cache.seen
    kept = [held for layer in holders(target)
            if target.cache.layers[layer] in target.cache.full
            for held in target.kept(layer).numpy()]
    expected = {}
    for number, (begin, end) in enumerate(zip(first, stop)):
        tokens = old = 0
        for held in kept:
            missing = np.setdiff1d(np.arange(seen), held)
            mine = held[(begin <= held) & (held < end)]
            tokens += len(mine)
            old += np.sum(mine < missing.max(initial=-1))
        if tokens:
            expected[number] = (tokens / len(kept), old / len(kept))
    found = {h.frame.ordinal: (h.tokens, h.old) for h in holdings(target)}
    assert list(found) == list(expected)
    assert np.allclose(list(found.values()), list(expected.values()))
    assert any(old for _, old in expected.values()) or row == 'streaming_llm'
    assert [h.frame.stamp_ns for h in holdings(target)] == [n * 10**9 for n in expected]


def test_a_memory_without_frames_holds_none():
    assert holdings(session('smolvlm', 'saddle')) == []
