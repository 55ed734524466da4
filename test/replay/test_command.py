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

"""The command: what it prints and writes, and its exit status."""

from contextlib import suppress
import signal

from infmllm_ros.replay import records
from infmllm_ros.replay.__main__ import main
from infmllm_ros.replay.offline import Offline
import numpy as np
from PIL import Image
import pytest

QUESTIONS = """\
tell:
  - {at: 0.05, text: the code is seven}
questions:
  - {name: ahead, question: what is ahead, frame: 2, expected: EXPECTED}
"""


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('input') / 'pictures'
    folder.mkdir()
    for number in range(6):
        Image.fromarray(np.full((64, 64, 3), 40 * number, np.uint8)).save(
            folder / f'{number}.png')
    (folder / '3.png').write_bytes(b'no picture')
    return folder


def run(pictures, tmp_path, expected, *options):
    file = tmp_path / 'questions.yaml'
    file.write_text(QUESTIONS.replace('EXPECTED', expected))
    return main([str(pictures), '--questions', str(file), '--out', str(tmp_path / 'out'),
                 *options])


def test_it_writes_all_into_one_folder_and_a_wrong_answer_is_its_status(
        pictures, tmp_path, capsys):
    assert run(pictures, tmp_path, 'no such thing') == 1
    out = capsys.readouterr().out
    for part in ('told: the code is seven', 'ahead: what is ahead', 'wrong', 'no such thing',
                 '0 of 1 right', '5 seen', '1 bad'):
        assert part in out
    folder = tmp_path / 'out'
    assert {file.name for file in folder.iterdir()} == {
        'run.jsonl', 'thumbnails.zip', 'report.html', 'bag'}
    run_, *_, end = records.read(folder)
    assert (run_.source, run_.mode, run_.questions) == ('pictures', 'offline', 'questions.yaml')
    assert (end.judged, end.right, end.problem) == (1, 0, '')
    said = next(r.text for r in records.read(folder) if isinstance(r, records.Answer))

    assert run(pictures, tmp_path, said, '--no-report', '-p', 'seed:=3') == 0
    assert 'ahead' in capsys.readouterr().out
    assert next(records.read(folder)).parameters['seed'] == 3


def test_a_run_that_ends_early(pictures, tmp_path, capsys):
    # system prompt, question and answer fit, but five frames do not
    assert run(pictures, tmp_path, 'x', '-p', 'policy:=full', '-p', 'budget_tokens:=20', '-p',
               'max_question_tokens:=8', '--no-report', '--no-bag') == 3
    assert 'ended early' in capsys.readouterr().err
    *_, end = records.read(tmp_path / 'out')
    assert 0 < end.frames['seen'] < 5 and 'full' in end.problem


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_where_exceptions_get_lost_ends_the_run_all_the_same(
        pictures, tmp_path, monkeypatch, number):
    take = Offline._take

    def swallow(run, frame):
        with suppress(BaseException):
            signal.raise_signal(number)
        take(run, frame)

    monkeypatch.setattr(Offline, '_take', swallow)
    assert run(pictures, tmp_path, 'x', '--no-report', '--no-bag') == 130
    *_, end = records.read(tmp_path / 'out')
    assert (end.problem, end.frames) == (records.INTERRUPTED, {'seen': 1})


@pytest.mark.parametrize('options, told', [
    (['/nowhere.mcap'], '/nowhere.mcap'),
    (['PICTURES', '--questions', '/nowhere.yaml'], '/nowhere.yaml'),
    (['PICTURES', '-p', 'budget_tokns:=4'], 'did you mean budget_tokens'),
    (['PICTURES', '-p', 'policy:=nothing'], 'policy'),
    (['PICTURES', '--params-file', '/nowhere.yaml'], '/nowhere.yaml'),
    (['PICTURES', '--cameras', 'front=a', 'front=b'], 'front'),
])
def test_wrong_input_is_one_line_and_nothing_is_done(
        pictures, tmp_path, capsys, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    assert main([str(pictures) if word == 'PICTURES' else word for word in options]) == 2
    error = capsys.readouterr().err
    assert error.startswith('replay: ') and error.count('\n') == 1 and told in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('options, told', [
    (['--rate', '2'], '--rate: only with --live'),
    (['--live', '-p', 'seed:=1'], '-p: only without --live'),
])
def test_options_of_the_other_mode(options, told, capsys):
    with pytest.raises(SystemExit) as error:
        main(options)
    assert error.value.code == 2 and told in capsys.readouterr().err
