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

"""Whatever the parameters are, they make a node that works, or are refused by name."""

from functools import lru_cache
from types import SimpleNamespace

from cases import ANY, cases, HOSTILE, one_line, tried
from hypothesis import given
from hypothesis import strategies as st
from infmllm_ros.bundled import MODEL
from infmllm_ros.engine import EngineError, load_model
from infmllm_ros.node import parameters
from infmllm_ros.node.loading import open_session
from infmllm_ros.node.option import ParameterError
from infmllm_ros.node.parameters import TABLE
import numpy as np
import pytest

MOST = 600  # [tokens, or what else is counted] more would only take longer
CAMERAS = st.sampled_from([('',), ('front',), ('front', 'rear')]) | st.lists(
    st.sampled_from(['a', '', '1', 'saddle', 'memory', 'a b']) | HOSTILE, max_size=3).map(tuple)
# what would change the process of the tests, or look for another model
KEPT = {'model': str(MODEL), 'device': 'cpu', 'dtype': 'float32', 'threads': 1}


def allowed(option):
    """Draw a value of a parameter that its table allows."""
    if option.name == 'cameras':
        return CAMERAS
    if option.choices:
        return st.sampled_from(option.choices)
    if isinstance(option.default, bool):
        return st.booleans()
    if isinstance(option.default, str):
        return st.sampled_from([option.default, 'What now?']) | HOSTILE
    low = option.low if option.low is not None else -9
    high = min(MOST, option.high if option.high is not None else MOST)
    return st.integers(int(low), int(high)) if isinstance(option.default, int) else st.floats(
        low, high) | st.sampled_from([low, high])


def limits(option):
    """Draw a value at a limit of a parameter, or beyond."""
    ends = [end for end in (option.low, option.high) if end is not None] or [0]
    return st.sampled_from([kind(end + more) for end in ends for more in (-1, 0, 1)
                            for kind in (int, float)])


class Node:
    """As much of a node as `check` and `snapshot` use."""

    def __init__(self, values):
        cameras = values.get('cameras', ('',))
        self.values = {name: option.default for name, option in TABLE.items()}
        self.values.update({o.name: o.default for o in parameters.camera_options(cameras)})
        self.values.update(values)

    def get_parameter(self, name):
        return SimpleNamespace(value=self.values[name])


@lru_cache
def model():
    return load_model(str(MODEL), device='cpu', dtype='float32')


@cases(60)
@given(name=st.sampled_from(sorted(TABLE)), data=st.data())
def test_any_value_of_a_parameter(name, data):
    option = TABLE[name]
    refused_or_right(option, data.draw(limits(option) | ANY | HOSTILE | allowed(option)))


@pytest.mark.parametrize('value', ['\n', 'x' * 5000, True])
def test_what_is_fixed_at_the_start_is_refused_in_a_line(value):
    refused_or_right(TABLE['autostart'], value)


def refused_or_right(option, value):
    name = option.name
    tried['values of parameters'] += 1
    problem = parameters.refusal(name, value, None)
    one_line(problem)
    if problem:
        assert name in problem and not parameters.refusal(name, option.default, None) or \
            option.changes == 'start'
    else:
        assert type(value) is type(option.default) or name == 'cameras' and all(
            isinstance(camera, str) for camera in value)


@cases(40)
@given(data=st.data(), names=st.lists(st.sampled_from(sorted(TABLE.keys() - KEPT)), max_size=6),
       policy=allowed(TABLE['policy']), budget=st.integers(0, MOST), short=st.booleans())
def test_any_set_of_parameters(data, names, policy, budget, short):
    own = [name for name in TABLE if name.startswith(f'{policy}.')]
    names = dict.fromkeys([*names, *data.draw(st.lists(st.sampled_from(own), max_size=4))
                           ] if own else names)
    room = {'max_question_tokens': 24, 'max_answer_tokens': 4, 'chunk_tokens': 64} if short else {}
    given_ = {**KEPT, 'policy': policy, **room,
              **{name: data.draw(allowed(TABLE[name])) for name in names},
              'budget_tokens': budget}
    tried['sets of parameters'] += 1
    try:
        parameters.check_cameras(given_.get('cameras', ('',)))
        node = Node(given_)
        parameters.check(node)
        settings = parameters.snapshot(node)
        session = open_session(settings, lambda line: None, model())
        for stamp in range(3):
            session.observe(np.full((64, 64, 3), 40 * stamp, np.uint8), stamp * 10**9,
                            settings.cameras[0])
        session.answer('what is ahead', max_tokens=2)
    except (ParameterError, EngineError) as error:
        one_line(error)
    else:
        tried['sets of parameters that work'] += 1
        stats = session.stats()
        assert stats.tokens <= stats.budget
        assert stats.frames_seen + stats.frames_skipped == 3
        assert policy == 'live_vlm' or not stats.frames_skipped     # which skips what repeats
