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

"""The demo shows what happens, says what held, and its exit status can be relied on."""

import io
import os
from pathlib import Path
import signal
import subprocess
import sys
from types import SimpleNamespace

from infmllm_ros.replay.terminal import interrupts, printable, rows, Screen
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('infmllm_msgs', reason='needs the messages of this package')
pytest.importorskip('rosbags', reason='bags are read by rosbags')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402, I100
from infmllm_msgs.msg import Answer, CacheStats  # noqa: E402
from infmllm_ros import demo  # noqa: E402
from infmllm_ros.replay.audience import Audience  # noqa: E402
from infmllm_ros.replay.player import Played  # noqa: E402
from infmllm_ros.replay.sources import COMPRESSED  # noqa: E402
from test_replay import FRAMES, make_bag  # noqa: E402


@pytest.fixture(scope='module')
def environment(tmp_path_factory, domain):
    """Return what the demo starts with: its own cache, no settings of the user's."""
    mine = {name: value for name, value in os.environ.items()
            if not name.startswith(('ROS_DOMAIN', 'ROS_AUTOMATIC', 'FASTDDS', 'FASTRTPS'))}
    folder = tmp_path_factory.mktemp('demo')
    return {**mine, 'ROS_DOMAIN_ID': str(domain), 'XDG_CACHE_HOME': str(folder),
            'ROS_LOG_DIR': str(folder / 'log'),
            'PYTHONUNBUFFERED': '1', 'PYTHONPATH': os.pathsep.join(
                [str(Path(demo.__file__).parents[1]), os.environ.get('PYTHONPATH', '')])}


def start(environment, *arguments):
    # a shell starts what runs in its background with Ctrl-C ignored, and that is inherited
    return subprocess.Popen([sys.executable, '-m', 'infmllm_ros.demo', *map(str, arguments)],
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, preexec_fn=lambda: signal.signal(
                                signal.SIGINT, signal.SIG_DFL))


def test_a_bag_is_played_questions_are_answered_and_all_holds(environment, tmp_path):
    bag = make_bag(tmp_path / 'bag', 'MCAP', {'/cam': COMPRESSED})
    process = start(environment, bag, '--questions', 'Who is there?', 'What now?',
                    '--rate', '0.1', '--budget', '300')
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, out + err
    assert f'{FRAMES} of {FRAMES} sent' in out
    assert '2 of 2 answered, 2 with the stamp of a frame' in out
    assert 'budget of 300' in out
    assert 'means nothing' in out and 'are right' not in out
    assert 'FAIL' not in out and '\x1b' not in out
    questions = [out.index('Who is there?'), out.index('What now?')]
    assert questions == sorted(questions)
    assert out.count('first word after') == 2


def test_an_interrupted_demo_takes_the_node_with_it(environment):
    process = start(environment)
    for line in process.stdout:
        if 'active: images from' in line:
            break
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    nodes = [int(pid) for pid in children.read_text().split()]
    assert nodes
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 130, out + err
    assert 'killed' not in out
    assert not any(Path(f'/proc/{pid}').exists() for pid in nodes)
    assert out.splitlines()[-1] == 'stopped' and 'Traceback' not in err


def test_a_wrong_input_ends_the_demo_before_anything_starts(capsys, tmp_path):
    assert demo.main([str(tmp_path / 'none.avi')]) == 2
    said = capsys.readouterr()
    assert said.out == '' and said.err.count('\n') == 1
    assert 'none.avi: no such file' in said.err


def played(sent=100):
    """Return what a demo in which all holds has measured."""
    def stats(frames, answers, megabytes):
        return CacheStats(frames_received=frames, frames_seen=frames, budget=1024, tokens=1024,
                          evictions=frames, answers=answers, kv_bytes=1 << 20,
                          process_bytes=megabytes << 20)
    answer = Answer()
    answer.header.stamp.sec = 7
    asked = SimpleNamespace(answer=answer, judge=None)
    return Played(frames=sent), SimpleNamespace(
        asked=[asked, asked], sent={7_000_000_000: (50, 0.0)},
        stats=[stats(10, 0, 300), stats(50, 1, 400), stats(100, 2, 402)])


def failed(report, audience, status=0):
    return [what for what, _, holds in demo.verdict(report, audience, status) if not holds]


def test_the_verdict_finds_each_thing_that_did_not_hold():
    assert failed(*played()) == []
    assert failed(*played(sent=101)) == ['frames arrived']
    assert failed(*played(), status=-9) == ['node']

    def change(edit):
        report, audience = played()
        edit(audience)
        return failed(report, audience)

    def unanswered(audience):
        audience.asked.append(SimpleNamespace(answer=None, judge=None))

    def refused(audience):
        audience.asked[0].answer.status = Answer.BUSY

    def unstamped(audience):
        audience.asked[0].answer.header.stamp.nanosec = 1

    for edit in (unanswered, refused, unstamped):
        assert change(edit) == ['questions']

    def judged(right):
        def edit(audience):
            audience.asked *= 10
            audience.asked = [SimpleNamespace(answer=asked.answer, judge=str, right=i < right)
                              for i, asked in enumerate(audience.asked)]
        return edit
    assert change(judged(18)) == [] and change(judged(17)) == ['answers']
    assert change(lambda a: setattr(a.stats[1], 'tokens', 1025)) == ['memory']
    assert change(lambda a: setattr(a.stats[0], 'kv_bytes', 1)) == ['KV buffers']
    assert change(lambda a: setattr(a.stats[2], 'process_bytes', 450 << 20)) == ['process']


