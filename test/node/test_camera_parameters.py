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

"""Parameters of each of several cameras, and what cameras may be called."""

from infmllm_ros.node.parameters import (
    camera_options,
    check,
    check_cameras,
    of_camera,
    ParameterError,
    refusal,
    snapshot,
)
import pytest
from stand_ins import Node


def test_each_of_several_cameras_has_parameters_of_its_own():
    assert not camera_options(['front'])
    names = [option.name for option in camera_options(['front', 'left'])]
    assert len(names) == 8 and 'left.image_transport' in names
    node = Node(cameras=['front', 'left'], max_frame_rate=5.0)
    node.values.update({o.name: o.default for o in camera_options(['front', 'left'])})
    node.values.update({'left.image_transport': 'compressed', 'left.max_frame_rate': 0.0})
    check(node)
    assert not refusal('left.max_frame_rate', 2.0, object(), ['front', 'left'])
    assert '1000' in refusal('left.max_frame_rate', 2000.0, None, ['front', 'left'])
    assert 'clean up' in refusal('left.image_transport', 'raw', object(), ['front', 'left'])
    assert [of_camera(node, camera, name) for camera in ('front', 'left')
            for name in ('image_transport', 'max_frame_rate')] == ['raw', 5.0, 'compressed', 0.0]
    node.values['left.image_transport'] = 'theora'
    with pytest.raises(ParameterError, match='left.image_transport.*theora.*compressed'):
        check(node)


def test_frames_are_labelled_where_there_are_several_cameras():
    assert snapshot(Node(cameras=['front'])).labels == {}
    assert snapshot(Node(cameras=['front', 'left'])).labels == {
        'front': 'front camera: ', 'left': 'left camera: '}


@pytest.mark.parametrize(('names', 'named'), [
    (['front', ''], "''"), (['a/b'], "'a/b'"), (['1st'], "'1st'"), (['left', 'left'], 'twice'),
    (['nav'], 'taken'), (['memory'], 'taken'), (['saddle', 'left'], 'taken'), ([], "['']")])
def test_names_that_are_no_topics_are_refused(names, named):
    with pytest.raises(ParameterError, match='cameras') as refused:
        check_cameras(names)
    assert named in str(refused.value) and '\n' not in str(refused.value)


def test_one_camera_needs_no_name():
    for names in ([''], ['front'], ['front', 'rear_2']):
        check_cameras(names)
