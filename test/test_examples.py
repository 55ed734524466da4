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

"""The examples do what they say, beside one node that is started as the tutorial says."""

import importlib.util
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys

import pytest
import yaml

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / 'examples'
TUTORIAL = (ROOT / 'docs/tutorial.md').read_text()


def load(name):
    """Import an example as a module."""
    spec = importlib.util.spec_from_file_location(f'example_{name}', EXAMPLES / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def command(start):
    """Find the one command of the tutorial that begins so, and split it into words."""
    [line] = re.findall(rf'^{re.escape(start)}.*$', TUTORIAL, re.M)
    return shlex.split(line)


def test_every_example_has_its_place_in_the_docs():
    page = (ROOT / 'docs/examples.md').read_text()
    for file in EXAMPLES.glob('*.py'):
        assert f'`examples/{file.name}`' in page
        assert len(file.read_text().splitlines()) < 135  # 14 of them are the licence


def test_the_figure_shows_that_saddle_outlives_the_window_of_its_rivals():
    module = load('figure')
    means = module.run(range(2_000_000, 2_000_001), ages=(5, 50))
    assert set(means) == {'saddle', 'streaming_llm', 'recent_frames'}
    assert means['saddle'][50] == 1
    assert means['streaming_llm'][5] == 1     # the facts are still in its window of 38 frames
    assert means['streaming_llm'][50] <= .25  # a guess
    assert means['recent_frames'][50] <= .25


class TestSlowDown:

    @pytest.fixture
    def limit(self):
        pytest.importorskip('rclpy', reason='needs ROS 2')
        return load('slow_down').Limit(['red'], ['yellow'], .2, timeout=2., hold=2)

    def test_nothing_is_allowed_before_the_first_answer(self, limit):
        assert limit.speed(0.) == 0

    def test_one_answer_holds_back_and_two_let_go(self, limit):
        speeds = []
        for time, choice in enumerate(
                ('none', 'none', 'yellow', 'red', 'none', 'red', 'none', 'yellow', 'none')):
            limit.answered(choice, float(time))
            speeds.append(limit.speed(float(time)))
        free = float('inf')
        assert speeds == [0, free, .2, 0, 0, 0, 0, .2, .2]

    def test_an_answer_about_an_old_frame_stops_it(self, limit):
        limit.answered('none', 1.)
        limit.answered('none', 2.)
        assert limit.speed(4.) > 0
        assert limit.speed(4.1) == 0


class TestBeforeGrasp:

    @pytest.fixture
    def judge(self):
        pytest.importorskip('rclpy', reason='needs ROS 2')
        pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
        module = load('before_grasp')
        from infmllm_msgs.msg import Answer

        def judge(age=.1, probability=.9, **fields):
            answer = Answer(**{'text': 'open', 'choice': 0, 'choices': ['open', 'closed'],
                               'probabilities': [probability, 1 - probability], **fields})
            return module.judge(answer, ['open'], .8, age)[0]
        judge.module, judge.answer = module, Answer
        return judge

    def test_only_a_clear_and_fresh_answer_lets_it_go(self, judge):
        module, answer = judge.module, judge.answer
        assert judge() == module.GO
        assert judge(probability=.7) == module.NO
        assert judge(text='closed', choice=1, probability=.1) == module.NO
        assert judge(age=3.) == judge(age=-3.) == module.SILENCE
        assert judge(status=answer.EXPIRED) == module.SILENCE
        assert module.judge(None, ['open'], .8, 0.)[0] == module.SILENCE


@pytest.fixture(scope='module')
def tutorial(start, domain, tmp_path_factory):
    """Follow the tutorial up to a node that watches the light; returns what runs a command."""
    folder = tmp_path_factory.mktemp('tutorial')
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'OMP_NUM_THREADS': '1',
                   'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST', 'ROS_LOG_DIR': str(folder),
                   'PYTHONPATH': os.pathsep.join(
                       [str(ROOT), os.environ.get('PYTHONPATH', '')]), 'PYTHONUNBUFFERED': '1'}

    def begin(words, namespace='/test_examples'):
        program = [str(ROOT / word) if word.startswith('examples/') else word
                   for word in words[1:]]
        if '--ros-args' not in program:
            program.append('--ros-args')
        return subprocess.Popen(
            [sys.executable, *program, '-r', f'__ns:={namespace}'], cwd=folder, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    python, flag, module, _, name = command('python -m infmllm_ros.bundled')
    text = subprocess.run([sys.executable, flag, module], env=environment, check=True,
                          capture_output=True, text=True).stdout
    assert yaml.safe_load(text)['/**']['ros__parameters']['budget_tokens'] == 192
    (folder / name).write_text(text)
    name, text = re.search(r'`(\w+\.yaml)`:\n\n```yaml\n(.*?)```', TUTORIAL, re.S).groups()
    (folder / name).write_text(text)
    words = command('python -m infmllm_ros.node')
    words = [re.sub(r'([\w]+\.yaml)$', lambda file: str(folder / file[1]), word)
             for word in words[words.index('--ros-args') + 1:]]
    from ros_robot import PROGRAM
    node = start({}, *words, program=PROGRAM)
    node.wait_for_log('active: images from')
    return begin


@pytest.fixture(scope='module')
def driven(tutorial):
    """Have the robot drive until its camera is off; returns what it and the limiter printed."""
    # on a busy machine an answer may come late
    limiter = tutorial([*command('python examples/slow_down.py'), '--ros-args', '-p',
                        'timeout:=20.0'])
    try:
        robot = tutorial(command('python examples/toy_robot.py'))
        out, err = robot.communicate(timeout=150)
        assert robot.returncode == 0, out + err
    finally:
        limiter.terminate()
        _, log = limiter.communicate(timeout=60)
    assert limiter.returncode == 0, log
    return out, log


UNWOKEN = """
import runpy, sys, threading, time
import rclpy

def end():
    while not (rclpy.ok() and rclpy.get_default_context().handle.ok()):
        time.sleep(.1)
    time.sleep(2)       # spinning by now
    rclpy.get_default_context().handle.shutdown()

threading.Thread(target=end).start()
runpy.run_path(sys.argv[1], run_name='__main__')
"""


def test_the_limiter_ends_even_if_a_signal_wakes_it_before_the_context_ends():
    """
    Rclpy's signal thread wakes first and ends the context then, so that spin may wait for ever.

    Seen with a debugger that holds the thread between the two; here the context ends unwoken.
    """
    run = subprocess.run([sys.executable, '-c', UNWOKEN, EXAMPLES / 'slow_down.py'],
                         capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_tutorials_robot_stops_at_red_and_goes_on(driven):
    out, log = driven
    found = re.findall(r'light (\w+) +([\d.]+) m/s', out)
    assert len(found) == 40
    assert '1.0' in {speed for light, speed in found if light in ('none', 'green')}, out
    started = [speed for _, speed in found].index('1.0')
    assert 'red' in [light for light, speed in found[started:] if speed == '0.0'], out
    assert 'at most 0 m/s' in log and 'at most inf m/s' in log


def test_a_question_about_what_was_seen_is_answered(tutorial, driven):
    asker = tutorial(command('python examples/ask.py'))
    out, err = asker.communicate(timeout=100)
    assert asker.returncode == 0, out + err
    assert out.splitlines()[0] in ('red', 'yellow', 'green')
    assert 'rests on a frame of' in out


def test_a_grasp_is_not_let_go_by_an_old_frame_nor_by_silence(tutorial, driven):
    old = tutorial(['python', 'examples/before_grasp.py', '--deadline', '60'])
    assert old.wait(150) == 2
    assert 'is the camera on?' in old.stdout.read()
    silent = tutorial(['python', 'examples/before_grasp.py', '--deadline', '1'], '/nobody')
    assert silent.wait(100) == 2
    assert 'no answer in time' in silent.stdout.read()
