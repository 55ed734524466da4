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

"""The budgets of the page follow from the table of models, by hand."""

from pathlib import Path
import re

import pytest

DOCS = Path(__file__).parents[1] / 'docs'
ROWS = re.findall(r'^\| (\d+) GB \| `(\S+)` \| ([\d.]+) GiB \| ([\d,]+)( \(context\))? '
                  r'\| ([\d,]+) \| ([\d.]+) min \|$', (DOCS / 'choosing.md').read_text(), re.M)
MODELS = {name: cells for name, *cells in re.findall(
    r'^\| \d+ GB \| `(\S+)` \| ([\d.]+) GB \| (\d+) \| ([\d.]+) KiB \|',
    (DOCS / 'models.md').read_text(), re.M)}
GIB = 2 ** 30


def test_there_are_rows_for_gpus_of_all_sizes():
    assert {int(row[0]) for row in ROWS} >= {8, 12, 16, 24, 48, 80}


@pytest.mark.parametrize('row', ROWS, ids=lambda row: f'{row[0]} GB {row[1]}')
def test_a_budget_is_what_the_gpu_leaves(row):
    gpu, name, room, budget, limited, frames, minutes = row
    weights, frame, token = map(float, MODELS[name])
    left = int(gpu) * 1e9 - weights * 1e9 - 1.5 * GIB
    assert left / GIB == pytest.approx(float(room), abs=.1)
    tokens, frames = int(budget.replace(',', '')), int(frames.replace(',', ''))
    taken = tokens * token * 1024   # headroom, windows and states take the rest
    assert taken < left + .01 * left
    assert limited or taken > .6 * left
    assert frames == tokens // frame
    assert frames / 60 == pytest.approx(float(minutes), abs=.06)
