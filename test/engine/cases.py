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
"""How many cases a search with hypothesis tries: few and the same ones, or very many."""

from collections import Counter
import os

from hypothesis import HealthCheck, settings

tried: Counter[str] = Counter()       # cases by search, told at the end of a long run
LONG = int(os.environ.get('INFMLLM_CASES', '0'))


def cases(few: int, **options) -> settings:
    """Try a `few` cases, the same each time; INFMLLM_CASES=N tries N others at each run."""
    return settings(
        max_examples=LONG or few, derandomize=not LONG, database=None, deadline=None,
        print_blob=True, suppress_health_check=list(HealthCheck), **options)
