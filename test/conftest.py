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

"""Fixtures for tests that start nodes; those that need ROS skip without it."""

from collections import Counter
from contextlib import suppress
import fcntl
import importlib
import json
import os
from pathlib import Path
import tempfile

from cases import LONG, tried
from hypothesis import HealthCheck, settings
import pytest

# Searches try the same cases each time, however long a busy machine takes for one.
settings.register_profile('same', deadline=None, derandomize=True, database=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('same')


def ros():
    """Import the harness; skip where ROS is missing."""
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
    return importlib.import_module('ros_robot')


def pytest_collection_modifyitems(items):
    """Mix files of each folder evenly: those that wait for processes, and those that compute."""
    files = dict.fromkeys(item.path for item in items)
    folders = Counter(path.parent for path in files)
    turn, place = Counter(), {}
    for path in files:
        place[path] = turn[path.parent] / folders[path.parent]
        turn[path.parent] += 1
    items.sort(key=lambda item: place[item.path])  # files of equal place stay in order


@pytest.fixture(scope='session')
def domain():
    """Give this process a ROS domain that no other test on this machine has."""
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    for turn in range(100):
        number = 1 + (os.getpid() + turn) % 100
        with suppress(OSError), open(
                Path(tempfile.gettempdir()) / f'infmllm_ros_test_{number}.lock', 'w') as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield number
            return
    raise RuntimeError('100 tests hold all the domains')


@pytest.fixture(scope='session')
def tiny(tmp_path_factory) -> str:
    """Make a tiny checkpoint that says letters only and never ends by itself."""
    from infmllm_ros.bundled.tiny import make_tiny
    from safetensors.torch import load_file, save_file
    import torch
    folder = Path(make_tiny('smolvlm', tmp_path_factory.mktemp('tiny')))
    index = json.loads((folder / 'model.safetensors.index.json').read_text())['weight_map']
    shard = folder / index['lm_head.weight']
    weights = load_file(shard)
    words = json.loads((folder / 'tokenizer.json').read_text())['model']['vocab']
    head = weights['lm_head.weight']
    silent = torch.ones(len(head), dtype=torch.bool)
    silent[[number for word, number in words.items() if word.isascii() and word.isalpha()]] = False
    head[silent] = 0        # of a few dozen letters, one always has a positive logit
    save_file(weights, shard, {'format': 'pt'})
    return str(folder)


@pytest.fixture(scope='module')
def start(domain, tmp_path_factory, request):
    """Start node processes; all end with the module."""
    harness = ros()
    processes = []

    def start(parameters, *arguments, below='', **options):
        folder = tmp_path_factory.mktemp('node')
        name = request.module.__name__.rpartition('.')[2] + below
        processes.append(harness.NodeProcess(
            folder, domain, parameters, ('-r', f'__ns:=/{name}', *arguments), **options))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


@pytest.fixture(scope='module')
def robot(domain, request):
    """Join the domain, in the namespace of the module."""
    robot = ros().Robot(domain, '/' + request.module.__name__.rpartition('.')[2])
    yield robot
    robot.close()


def pytest_terminal_summary(terminalreporter):
    """Tell how many cases a long run tried."""
    if LONG:
        for search, count in tried.items():
            terminalreporter.write_line(f'{search}: {count} cases')
