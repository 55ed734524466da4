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

"""What layers that the policy does not bound mean for a budget, and which layers are refused."""

import re

from infmllm_ros.engine import BudgetError, check_budget, inspect_model, make_policy, ModelError
from infmllm_ros.engine.layers import layer_specs
import pytest
from test_layers import MODELS
from zoo import changed, folder, session


@pytest.mark.parametrize('name', ['gemma3', 'gemma4', 'lfm2', 'qwen3_next', 'qwen3_5', 'qwen2'])
def test_a_budget_in_bytes_counts_windows_and_states(name):
    family, changes = MODELS[name]
    stats = session(family, 'saddle', '1MiB', changes=changes).stats()
    assert 0.9 * 2**20 < stats.kv_bytes <= 2**20
    with pytest.raises(BudgetError) as refusal:
        session(family, 'saddle', '1KiB', changes=changes)
    works = int(re.findall(r'(\d+)MiB', str(refusal.value))[-1])
    assert session(
        family, 'saddle', f'{works}MiB', changes=changes).stats().kv_bytes <= works * 2**20


def test_a_window_and_its_headroom_must_fit_the_context():
    changes = changed(max_position_embeddings=512, sliding_window=500)
    spec = inspect_model(str(folder('mistral', changes)))
    with pytest.raises(BudgetError, match='window of 500.*headroom of .*limit 512.*lower'):
        check_budget(spec, make_policy('saddle', budget=150), max_question=32, max_answer=32,
                     chunk=64)


@pytest.mark.parametrize(('family', 'change', 'told'), [
    ('lfm2', {'layer_types': ['full_attention', 'mamba', 'conv']}, "layer 1 .*'mamba'"),
    ('llama', {'layer_types': ['full_attention'] * 2 + ['linear_attention']},
     "layer 2 .*'linear_attention'"),
    ('lfm2', {'layer_types': ['conv'] * 3}, 'no attention layer'),
    ('gemma3_text', {'use_bidirectional_attention': True}, 'looks ahead'),
])
def test_layers_that_cannot_be_streamed_are_refused_before_the_weights(
        family, change, told, tmp_path):
    config = inspect_model(str(folder(family))).config
    for name, value in change.items():
        object.__setattr__(config, name, value)
    with pytest.raises(ModelError, match=told) as refusal:
        layer_specs(config)
    assert '\n' not in str(refusal.value)
