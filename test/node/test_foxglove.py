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

"""The layouts for Foxglove and RViz name topics and fields that the node has."""

import importlib
import json
from pathlib import Path
import re

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from infmllm_ros.node.camera import CameraInput  # noqa: E402, I100
from infmllm_ros.node.node import InfmllmNode  # noqa: E402
from infmllm_ros.node.parameters import Settings  # noqa: E402
from infmllm_ros.node.qos import Endpoints  # noqa: E402
from infmllm_ros.node.watches import Watches  # noqa: E402
from infmllm_ros.watches import read_watches  # noqa: E402
import rclpy  # noqa: E402
from ros_robot import wait_for  # noqa: E402
import yaml  # noqa: E402

WATCHES = Path(__file__).parents[2] / 'config' / 'watches.yaml'
PAGE = (Path(__file__).parents[2] / 'docs' / 'seeing.md').read_text()
# a path of Foxglove: topic, perhaps a filter of messages, fields
PATH = re.compile(r'(/\w+)(?:{(\w+)=="(\w+)"})?((?:\.\w+)*)')
RVIZ = yaml.safe_load((Path(__file__).parents[2] / 'config' / 'infmllm.rviz').read_text())
LAYOUT = json.loads((Path(__file__).parents[2] / 'config' / 'foxglove.json').read_text())
PANELS = LAYOUT['configById']


def leaves(tree):
    """List the panels of a layout tree; each inner part must be as Foxglove writes it."""
    if isinstance(tree, str):
        return [tree]
    assert tree.keys() == {'direction', 'splitPercentage', 'first', 'second'}
    assert tree['direction'] in ('row', 'column') and 0 < tree['splitPercentage'] < 100
    return leaves(tree['first']) + leaves(tree['second'])


def shown():
    """List (panel, topic, fields of its message) of all panels."""
    for name, panel in PANELS.items():
        kind = name.split('!')[0]
        paths = {
            'Image': lambda p: [p['imageMode']['imageTopic']],
            'RawMessages': lambda p: [p['topicPath']],
            'Publish': lambda p: [p['topicName']],
            'DiagnosticSummary': lambda p: [p['topicToRender']],
            'Plot': lambda p: [path['value'] for path in p['paths'] if path['enabled']],
            'StateTransitions': lambda p: [path['value'] for path in p['paths']],
        }[kind](panel)
        for path in paths:
            topic, filtered, value, fields = PATH.fullmatch(path).groups()
            yield kind, topic, [*([filtered] if filtered else []), *fields.split('.')[1:]]
            if topic == '/watch_event':
                assert filtered == 'name' and value in {w.name for w in read_watches(WATCHES)}


@pytest.fixture(scope='module')
def topics(domain):
    """Ask a node for its topics: (published, heard), each name -> type."""
    context = rclpy.context.Context()
    rclpy.init(context=context, domain_id=domain)
    node = InfmllmNode(context=context)
    try:
        # what it makes when it configures, and when it activates
        Watches(node, Settings(watches=str(WATCHES)), print)
        CameraInput(node, Endpoints(node), '', 'image', 'raw', print)

        def graph(names):
            return {name: types[0] for name, types in names(node.get_name(), '/')}

        wait_for(lambda: {'/answer', '/image'} <= (
            graph(node.get_publisher_names_and_types_by_node).keys()
            | graph(node.get_subscriber_names_and_types_by_node).keys()), 'its topics')
        yield (graph(node.get_publisher_names_and_types_by_node),
               graph(node.get_subscriber_names_and_types_by_node))
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_every_panel_has_its_place():
    assert sorted(leaves(LAYOUT['layout'])) == sorted(PANELS)
    assert LAYOUT.keys() == {
        'configById', 'globalVariables', 'userNodes', 'playbackConfig', 'layout'}
    assert all(re.fullmatch(r'\w+!\w+', name) for name in PANELS)


def test_every_topic_and_field_is_the_nodes(topics):
    published, heard = topics
    for kind, topic, fields in shown():
        of = heard if kind == 'Publish' or topic == '/image' else published
        assert topic in of, f'{kind} shows {topic}'
        for field in fields:
            assert field in fields_of(of[topic]), f'{topic} has no {field}'
        if kind == 'Image':
            assert of[topic] in ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
    assert {'/memory_image', '/evidence_image', '/cache_stats', '/diagnostics', '/image', '/state',
            '/watch_event'} <= {topic for _, topic, _ in shown()}


def fields_of(kind):
    """Name the fields of a message type."""
    package, _, name = kind.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), name).get_fields_and_field_types()


def test_every_topic_of_the_recipe_for_rqt_and_rviz_is_the_nodes(topics):
    recipe = PAGE.partition('## rqt and RViz')[2]
    paths = re.findall(r'[ `](/\w+(?:/\w+)*)', recipe)
    assert {'/memory_image', '/cache_stats/tokens', '/state', '/evidence_image'} <= set(paths)
    for path in set(paths) - {'/compressed'}:  # what such a topic ends with
        topic, *fields = path[1:].split('/')
        kind = topics[0][f'/{topic}']
        for field in fields:
            assert field in fields_of(kind), f'/{topic} has no {field}'


def test_every_display_of_rviz_shows_a_topic_of_its_type_and_matches_its_publisher(topics):
    # those of navigation are heard once it is enabled
    types = {**topics[0], **topics[1],
             '/path': 'nav_msgs/msg/Path', '/odom': 'nav_msgs/msg/Odometry'}
    displays = RVIZ['Visualization Manager']['Displays']
    assert [display['Topic']['Value'] for display in displays] == [
        '/image', '/memory_image', '/path', '/odom']
    for display in displays:
        package, name = display['Class'].split('/')
        assert package == 'rviz_default_plugins'
        assert types[display['Topic']['Value']].endswith(f'/{name}')
        # whatever a camera or a planner offers, this matches
        assert display['Topic']['Reliability Policy'] == 'Best Effort'
        assert display['Topic']['Durability Policy'] == 'Volatile'


def test_what_it_publishes_is_a_question(topics):
    panel = PANELS['Publish!question']
    assert panel['datatype'] == topics[1][panel['topicName']]
    assert json.loads(panel['value']).keys() == {'data'}
