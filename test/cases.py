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
What searches with hypothesis have in common: how many cases, and what may stand in any input.

They try few cases, the same each time, or very many.
"""

from collections import Counter
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

tried: Counter[str] = Counter()       # cases by search, told at the end of a long run
LONG = int(os.environ.get('INFMLLM_CASES', '0'))
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-2**63, 2**63) | st.integers(-3, 300) | st.floats()
    | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=5), inner, max_size=3), max_leaves=8)
# control characters, lone surrogates, other planes
HOSTILE = st.text(st.characters(), max_size=40) | st.text(
    st.sampled_from('\0\x1b\r\n\t\x7f\u202e\ufeff\ud800\udfff\U0001f600<|im_end|></s> a'),
    max_size=40)


def cases(few: int, **options) -> settings:
    """Try a `few` cases, the same each time; INFMLLM_CASES=N tries N others at each run."""
    return settings(
        max_examples=LONG or few, derandomize=not LONG, database=None, deadline=None,
        print_blob=True, suppress_health_check=list(HealthCheck), **options)


def one_line(error: Exception) -> None:
    """Hold a refusal to one line of reasonable length."""
    assert '\n' not in str(error) and len(str(error)) < 1000
