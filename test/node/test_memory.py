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

"""A memory outlives its process, shows itself, and is never taken from a damaged file."""

from concurrent.futures import Future
import io
from itertools import islice
import json
from pathlib import Path
import signal
from types import SimpleNamespace

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
import numpy as np
from PIL import Image as Pillow
import pytest
from safetensors import safe_open

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from infmllm_msgs.srv import MemoryFile  # noqa: E402, I100
from ros_robot import ns, wait_for  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402

FRAMES = 50  # of five tokens: more than the budget
PARAMETERS = {
    'model': str(MODEL), 'autostart': 'true', 'budget_tokens': MODEL_BUDGET,
    'max_question_tokens': 32, 'max_answer_tokens': 8, 'stats_period': 0.02, 'cameras': '[front]',
    **{f'saddle.{name}': value for name, value in MODEL_POLICY.items()}}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Give a folder for memories; nothing may be written beside it."""
    folder = tmp_path_factory.mktemp('robot') / 'memories'
    yield folder
    assert [file.name for file in folder.parent.iterdir()] == ['memories']


@pytest.fixture(scope='module')
def boot(start, robot, folder):
    """Start the node, and meet it."""
    robot.add_client(MemoryFile, 'load_memory')
    robot.add_client(MemoryFile, 'save_memory')

    def boot(**parameters):
        node = start({**PARAMETERS, 'memory.folder': str(folder),
                      **{f'memory.{name}': value for name, value in parameters.items()}})
        node.wait_for_log('active: images from')
        robot.meet()
        return node
    return boot


@pytest.fixture(scope='module')
def lived(boot, robot, folder):
    """
    Have a node live, save its memory and die; there are a good file and a torn one then.

    Returns a question, the answer that it had, and what it saw: stamp [ns] -> image.
    """
    node, seen = boot(), {}
    episode = Episode('drive', 3, 64, keys=0)
    for step in islice(episode, FRAMES):
        stamp = robot.show(height=64, width=64, step=192, data=step.frame.tobytes())
        seen[stamp] = step.frame
        if step.ordinal == 2:
            wait_for(robot.tells.get_subscription_count, 'the node hears what it is told')
            before = robot.stats().tokens_seen
            robot.tells.publish(String(data=episode.tell('target', 'blue cup').text))
            wait_for(lambda n=before: robot.stats().tokens_seen > n, 'the fact is read')
    question = next(q.text for q in episode.questions(('told',)) if q.name == 'told:target')
    answer = robot.ask(question)
    assert answer.text.strip() == 'blue cup'
    assert robot.got['cache_stats'][-1].tokens_evicted > 0
    saved = robot.call('save_memory', MemoryFile.Request(path='good'))
    assert saved.success, saved.message
    assert saved.path == str(folder / 'good') and saved.tokens == MODEL_BUDGET
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    whole = (folder / 'good').read_bytes()
    (folder / 'memory.safetensors').write_bytes(whole[:len(whole) * 7 // 10])
    return question, answer, seen


@pytest.fixture(scope='module')
def revived(lived, boot):
    """Start a new process, told to restore the torn file and to save itself at once."""
    return boot(restore='true', autosave_period=0.05)


def same(one, other):
    """Tell whether two answers are the same."""
    return (one.text == other.text and one.header == other.header
            and [(e.frame, e.stamp, e.camera) for e in one.evidence]
            == [(e.frame, e.stamp, e.camera) for e in other.evidence])


def load(robot, path):
    return robot.call('load_memory', MemoryFile.Request(path=path))


def test_a_torn_file_at_the_start_is_an_error_an_empty_memory_and_is_kept(
        revived, robot, folder):
    torn = folder / 'memory.safetensors'
    line = revived.lines('memory not restored')[0]
    assert '[ERROR]' in line and str(torn) in line and 'call save_memory' in line
    before = torn.read_bytes()
    assert robot.ask('what is ahead').status == 2  # NO_FRAME
    robot.show()
    status = robot.diagnostic('memory', lambda s: 'not restored' in s.message)
    assert status.level == b'\x02'
    assert torn.read_bytes() == before


def test_a_memory_outlives_its_process_and_answers_alike(lived, revived, robot):
    question, answer, _ = lived
    loaded = load(robot, 'good')
    assert loaded.success and loaded.tokens == MODEL_BUDGET, loaded.message
    assert answer.evidence and same(robot.ask(question), answer)


@pytest.mark.parametrize(('path', 'named'), [
    ('memory.safetensors', 'not a whole saved memory'),
    ('absent', 'does not exist'),
    ('../outside', 'outside'),
    ('/etc/passwd', 'outside'),
    ('.', 'folder'),
])
def test_a_file_that_is_none_or_elsewhere_leaves_the_memory_as_it_was(
        path, named, lived, revived, robot):
    question, answer, _ = lived
    assert load(robot, 'good').success
    refused = load(robot, path)
    assert not refused.success and named in refused.message and '\n' not in refused.message
    assert same(robot.ask(question), answer)


def test_a_save_that_cannot_be_says_why_and_what_to_do(revived, robot, folder):
    for path, named in (('good/below', 'can be written'), ('../outside', 'memory.anywhere')):
        refused = robot.call('save_memory', MemoryFile.Request(path=path))
        assert not refused.success and named in refused.message
    assert sorted(file.name for file in folder.iterdir()) == ['good', 'memory.safetensors']


def test_the_memory_is_drawn_for_those_who_look(lived, revived, robot):
    question, answer, _ = lived
    got = robot.got['memory_image']
    robot.node.create_subscription(Image, 'memory_image', got.append, 1)
    assert load(robot, 'good').success
    assert same(robot.ask(question), answer)
    count = len(got)
    wait_for(lambda: len(got) > count + 1, 'two pictures')
    message = got[-1]
    assert message.header == answer.header and message.encoding == 'rgb8'
    pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
    yellow = (pixels == (255, 226, 92)).all(-1)  # around the thumbnails of the evidence
    assert yellow.sum() > 400 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200


class Unseen:
    """A node, its endpoints, a publisher and a worker at once, with so many who look."""

    def __init__(self):
        self.looking, self.jobs = 0, []

    def publisher(self, *_):
        return self

    def create_service(self, *_, **__):
        pass

    def get_subscription_count(self):
        return self.looking

    def use(self, name, job):
        self.jobs.append(name)
        return Future()


def test_nothing_is_drawn_for_nobody_or_before_the_last_picture_is_done():
    from infmllm_ros.node.memory import Memory
    node = Unseen()
    memory = Memory(node, node, lambda: node, None)
    memory._on_picture()
    assert node.jobs == []
    node.looking = 1
    memory._on_picture()
    memory._on_picture()
    assert node.jobs == ['picture']


def test_a_memory_that_is_read_too_late_is_not_taken_for_the_present_one():
    from infmllm_ros.node.album import Album
    from infmllm_ros.node.memory import Memory
    node, recalled = Unseen(), []
    heir = SimpleNamespace(session='new', recall=recalled.append)
    memory = Memory(node, node, lambda: heir, None)
    memory._album = Album(64, 4)
    late = SimpleNamespace(restore=lambda file: {}, frames={}, newest=None, stats=lambda: None)
    with pytest.raises(RuntimeError, match='given up'):
        memory._load(late, Path('any'))
    assert not recalled


def test_the_frames_an_answer_rests_on_are_shown_to_those_who_look(lived, revived, robot):
    question, answer, seen = lived
    got = robot.got['evidence_image']
    robot.node.create_subscription(CompressedImage, 'evidence_image', got.append, 20)
    robot.meet()
    assert load(robot, 'good').success
    assert same(robot.ask(question), answer)
    shown = wait_for(lambda: len(got) >= len(answer.evidence) and got, 'evidence, the best last')
    assert [m.header.stamp for m in shown] == [e.stamp for e in reversed(answer.evidence)]
    for message in shown:
        pixels = np.asarray(Pillow.open(io.BytesIO(bytes(message.data))), int)
        nearest = min(seen, key=lambda stamp: np.abs(pixels - seen[stamp]).mean())
        assert nearest == ns(message.header.stamp)
        assert message.header.frame_id == 'front' and message.format == 'jpeg'


def test_a_saved_memory_goes_on_saving_itself_and_is_restored(lived, revived, robot, folder):
    file = robot.call('save_memory', MemoryFile.Request())
    assert file.success and file.path == str(folder / 'memory.safetensors')
    robot.diagnostic('memory', lambda s: s.level == b'\x00')
    assert load(robot, 'good').success
    newest = robot.show()

    def stamps():
        with safe_open(file.path, 'pt') as opened:  # whole at any moment
            header = json.loads(opened.metadata()['infmllm'])
        return [stamp for _, stamp, _ in header['frames']]

    wait_for(lambda: newest in stamps(), 'the newest frame is saved')
    for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert robot.change(transition)
    assert revived.lines('memory restored from')
    answer = robot.ask(lived[0])
    assert answer.text.strip() == 'blue cup' and ns(answer.header.stamp) == newest
    assert answer.header.frame_id == f'camera_{newest // 10**8}'
