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
Replays on a Ray cluster: one job a task, one model a worker.

Ray (``pip install ray``) brings jobs to workers, on this machine or on others. Inputs, questions,
model and output folder must have the same paths everywhere, as on a shared disk. A worker that is
lost takes one try of one job with it: the job goes to another, whose folder is written anew.
"""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from collections.abc import Iterator, Sequence
import os
from pathlib import Path
import socket
from typing import Any

from infmllm_ros.replay.batch.job import Job, PATHS, Result


class ClusterError(RuntimeError):
    """The cluster cannot be used; one line with a remedy."""


class Worker:
    """What runs on the cluster: replays one job after the other, with one model."""

    def __init__(self) -> None:
        self._model = None
        self._place = f'{socket.gethostname()}, process {os.getpid()}'

    def replay(self, job: Job, tries: int) -> Result:
        """Run a job."""
        result, self._model = job.run(self._model, tries, self._place)
        return result


class Cluster:
    """
    Workers on a Ray cluster.

    Parameters
    ----------
    address : str
        Of the cluster, 'auto' for one that this machine belongs to; '' = the one that
        RAY_ADDRESS names, or else this machine alone.
    workers : int
        How many; 0 = as many as there are GPUs, or, without any, processor cores.
    retries : int
        How often a job is tried again whose worker was lost, or that broke in a way that another
        try may mend.

    Raises
    ------
    ClusterError
        Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str = '', workers: int = 0, retries: int = 2) -> None:
        try:
            import ray
        except ImportError:
            raise ClusterError('--ray needs Ray: pip install ray') from None
        self._ray, self._retries = ray, retries
        # a cluster that is started for this has as many cores as it needs; another has its own
        here = {} if address or 'RAY_ADDRESS' in os.environ else {'num_cpus': workers or None}
        try:
            ray.init(address or None, **here, log_to_driver=False, logging_level='ERROR')
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ClusterError(f'no Ray cluster at {address or "this machine"}: '
                               f'{" ".join(str(error).split())}') from None
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get('GPU', 0)), int(resources.get('CPU', 1))
        self.workers = workers or max(1, gpus or cores)
        # one model, and so one GPU where there are any, a worker
        self._needs = {'num_cpus': 1, 'num_gpus': 1 if gpus else 0}

    def run(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Run jobs; yield each result as it comes."""
        ray = self._ray
        remote = ray.remote(**self._needs)(Worker)
        waiting = deque((job, 1) for job in jobs)
        idle = [remote.remote() for _ in range(min(self.workers, len(waiting)))]
        running: dict[Any, tuple[Any, Job, int]] = {}
        while waiting or running:
            while waiting and idle:
                worker, (job, tries) = idle.pop(), waiting.popleft()
                running[worker.replay.remote(_absolute(job), tries)] = worker, job, tries
            ended, _ = ray.wait(list(running))
            for task in ended:
                worker, job, tries = running.pop(task)
                try:
                    yield ray.get(task)
                    idle.append(worker)
                    continue
                except ray.exceptions.RayActorError:
                    failure = 'its worker was lost'
                    idle.append(remote.remote())
                except ray.exceptions.RayTaskError as error:
                    failure = ' '.join(str(error.cause).split()) or type(error.cause).__name__
                    idle.append(worker)
                if tries <= self._retries:
                    waiting.append((job, tries + 1))
                else:
                    yield Result(job.folder.name, None, f'{failure}, {tries} times', tries)

    def close(self) -> None:
        """Leave the cluster; one that was started for this ends."""
        self._ray.shutdown()


def _absolute(job: Job) -> Job:
    """Name files by whole paths: a worker has another working folder."""
    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(path) for path in value]
        return value and type(value)(Path(value).resolve())

    own = vars(job.options)
    return Job(Namespace(**{**own, **{name: whole(own[name]) for name in PATHS}}),
               job.folder.resolve())
