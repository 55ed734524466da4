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

"""Many replays: each once, what is done is not done again, what fails is told; also on Ray."""

import json
import os
from pathlib import Path
import signal
import sys
import threading

import numpy as np
from PIL import Image
import pytest

pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
pytest.importorskip('rosbags', reason='bags are written by rosbags')
from infmllm_ros.bundled.scenes import Episode  # noqa: E402, I100
from infmllm_ros.replay.__main__ import arguments_of, main  # noqa: E402
from infmllm_ros.replay.batch import Batch, jobs_of  # noqa: E402
from infmllm_ros.replay.batch import job as job_module  # noqa: E402
from infmllm_ros.replay.offline import Offline  # noqa: E402
from infmllm_ros.replay.records import INTERRUPTED, read  # noqa: E402
from infmllm_ros.replay.terminal import Screen  # noqa: E402

QUESTIONS = """
tell: [{at: 0.1, text: the code is seven}]
questions:
- {question: what is the code, at: end, expected: seven}
"""


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Make three folders of images, 24 frames each."""
    folder = tmp_path_factory.mktemp('inputs')
    for seed in range(3):
        place = folder / f'drive{seed}'
        place.mkdir()
        for number, step in zip(range(24), Episode('drive', seed, 64), strict=False):
            Image.fromarray(np.asarray(step.frame)).save(place / f'{number}.png')
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def replay(tmp_path, capsys):
    """Make a function that replays inputs by the command and reads what it wrote."""
    questions = tmp_path / 'questions.yaml'
    questions.write_text(QUESTIONS)

    def replay(*inputs, out='out', options=()):
        status = main([*inputs, '--questions', str(questions), '--out', str(tmp_path / out),
                       '--no-bag', *options])
        results = json.loads((tmp_path / out / 'results.json').read_text())
        return status, results, capsys.readouterr().out

    return replay


def jobs(inputs, folder):
    """Make the jobs that the command makes."""
    return jobs_of(arguments_of([*inputs, '--no-bag']), folder)


def test_each_input_has_a_folder_of_its_own(tmp_path):
    found = jobs(['a/one.mcap', 'b/one.mcap', 'two', 'c/one-2.db3'], tmp_path)
    assert [job.folder.name for job in found] == ['one', 'one-2', 'two', 'one-2-2']
    assert [job.options.input for job in found] == ['a/one.mcap', 'b/one.mcap', 'two',
                                                    'c/one-2.db3']


def test_what_is_done_is_not_done_again_and_what_fails_is_told(inputs, replay, tmp_path):
    nothing = str(tmp_path / 'nothing.mcap')
    status, (one, two, three), told = replay(*inputs[:2], nothing)
    assert status == 3 and one['end']['right'] == one['end']['judged'] == 1
    assert three['end'] is None and 'nothing.mcap: no such file' in three['failure']
    assert '3 of 3  nothing: failed' in told and '24 frames, 1 of 1 right' in told
    page = (tmp_path / 'out/summary.html').read_text()
    assert 'drive0/report.html' in page and 'nothing: failed' in page

    journal = tmp_path / 'out/drive0/run.jsonl'
    before = journal.stat().st_mtime_ns
    Path(inputs[1], '0.png').touch()  # another input than before
    status, again, _ = replay(*inputs[:2])
    assert status == 0 and [result['tries'] for result in again] == [0, 1]
    assert journal.stat().st_mtime_ns == before
    assert again[0]['end']['digest'] == one['end']['digest']
    (tmp_path / 'questions.yaml').write_text(QUESTIONS.replace('expected: seven', 'expected: six'))
    status, changed, _ = replay(*inputs[:2])
    assert status == 1 and [result['tries'] for result in changed] == [1, 1]


def test_of_many_none_begins_after_an_interrupt(inputs, replay, monkeypatch, tmp_path):
    take = Offline._take

    def interrupt(run, frame):
        signal.raise_signal(signal.SIGTERM)
        take(run, frame)

    monkeypatch.setattr(Offline, '_take', interrupt)
    status, [result], _ = replay(*inputs)
    assert status == 130 and result['end']['problem'] == INTERRUPTED
    assert not (tmp_path / 'out/drive1').exists()


def test_a_run_that_was_broken_off_is_done_again(inputs, tmp_path):
    job, = jobs(inputs[:1], tmp_path)
    assert job.done() is None and job.run()[0].whole
    assert job.done().end == list(read(job.folder))[-1]
    batch = Batch([job], tmp_path, Screen(sys.stdout))
    journal = job.folder / 'run.jsonl'
    hidden = journal.rename(tmp_path / 'hidden')
    assert batch.close()[0].whole, 'each run is read once'
    hidden.rename(journal)
    journal.write_bytes(journal.read_bytes()[:-9])
    assert job.done() is None


def test_an_input_that_changes_while_it_is_replayed_is_done_again(inputs, tmp_path, monkeypatch):
    job, = jobs(inputs[:1], tmp_path)
    replay_into = job_module.replay_into

    def meanwhile(*args, **options):
        Path(inputs[0], '0.png').touch()
        return replay_into(*args, **options)

    monkeypatch.setattr(job_module, 'replay_into', meanwhile)
    assert job.run()[0].whole
    assert job.done() is None


@pytest.mark.timeout(900)  # three processes import torch
def test_a_cluster_loses_a_worker_and_nothing_else(inputs, replay, tmp_path, monkeypatch):
    ray = pytest.importorskip('ray', reason='the cluster is Ray')
    # other tests would starve them for minutes: Ray gives its workers a low priority
    monkeypatch.setenv('RAY_worker_niceness', '0')
    victims, over = [], threading.Event()

    def kill() -> None:
        """Kill the process that is the first to be in the midst of a run."""
        while not victims and not over.wait(.01):
            busy = workers() if any(tmp_path.glob('out/*/run.jsonl')) else []
            if busy:
                os.kill(busy[0], signal.SIGKILL)
                victims.append(busy[0])

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        status, results, _ = replay(*inputs, str(tmp_path / 'nothing.mcap'),
                                    options=['--workers', '2', '--ray'])
    finally:
        over.set()
        thread.join()
    assert not ray.is_initialized() and len(victims) == 1
    assert status == 3 and all(result['end'] for result in results[:3])
    assert [result['tries'] for result in results[:3]].count(2) == 1  # that of the one killed
    assert 'no such file' in results[3]['failure'] and results[3]['tries'] == 1
    assert len({result['place'] for result in results[:3]}) > 1
    # the same as without a cluster
    _, alone, _ = replay(*inputs, out='alone')
    assert [r['end']['digest'] for r in alone] == [r['end']['digest'] for r in results[:3]]


def workers() -> list[int]:
    """Find the processes of Ray's workers that replay, of this test alone."""
    found, parents = [], {}
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        number = int(path.parent.name)
        try:
            parents[number] = int(path.with_name('stat').read_text().rpartition(')')[2].split()[1])
            if path.read_bytes().startswith(b'ray::Worker.replay'):
                found.append(number)
        except OSError:
            pass

    def ours(number: int) -> bool:
        return number == os.getpid() or number in parents and ours(parents[number])

    return [number for number in found if ours(number)]
