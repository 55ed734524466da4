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
"""Whatever is called in whatever order, a session is what its ledger says."""

from cases import cases, LONG
from hypothesis.stateful import run_state_machine_as_test
from infmllm_ros.engine import LAYOUTS
from machine import Life
import pytest
from zoo import POLICIES

# one family a policy in the short run, all in the long: M-RoPE, windows, states, shared keys
FAMILIES = ('smolvlm', 'qwen2_5_vl', 'lfm2_vl', 'llama', 'gemma3', 'gemma4', 'qwen3_5')
CELLS = [(row, FAMILIES[(number + turn) % len(FAMILIES)],
          [*LAYOUTS][(number + turn) % len(LAYOUTS)])
         for turn in range(len(FAMILIES) if LONG else 1) for number, row in enumerate(POLICIES)]


@pytest.mark.parametrize(('row', 'family', 'layout'), CELLS)
def test_any_life_of_a_session_is_as_its_ledger_says(row, family, layout):
    machine = type('Life', (Life,), {'family': family, 'row': row, 'layout': layout})
    run_state_machine_as_test(machine, settings=cases(2, stateful_step_count=30 if LONG else 12))