def test_a_verdict_that_fails_gives_exit_status_1():
    out = io.StringIO()
    assert demo.report([('a', 'b', True)], Screen(out)) == 0
    assert demo.report([('a', 'b', True), ('c', 'd', False)], Screen(out)) == 1
    assert 'FAIL  c' in out.getvalue()


def test_settings_of_the_user_are_left_alone(monkeypatch):
    names = ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'FASTDDS_DEFAULT_PROFILES_FILE',
             'FASTRTPS_DEFAULT_PROFILES_FILE', 'ROS_LOCALHOST_ONLY')
    monkeypatch.setattr(os, 'environ', {})
    demo.settle_environment()
    assert 1 <= int(os.environ['ROS_DOMAIN_ID']) <= 100
    assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    profile = Path(os.environ['FASTDDS_DEFAULT_PROFILES_FILE'])
    assert 'shm_large' in profile.read_text()
    os.environ.clear()
    os.environ.update(ROS_DISTRO='humble')
    demo.settle_environment()
    assert os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] == str(profile)
    assert os.environ['ROS_LOCALHOST_ONLY'] == '1'
    mine = dict.fromkeys(names, 'mine')
    os.environ.update(mine)
    demo.settle_environment()
    assert {name: os.environ[name] for name in names} == mine


def test_the_error_of_another_node_is_none_of_the_demos():
    fake = SimpleNamespace(get_namespace=lambda: '/demo', create_publisher=lambda *_: None,
                           create_subscription=lambda *_: None)
    audience = Audience(fake, Screen(io.StringIO()), 0, None)
    for name, failed in (('other/infmllm: node', False), ('demo/infmllm: node', True)):
        audience._on_diagnostics(DiagnosticArray(
            status=[DiagnosticStatus(name=name, level=DiagnosticStatus.ERROR)]))
        assert audience.failed == failed


def test_a_signal_is_heeded_when_asked_for_and_a_second_at_once():
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        with interrupts() as check:
            check()
            signal.raise_signal(number)
            for _ in range(2):  # if something swallows it
                with pytest.raises(KeyboardInterrupt):
                    check()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    assert signal.getsignal(signal.SIGTERM) is before


class Terminal(io.StringIO):

    def isatty(self):
        return True


def shown(text):
    """Return what a terminal shows after the sequences that the screen writes."""
    lines = ['']
    for part in text.replace('\r', '').split('\x1b['):
        if part.startswith('1A'):
            lines[:] = lines[:-1]
            part = part[2:]
        elif part.startswith('J'):
            lines[-1] = ''
            part = part[1:]
        elif text.startswith(part) is False or part[:1].isdigit():
            part = part.partition('m')[2]
        first, *rest = part.split('\n')
        lines[-1] += first
        lines += rest
    return lines


def test_live_lines_are_rewritten_on_a_terminal(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('NO_COLOR', raising=False)
    out = Terminal()
    screen = Screen(out)
    screen.line('question')
    for count in range(3):
        screen.live(f'{count} frames')
    screen.grow('one ')
    screen.grow('two')
    screen.line('a word of the node')
    assert shown(out.getvalue()) == ['question', 'a word of the node', '  one two', '2 frames']
    screen.finish('one two')
    assert shown(out.getvalue()) == ['question', 'a word of the node', '  one two', '2 frames']
    screen.close()
    assert shown(out.getvalue()) == ['question', 'a word of the node', '  one two', '']
    assert '\x1b[36m' in out.getvalue()


def test_nothing_is_rewritten_and_nothing_coloured_in_a_file():
    out = io.StringIO()
    screen = Screen(out, every=3600)
    screen.line(screen.paint('question', 'bold'))
    for count in range(3):
        screen.live(f'{count} frames')
    screen.grow('one ')
    screen.grow('two')
    screen.live('3 frames')
    screen.finish('one two three')
    screen.finish('at once')
    screen.close()
    assert out.getvalue() == 'question\n0 frames\n  one two three\n  at once\n'


def test_no_colours_where_the_user_wants_none(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('NO_COLOR', '1')
    assert Screen(Terminal()).paint('text', 'red') == 'text'


def test_a_model_cannot_move_the_cursor():
    assert printable('a\x1b[2Jb\nc\r\u202e\u00e9') == 'a\u00b7[2Jb\u00b7c\u00b7\u00b7\u00e9'


def test_rows_are_as_wide_as_they_look():
    assert rows('abcdef', 4) == ['abcd', 'ef']
    assert rows('\u4f60\u597dab', 3) == ['\u4f60', '\u597da', 'b']
    assert rows('e\u0301e\u0301', 2) == ['e\u0301e\u0301']
