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

"""Power cuts and full disks while a memory is saved: the last whole save is always there."""

import json
import os
import subprocess
import sys
import time

import pytest

# One process loads the model; its children save again and again, and are killed at it.
POWER_CUTS = """
import json, os, random, resource, shutil, signal, sys, time
from pathlib import Path
import numpy as np, torch
from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.engine import load_model, make_policy, StreamingSession

torch.set_num_threads(1)
path, chance = Path(sys.argv[1]) / 'memory.safetensors', random.Random(7)
session = StreamingSession(load_model(str(MODEL), device='cpu'), make_policy(
    'saddle', budget=MODEL_BUDGET, **MODEL_POLICY), max_question=32, max_answer=8)
session.observe(np.zeros((64, 64, 3), np.uint8), 0)
session.save(path, {'generation': b'0'})
start = time.monotonic()
for _ in range(5):
    session.save(path, {'generation': b'0'})
period = (time.monotonic() - start) / 5
found, torn = [], 0
for cut in range(20):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        for generation in range(10**6):
            session.save(path, {'generation': str(generation).encode()})
            os.write(writer, f'{generation} '.encode())
    os.close(writer)
    os.read(reader, 1)  # the first is saved
    time.sleep(chance.uniform(0, 3 * period))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    saved = os.read(reader, 10**6).decode().split()
    os.close(reader)
    torn += len(list(path.parent.glob('*.part')))
    for part in path.parent.glob('*.part'):
        shutil.rmtree(part)
    kept = int(session.restore(path)['generation'])
    last = int(saved[-1]) if saved else 0
    found.append(kept in (last, last + 1))
before = path.read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, resource.RLIM_INFINITY))
try:
    session.save(path)
    full = 'it was saved'
except Exception as error:
    full = f'{type(error).__name__}: {error}'
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps({
    'found': found, 'torn': torn, 'full': full, 'kept': path.read_bytes() == before,
    'left': [p.name for p in path.parent.iterdir()],
    'answer': session.answer('what is ahead').text,
    'again': StreamingSession.load(path, session.model).answer('what is ahead').text}))
"""


@pytest.fixture(scope='module')
def cuts(tmp_path_factory):
    """Cut the power 20 times, then fill the disk."""
    done = subprocess.run(
        [sys.executable, '-c', POWER_CUTS, str(tmp_path_factory.mktemp('power'))],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1'},
        capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_process_killed_at_any_moment_leaves_the_last_whole_save(cuts):
    assert cuts['found'] == [True] * 20
    assert cuts['torn'], 'some were killed while they wrote'


def test_a_disk_without_room_leaves_the_old_file_and_nothing_else(cuts):
    assert 'large' in cuts['full'], cuts['full']  # EFBIG: as ENOSPC, but without a disk to fill
    assert cuts['kept'] and cuts['left'] == ['memory.safetensors']
    assert cuts['answer'] == cuts['again'] != ''


def test_what_a_killed_process_had_half_written_is_swept_away(tmp_path):
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
    from infmllm_ros.node.memory import sweep
    old, new, other = (tmp_path / f'{name}.part' for name in (
        'memory.safetensors_a', 'memory.safetensors_b', 'else'))
    for folder in (old, new, other):
        folder.mkdir()
        (folder / '.tmpAbCdEf').write_bytes(b'half')
    for folder in (old, other):
        os.utime(folder, (time.time() - 3600,) * 2)
    sweep(tmp_path / 'memory.safetensors')
    assert sorted(tmp_path.iterdir()) == sorted([new, other]), 'one may still be at work'
