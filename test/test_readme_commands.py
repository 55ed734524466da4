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
Every command of the README runs, as it is written.

It runs in a folder where its names mean something: the bundled model lies under the name of the
checkpoint, and a bag, a video and questions under theirs. What would take too long is cut short by
what is put behind it (`SHORTER`). Those of ROS 2's own tools skip where these are not installed.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / 'README.md'
PAGES = [page for page in sorted(ROOT.glob('docs/*.md')) if page.stem != 'layout']
TIMEOUT = 180   # [s] for anything, on a busy machine
SHORTER = {r'python -m benchmarks\.flatness': '--frames 180 --window 60 --out .',
           r'ros2 topic echo (?!.*--once)': '--once',
           r'ros2 run infmllm_ros check$': 'Qwen/Qwen3-VL-2B-Instruct --budget 4096'}
# how a command of the README is run: by the test of that name
CLASSES = {
    'recipe': r'make \w+',
    'environment': r'\. \S+$|export ',
    'program': r'python -m (infmllm_ros\.(engine\.check|replay)|benchmarks\.\w+) ',
    'robot': r'python (-m infmllm_ros\.(node|replay\.player)|examples/ask\.py) ',
    'workspace': r'colcon build ',
    'ros2': r'ros2 (launch infmllm_ros|topic (pub|echo)) ',
    'installed': r'ros2 run infmllm_ros check$'}
# and one of the other pages, where it is of ROS 2's tools; those of 'others' need more packages
PAGE_CLASSES = {
    'heard': r'ros2 topic echo ',
    'called': r'ros2 (topic list|service call|action send_goal|param set) ',
    'states': r'ros2 lifecycle set /infmllm ',
    'started': r'ros2 (launch|run) infmllm_ros ',
    'others': r'ros2 (bag|run (rqt_\w+|foxglove_bridge|usb_cam|v4l2_camera)|'
              r'launch realsense2_camera) '}

ros2 = pytest.mark.skipif(not shutil.which('ros2'), reason='needs the command ros2')


def commands(page: Path, programs: str = r'make|python|ros2|colcon|docker|pip') -> list[str]:
    """List the commands of a page: lines of its blocks, and short ones between words."""
    text = page.read_text()
    blocks = re.findall(r'^```\n(.*?)^```', text, re.M | re.S)
    lines = [re.sub(r' +#.*', '', line) for block in blocks
             for line in block.replace('\\\n', '').splitlines() if re.match(r'\S', line)]
    words = re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)
    words = re.findall(rf'`((?:{programs}) [^`]+)`', words)
    return [' '.join(line.split()) for line in [*lines, *words] if line.strip('. ')]


def ros():
    """Import the harness; skip where ROS is missing."""
    pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
    return import_module('ros_robot')


def of(kind: str) -> list[str]:
    """List the README's commands of a class, each once."""
    return [line for line in dict.fromkeys(commands(README)) if re.match(CLASSES[kind], line)]


def of_pages(kind: str) -> list[str]:
    """List the other pages' commands of a class, each once."""
    found = dict.fromkeys(line for page in PAGES for line in commands(page))
    return [line for line in found if re.match(PAGE_CLASSES[kind], line)]


