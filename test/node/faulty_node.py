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
The node with faults to order: the file that INFMLLM_FAULT names says what goes wrong, and where.

It holds one word for the fault and one for the place; while it is empty or missing, all is well.
Faults: ``lack`` (of GPU memory), ``nan``, ``hang`` (until the order is gone), ``bug``, ``full``
(the disk). Places: ``vision``, ``prefill``, ``decode``, ``save``.
"""

from __future__ import annotations

from collections.abc import Callable
import errno
import os
import time
from typing import Any

from infmllm_ros.engine import persist, StreamingSession
from infmllm_ros.engine.models.load import ADAPTERS
from infmllm_ros.engine.policies import Role
from infmllm_ros.node.__main__ import main
import torch

ORDERS = os.environ['INFMLLM_FAULT']
PLACES = {Role.FRAME: 'prefill', Role.ANSWER: 'decode'}


def order(place: str) -> str:
    """Tell which fault shall happen at a place now."""
    try:
        with open(ORDERS, 'rb') as file:    # no other file of Python's: a hang is seen in this one
            fault, _, where = file.read().decode().partition(' ')
    except FileNotFoundError:
        return ''
    return fault if where == place else ''


def fail(place: str) -> bool:
    """Fail as ordered; whether the outcome shall be NaN."""
    fault = order(place)
    if fault == 'lack':
        raise torch.OutOfMemoryError('CUDA out of memory (injected)')
    if fault == 'bug':
        raise KeyError('a bug (injected)')
    if fault == 'full':
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    while fault == 'hang' and order(place):
        time.sleep(0.01)
    return fault == 'nan'


def failing(function: Callable[..., Any], place: Callable[..., str]) -> Callable[..., Any]:
    """Let a function fail as ordered; `place` names the place by its arguments."""
    def wrapped(*args: Any, **options: Any) -> Any:
        spoilt = fail(place(*args))
        result = function(*args, **options)
        if spoilt:
            output = next(iter(result.values()))
            pooled = output.pooler_output
            (pooled if isinstance(pooled, torch.Tensor) else pooled[0]).fill_(torch.nan)
        return result
    return wrapped


if __name__ == '__main__':
    persist.save_file = failing(persist.save_file, lambda *_: 'save')
    StreamingSession.feed = failing(
        StreamingSession.feed, lambda _, chunk, role: PLACES.get(role, ''))
    for adapter in {kind for known in ADAPTERS.values() for kind in known.__mro__}:
        if 'look' in vars(adapter):
            adapter.look = failing(adapter.look, lambda *_: 'vision')
    main()
