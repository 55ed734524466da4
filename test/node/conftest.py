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

"""A worker and those who stand in for what it works with."""

from infmllm_ros.node.worker import Worker
import pytest
from stand_ins import Listener, Session, TIMEOUT


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def worker(listener, session):
    """Make an active worker with a session."""
    worker = Worker(listener)
    worker.load(lambda: session).result(TIMEOUT)
    worker.resume()
    yield worker
    session.gate.set()
    session.words.set()
    assert worker.stop(TIMEOUT)