def test_every_command_is_run_in_one_way():
    for line in commands(README):
        assert [bool(re.match(c, line)) for c in CLASSES.values()].count(True) == 1, (
            f'no test runs {line!r}: give it a class, and a test that runs it')
    for page in PAGES:
        for line in commands(page):
            if line.startswith('ros2 '):
                assert [bool(re.match(c, line + ' ')) for c in PAGE_CLASSES.values()].count(
                    True) == 1, f'{page.name}: no test runs {line!r}'
    assert all(map(of, CLASSES)) and all(map(of_pages, PAGE_CLASSES))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Make the folder in which the README's names mean something."""
    cv2 = pytest.importorskip('cv2', reason='videos are read by OpenCV')
    pytest.importorskip('rosbags', reason='bags are read by rosbags')
    from infmllm_ros.bundled import MODEL
    from infmllm_ros.bundled.scenes import Episode
    from infmllm_ros.replay import to_bag
    folder = tmp_path_factory.mktemp('readme')
    model = folder / 'Qwen/Qwen3-VL-2B-Instruct'
    shutil.copytree(MODEL, model)
    config = json.loads((model / 'config.json').read_text())
    config['text_config']['max_position_embeddings'] *= 8    # room for the default budget
    (model / 'config.json').write_text(json.dumps(config))
    assert to_bag.main(['--rendered', 'drive', '--frames', '30', '--seed', '1', '--questions',
                        str(folder / 'questions.yaml'), str(folder / 'BAG')]) == 0
    episode = Episode('drive', seed=0)
    size = next(episode).frame.shape[1::-1]
    video = cv2.VideoWriter(str(folder / 'drive.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, size)
    for _ in range(20):
        video.write(next(episode).frame[..., ::-1].copy())
    video.release()
    (folder / '.venv').symlink_to(sys.prefix)
    return folder


@pytest.fixture(scope='module')
def environment(place, domain):
    """Return what the commands start with: nothing of the user's, and no network."""
    mine = {name: value for name, value in os.environ.items()
            if not name.startswith(('FASTDDS', 'FASTRTPS', 'MAKE'))}
    paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    return {'AMENT_PREFIX_PATH': sys.prefix, **mine, 'PYTHONPATH': os.pathsep.join(paths),
            'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'ROS_HOME': str(place / 'ros'), 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1',
            'PYTHONUNBUFFERED': '1'}


class Running:
    """A command that has been started, with a group of processes of its own."""

    def __init__(self, line: str, folder: Path, environment: dict[str, str]):
        for what, more in SHORTER.items():
            line += f' {more}' if re.match(what, line) else ''
        words = [str(ROOT / word) if word.startswith('examples/') else word
                 for word in shlex.split(line)]
        # the environment's Python knows the messages; that of a distribution's ros2 need not
        words[:1] = {'python': [sys.executable], 'ros2': [sys.executable, shutil.which('ros2')],
                     }.get(words[0], words[:1])
        self.line, self._log = line, (folder / f'{time.monotonic_ns()}.log')
        with self._log.open('wb') as log:
            self.process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log,
                                            stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def out(self) -> str:
        """All that it has printed."""
        return self._log.read_text()

    def end(self) -> str:
        """Wait until it has ended well; returns what it printed."""
        assert self.process.wait(TIMEOUT) == 0, f'{self.line}\n{self.out}'
        return self.out

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal to all of its processes, as a terminal does; returns the status."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        return self.process.wait(TIMEOUT)


@pytest.fixture(scope='module')
def begin(place, environment):
    """Start commands; all of them end with the module."""
    begun = []

    def begin(line: str) -> Running:
        begun.append(Running(line, place, environment))
        return begun[-1]

    yield begin
    for running in begun:
        running.stop(signal.SIGKILL)


@pytest.fixture(scope='module')
def robot(domain):
    """Join the domain without a namespace, as the README's commands do."""
    robot = ros().Robot(domain, '')
    yield robot
    robot.close()


@pytest.mark.parametrize('line', of('recipe'))
def test_make_knows_the_recipe_and_what_it_starts_exists(line):
    mine = {name: value for name, value in os.environ.items() if not name.startswith('MAKE')}
    program, *words = shlex.split(line)
    out = subprocess.run([program, '-nB', *words], cwd=ROOT, env=mine, check=True,
                         capture_output=True, text=True).stdout
    modules = re.findall(r' -m ([\w.]+)', out)
    assert modules and all(map(find_spec, modules))
    files = re.findall(r' -[rS] (\S+)', out)
    assert files and all((ROOT / file).exists() for file in files)
    for _, value in (word.split('=') for word in words if '=' in word):
        assert value in out.splitlines()[-1]


def test_the_environment_finds_the_package(place, environment):
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    mine = {name: value for name, value in environment.items() if not name.startswith('AMENT')}
    find = ('from ament_index_python import get_package_share_directory as find; import rclpy; '
            "print(find('infmllm_ros'))")
    lines = [*of('environment'), f'python -c {shlex.quote(find)}']
    out = subprocess.run(['bash', '-ec', '\n'.join(lines)], cwd=place, env=mine, check=True,
                         capture_output=True, text=True).stdout
    assert Path(out.strip(), 'launch/infmllm.launch.py').is_file()


@pytest.mark.parametrize('line', of('program'))
def test_a_program_ends_well(begin, place, line):
    out = begin(line).end()
    module = shlex.split(line)[2]
    if module == 'infmllm_ros.engine.check':
        assert re.fullmatch(r'verdict +works', out.splitlines()[-1])
    elif module == 'infmllm_ros.replay':
        assert '30 seen' in out and 'right; in replay_BAG/report.html' in out
        assert (place / 'replay_BAG/report.html').stat().st_size > 10_000
    else:
        assert 'old over young' in out


def test_node_camera_and_question_are_programs_without_a_ros_installation(begin, robot):
    harness = ros()
    node, camera, question = of('robot')
    node = begin(node)
    harness.wait_for(lambda: 'active: images from' in node.out or node.process.poll(), 'a start')
    assert node.process.poll() is None, node.out
    assert '20 frames in' in begin(camera).end()
    harness.wait_for(lambda: robot.newest() >= 0, 'a frame is seen')
    words = begin(question).end()
    assert words.strip() and 'rests on a frame of' in words
    assert node.stop() == 0, node.out


@pytest.mark.skipif(not shutil.which('colcon'), reason='needs the command colcon')
def test_a_workspace_is_built(tmp_path, environment):
    skip = shutil.ignore_patterns('.*', 'build', 'install', 'log', 'docs', 'test', '*.egg-info')
    shutil.copytree(ROOT, tmp_path / 'src/infmllm_ros', ignore=skip)
    # beside the distribution alone, not on top of this environment, which has the same packages
    below = environment['AMENT_PREFIX_PATH'].split(os.pathsep)
    mine = {**environment, 'PYTHONPATH': os.environ.get('PYTHONPATH', ''),
            'AMENT_PREFIX_PATH': os.pathsep.join(p for p in below if p != sys.prefix)}
    [line] = of('workspace')
    done = subprocess.run(['bash', '-c', line], cwd=tmp_path, capture_output=True, text=True,
                          env=mine)
    assert done.returncode == 0, done.stdout + done.stderr
    share = tmp_path / 'install/infmllm_ros/share/infmllm_ros'
    assert (share / 'launch/infmllm.launch.py').is_file() and (share / 'config').is_dir()
    assert os.access(tmp_path / 'install/infmllm_ros/lib/infmllm_ros/infmllm_node', os.X_OK)
    messages = tmp_path / 'install/infmllm_msgs/share/infmllm_msgs/msg'
    assert {file.name for file in messages.glob('*.msg')} == {
        file.name for file in ROOT.glob('infmllm_msgs/msg/*.msg')}


@ros2
@pytest.mark.parametrize('line', of('installed'))
def test_the_installed_check_is_the_same(begin, line):
    assert re.fullmatch(r'verdict +works', begin(line).end().splitlines()[-1])


@pytest.fixture(scope='module')
def launched(begin, robot, place):
    """Launch the node as the README says, and a camera that does not end before the tests."""
    [line] = [line for line in of('ros2') if line.startswith('ros2 launch')]
    node = begin(f'{line} watches:={ROOT}/config/watches.yaml')
    topic = re.search('image_topic:=(.*)', line)[1]
    camera = begin('python -m infmllm_ros.replay.player --rate 0.2 '
                   f'--topic {topic} --wait {TIMEOUT}')
    harness = ros()
    harness.wait_for(lambda: robot.newest() >= 0 or node.process.poll(), 'a frame is seen')
    assert node.process.poll() is None, node.out
    yield node
    assert node.stop() == 0, node.out
    camera.stop()
    begin('ros2 daemon stop').end()


@ros2
def test_a_question_on_a_topic_is_answered_on_another(begin, launched):
    [ask] = [line for line in of('ros2') if line.startswith('ros2 topic pub')]
    [hear] = [line for line in of('ros2') if line.startswith('ros2 topic echo')]
    heard = begin(hear)
    while heard.process.poll() is None:     # the first are lost while nobody listens yet
        begin(ask).end()
    assert re.match(r'data: .+', heard.end())


@ros2
def test_the_commands_of_the_other_pages_do_what_they_say(begin, launched):
    heard = [begin(line) for line in of_pages('heard')]
    called = {line: begin(line).end() for line in of_pages('called')}
    for line, out in called.items():
        assert not re.search('success=False|[Ff]ailed', out), f'{line}\n{out}'
    ask = next(line for line in called if 'send_goal' in line)
    while any(one.process.poll() is None for one in heard):
        begin(ask).end()
    for one in heard:
        assert len(one.end().splitlines()) > 1, one.line


@ros2
def test_the_transitions_of_the_other_pages_are_there(begin, launched):
    start = 'ros2 lifecycle set /infmllm '
    begin(start + 'deactivate').end()
    order = [start + name for name in ('cleanup', 'configure', 'activate')]
    assert set(order) == set(of_pages('states'))
    for line in order:
        assert 'Transitioning successful' in begin(line).end()


@pytest.mark.parametrize('line', of_pages('started'))
def test_what_the_other_pages_start_exists(line):
    what = line.split()[3]
    if ' launch ' in line:
        text = ''.join(file.read_text() for file in (ROOT / 'launch').glob('*.py'))
        assert (ROOT / 'launch' / what).is_file()
        for argument in re.findall(r'(\w+):=', line):
            assert f"'{argument}'" in text, f'{what} has no argument {argument}'
    else:
        assert f"'{what} = " in (ROOT / 'setup.py').read_text()
