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
Data-parallel training on one machine: each worker takes its rows of a batch.

The model is too small for two threads to share one product of it (a step over 256 frames takes as
long with two as with one), so the cores share the batch instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
import tempfile
import traceback
from typing import Any, TypeVar

import torch
from torch import distributed

Item = TypeVar('Item')


def count() -> int:
    """Return how many workers there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return which worker this is; worker 0 checks, reports and saves."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def mine(items: Sequence[Item]) -> Sequence[Item]:
    """Return this worker's share."""
    return items[rank()::count()]


def wait() -> None:
    """Wait until every worker has come this far."""
    if count() > 1:
        distributed.barrier()


def decide(decision: Callable[[], bool]) -> bool:
    """Have worker 0 decide for all."""
    answer = torch.tensor(rank() == 0 and bool(decision()))
    if count() > 1:
        distributed.broadcast(answer, 0)
    return bool(answer)


def average(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Give every worker the mean of all workers' gradients."""
    if count() == 1:
        return
    parameters = list(parameters)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([grad.flatten() for grad in grads])
    distributed.all_reduce(flat)
    for parameter, mean in zip(parameters, (flat / count()).split([g.numel() for g in grads]),
                               strict=True):
        parameter.grad = mean.view_as(parameter)


def spread(workers: int, call: Callable[..., None], *arguments: Any) -> None:
    """
    Run ``call(*arguments)`` in so many processes of this machine.

    Parameters
    ----------
    workers : int
        1: in this process.
    call : Callable
        A function of a module, as the processes import it.
    arguments
        What pickle takes.

    Raises
    ------
    torch.multiprocessing.ProcessRaisedException
        If a worker failed; the others are ended.
    """
    if workers == 1:
        call(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        threads = max(1, torch.get_num_threads() // workers)
        torch.multiprocessing.spawn(
            _work, (workers, threads, Path(folder) / 'store', call, arguments), workers)


def _work(number: int, workers: int, threads: int, store: Path, call: Callable[..., None],
          arguments: tuple[Any, ...]) -> None:
    """Meet the other workers, then do the work."""
    torch.set_num_threads(threads)
    distributed.init_process_group(
        'gloo', f'file://{store}', rank=number, world_size=workers)
    try:
        call(*arguments)
    except Exception:
        traceback.print_exc()   # now: the others fail next, for want of this one
        raise
    finally:
        distributed.destroy_process_group()
