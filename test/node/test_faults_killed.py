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

"""A node killed while it saves itself: the next one remembers what the last whole save held."""

from contextlib import contextmanager
from itertools import cycle, islice
import json
import os
import random
import threading
import time

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
import pytest
from safetensors import safe_open

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from ros_robot import ns, wait_for  # noqa: E402, I100
from std_msgs.msg import String  # noqa: E402

KILLS = int(os.environ.get('INFMLLM_KILLS', '2'))
PERIOD = 0.02  # [s] of autosave: it is nearly always at it
PARAMETERS = {
    'model': str(MODEL), 'autostart': 'true', 'budget_tokens': MODEL_BUDGET, 'stats_period': 0.05,
    'max_question_tokens': 32, 'max_answer_tokens': 8,
    'memory.restore': 'true', 'memory.autosave_period': PERIOD,
    **{f'saddle.{name}': value for name, value in MODEL_POLICY.items()}}
EPISODE = Episode('drive', 3, keys=0)
IMAGE = {'height': 64, 'width': 64, 'step': 192, 'data': next(EPISODE).frame.tobytes()}
TARGETS = ['blue cup', 'red ball']
FACTS = {target: EPISODE.tell('target', target).text for target in TARGETS}
QUESTION = next(q.text for q in EPISODE.questions(('told',)) if q.name == 'told:target')


@contextmanager
def camera(robot):
    """Show images meanwhile, so that there is always something new to save."""
    ended = threading.Event()

    def run():
        while not ended.wait(PERIOD):
            robot.image(**IMAGE)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def newest(file):
    """Tell the stamp [ns] of the newest frame of a saved memory."""
    with safe_open(file, 'pt') as memory:
        header = json.loads(memory.metadata()['infmllm'])
    return max((stamp for _, stamp, _ in header['frames']), default=0)


def tell(robot, target):
    """Tell a fact to an empty memory that has seen one frame; returns its stamp [ns]."""
    assert robot.trigger('reset').success
    stamp = robot.show(**IMAGE)
    before = robot.stats().tokens_seen
    wait_for(robot.tells.get_subscription_count, 'the node hears what it is told')
    robot.tells.publish(String(data=FACTS[target]))
    wait_for(lambda: robot.stats().tokens_seen > before, 'it is read')
    return stamp


def test_a_node_killed_while_it_saves_itself_comes_back_with_the_last_whole_save(
        start, robot, tmp_path):
    file, chance = tmp_path / 'memory.safetensors', random.Random(11)
    known, stamp = None, 0
    for target in [*islice(cycle(TARGETS), KILLS), None]:
        node = start({**PARAMETERS, 'memory.folder': str(tmp_path)})
        node.wait_for_log('active: images from')
        robot.meet()
        if known:
            answer = robot.ask(QUESTION)
            assert answer.text.strip() == known and ns(answer.header.stamp) > stamp
        if not target:
            assert node.stop() == 0
            continue
        stamp, known = tell(robot, target), target
        with camera(robot):  # what is told comes before the next frame
            wait_for(lambda after=stamp: file.exists() and newest(file) > after, 'it is saved')
            time.sleep(chance.uniform(0, 10 * PERIOD))
            node.process.kill()
            node.process.wait()
    torn = len(list(tmp_path.glob('*.part')))
    print(f'{torn} of {KILLS} were killed while they wrote')
    assert torn or KILLS < 20, 'none was killed while it wrote'
