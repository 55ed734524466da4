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
What ships with the package: scenes, a model that was trained on them, makers of random models.

Attributes
----------
MODEL : Path
    Folder of the bundled model; see docs/bundled_model.md.
MODEL_POLICY : dict
    Fields of policy `saddle` that it is meant for.
MODEL_BUDGET : int
    [tokens] The budget that is enough for it.
MODEL_PARAMETERS : dict
    Parameters of the node with it.

"""

from pathlib import Path
from typing import Any

MODEL = Path(__file__).parent / 'model'
MODEL_POLICY: dict[str, Any] = {
    'window': 'marker', 'scope': 'all', 'reduce': 'mean', 'bias': .004, 'discount': .97}
MODEL_BUDGET = 192
MODEL_PARAMETERS: dict[str, Any] = {
    'model': str(MODEL), 'budget_tokens': MODEL_BUDGET, 'max_question_tokens': 32,
    'max_answer_tokens': 8, **{f'saddle.{name}': value for name, value in MODEL_POLICY.items()}}
