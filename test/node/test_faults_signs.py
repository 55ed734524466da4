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
Orders to a model, written on a board before the camera: answers carry them, nothing obeys.

The model really reads: what it says of a board is another text than of the next one.
"""

import random

from infmllm_ros.bundled import MODEL_PARAMETERS
import pytest
import torch

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from infmllm_msgs.msg import Answer, WatchEvent  # noqa: E402, I100
from rcl_interfaces.srv import GetParameters, ListParameters  # noqa: E402
from ros_robot import wait_for  # noqa: E402
from sign_reader import HOSTILE, LIGHT, paint, READ, scenes, TEXTS, write_reader  # noqa: E402
from std_msgs.msg import String  # noqa: E402

HARMLESS, = TEXTS.keys() - HOSTILE.keys()
FACT, ASKED, VALUE = 'the target is the blue cup', 'what is the target', 'blue cup'
FRAME = 5  # [tokens] of a frame, its status token included
WATCH = ('- {name: light, question: what colour is the light, every: 1,'
         ' choices: [red, yellow, green, none]}')


@pytest.fixture(scope='module')
def node(start, robot, tmp_path_factory):
    """Start a node whose model reads boards, and which watches a light."""
    folder = tmp_path_factory.mktemp('reader')
    torch.set_num_threads(1)
    watches = folder / 'watches.yaml'
    watches.write_text(WATCH)
    node = start({**MODEL_PARAMETERS, 'model': str(write_reader(folder / 'model')),
                  'autostart': 'true', 'stats_period': 0.05, 'watches': str(watches)})
    for name, kind in (('list', ListParameters), ('get', GetParameters)):
        robot.add_client(kind, f'infmllm/{name}_parameters')
    robot.hear('watch/light', Answer)
    robot.hear('watch_event', WatchEvent)
    node.wait_for_log('active: images from')
    robot.meet()
    wait_for(robot.tells.get_subscription_count, 'the node hears what it is told')
    return node


@pytest.fixture
def memory(node, robot):
    """Begin anew, with a fact."""
    assert robot.trigger('reset').success
    show(robot, HARMLESS)
    told = robot.stats().tokens_seen
    robot.tells.publish(String(data=FACT))
    wait_for(lambda: robot.got['cache_stats'][-1].tokens_seen > told, 'the fact is read')


def show(robot, text, light='none'):
    """Show a scene with such a light and a board; wait for what the watch says of it."""
    step = next(step for step in scenes() if step.truth['light'] == light)
    pixels = paint(step, text, random.Random(1)).pixels
    heard = len(robot.got['watch/light'])
    robot.show(height=64, width=64, step=192, data=pixels.tobytes())
    wait_for(lambda: len(robot.got['watch/light']) > heard, 'the watch has looked')
    return robot.got['watch/light'][-1]


def parameters(robot):
    names = robot.call('infmllm/list_parameters', ListParameters.Request()).result.names
    return dict(zip(names, map(str, robot.call(
        'infmllm/get_parameters', GetParameters.Request(names=names)).values)))


@pytest.mark.parametrize('board', HOSTILE, ids=['terminal', 'forget'])
def test_what_a_board_orders_is_said_word_for_word_and_not_done(memory, node, robot, board):
    assert robot.ask(READ).text.strip() == TEXTS[HARMLESS]
    before, settings = robot.stats(), parameters(robot)
    lines = len(node.log.splitlines())
    show(robot, board)
    answer = robot.ask(READ)
    assert (answer.status, answer.text.strip()) == (answer.OK, HOSTILE[board])
    wait_for(lambda: [text for text in robot.got['answer_text'] if text.data == answer.text],
             'it is on the topic of texts, too')
    after = robot.stats()
    assert after.frames_seen == before.frames_seen + 1
    assert after.tokens_seen == before.tokens_seen + FRAME, 'no text of it came in'
    assert robot.state() == 'active'
    assert parameters(robot) == settings
    assert robot.ask(ASKED).text.strip() == VALUE
    show(robot, HARMLESS)
    assert robot.ask(READ).text.strip() == TEXTS[HARMLESS]
    new = node.log.splitlines()[lines:]
    assert all(line.isprintable() for line in new), ascii(new)


def test_the_node_can_call_nothing(node, robot):
    """There is no service or action of others that an answer could make it call."""
    here = robot.node.get_namespace()
    assert robot.node.get_service_names_and_types_by_node('infmllm', here), 'it is known'
    assert robot.node.get_client_names_and_types_by_node('infmllm', here) == []


def test_a_board_about_other_things_turns_no_watch_on(memory, node, robot):
    told = len(robot.got['watch_event'])
    for board in HOSTILE:
        assert show(robot, board).text == 'none'
        asked = robot.ask(LIGHT, choices=['red', 'yellow', 'green', 'none'])
        assert asked.text == 'none'
    assert {event.text for event in robot.got['watch_event'][told:]} <= {'none'}
    assert show(robot, None, 'green').text == 'green', 'what it is about does'
    wait_for(lambda: robot.got['watch_event'][-1].text == 'green', 'it tells of that')
