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

"""Parameters of the node without a node."""

from infmllm_ros.bundled import MODEL, MODEL_PARAMETERS
from infmllm_ros.node.option import ParameterError
from infmllm_ros.node.options import TABLE
from infmllm_ros.replay.settings import changed, complete, read_parameters
import pytest

FILE = """\
/**:
  ros__parameters:
    seed: 1
    remember: true
    saddle: {bias: 0.5, window: probe}
robot:
  infmllm:
    ros__parameters: {seed: 2, use_sim_time: true}
/robot/infmllm:
  ros__parameters: {refresh: 3.0}
camera_driver:
  ros__parameters: {seed: 99, frame_rate: 30}
"""


def test_files_and_assignments_as_ros_reads_them(tmp_path):
    file = tmp_path / 'a.yaml'
    file.write_text(FILE)
    values = read_parameters([file], ['seed:=7', 'cameras:=[front, rear]', 'system_prompt:=',
                                      'device:=cuda:1', 'saddle.window:=chunk'])
    assert values == {
        'seed': 7, 'remember': True, 'saddle.bias': 0.5, 'saddle.window': 'chunk',
        'use_sim_time': True, 'refresh': 3.0, 'cameras': ['front', 'rear'], 'system_prompt': '',
        'device': 'cuda:1'}


@pytest.mark.parametrize('text, told', [
    ('camera_driver: {ros__parameters: {seed: 1}}', 'no parameters for a node infmllm'),
    ('[1', 'no valid YAML'), ('', 'no parameters'), ('just text', 'no parameters')])
def test_a_file_that_is_none(tmp_path, text, told):
    file = tmp_path / 'a.yaml'
    file.write_text(text)
    with pytest.raises(ParameterError, match=told):
        read_parameters([file])


def test_what_cannot_be_read_and_what_is_no_assignment(tmp_path):
    with pytest.raises(ParameterError, match='cannot be read: No such file'):
        read_parameters([tmp_path / 'none.yaml'])
    with pytest.raises(ParameterError, match="'seed=1' is no assignment: write name:=value"):
        read_parameters([], ['seed=1'])


def test_without_a_model_it_is_the_bundled_one_and_what_differs_is_told():
    values = complete({'saddle.bias': 0.25, 'use_sim_time': True}, ['front', 'rear'])
    assert values['model'] == str(MODEL)
    assert values['budget_tokens'] == MODEL_PARAMETERS['budget_tokens']
    assert values['seed'] == TABLE['seed'].default
    assert values['front.max_frame_rate'] == -1.0, 'that of all'
    told = changed(values)
    assert told['model'] == 'bundled' and told['saddle.bias'] == 0.25
    assert told['cameras'] == ['front', 'rear'] and 'seed' not in told

    values = complete({'model': '/other'}, [''])
    assert values['budget_tokens'] == TABLE['budget_tokens'].default
    assert changed(values) == {'model': '/other'}
