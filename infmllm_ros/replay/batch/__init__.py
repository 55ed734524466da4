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

"""Many replays, one after the other or on a cluster, and a page about all of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
import json
from pathlib import Path
import time

from infmllm_ros.replay import report
from infmllm_ros.replay.batch.cluster import Cluster
from infmllm_ros.replay.batch.job import Job, Result
from infmllm_ros.replay.options import EARLY, OK, WRONG
from infmllm_ros.replay.terminal import interrupts, printable, Screen

FILE = 'results.json'


def replay_many(options: argparse.Namespace, folder: Path, screen: Screen) -> int:
    """
    Replay all inputs into folders below one; what was done before is not done again.

    Returns
    -------
    int
        Exit status, the worst of all.

    Raises
    ------
    ClusterError
        There is no cluster.
    """
    batch = Batch(jobs_of(options, folder), folder, screen)
    try:
        if batch.open and options.ray is not None:
            with closing(Cluster(options.ray, options.workers)) as cluster:
                batch.follow(cluster.run(batch.open))
        else:
            batch.follow(in_turn(batch.open))
    finally:
        results = batch.close()
    if not all(result.whole for result in results):
        return EARLY
    return WRONG if any(result.end.right < result.end.judged for result in results) else OK


def jobs_of(options: argparse.Namespace, folder: Path) -> list[Job]:
    """Make a job for each of the inputs, in a folder of its own that is named after it."""
    jobs, taken = [], set()
    own = {name: value for name, value in vars(options).items() if name != 'inputs'}
    for path in options.inputs:
        name = base = Path(path).resolve().stem
        number = 1
        while name in taken:
            number += 1
            name = f'{base}-{number}'
        taken.add(name)
        jobs.append(Job(argparse.Namespace(**{**own, 'input': path}), folder / name))
    return jobs


def in_turn(jobs: Sequence[Job]) -> Iterator[Result]:
    """Run jobs one after the other in this process, which loads the model once."""
    model = None
    with interrupts() as check:
        for job in jobs:
            result, model = job.run(model, heed=check)
            yield result
            check()  # an interrupted job has a result, too


class Batch:
    """
    Follows jobs to their ends and sums them up.

    Parameters
    ----------
    jobs : sequence of Job
    folder : Path
        Takes the page about all, and their results as JSON.
    screen : Screen

    Attributes
    ----------
    open : list of Job
        Those that are not done.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path, screen: Screen):
        """Take note of what is done already."""
        self._jobs, self._folder, self._screen = jobs, folder, screen
        self._results: dict[str, Result] = {}
        self._begin = time.monotonic()
        self.open = []
        for job in jobs:
            result = job.done()
            if result is None:
                self.open.append(job)
            else:
                self._take(result)

    def follow(self, results: Iterator[Result]) -> None:
        """Tell of results as they come."""
        for count, result in enumerate(results, 1):
            self._take(result)
            left = len(self._jobs) - len(self._results)
            seconds = (time.monotonic() - self._begin) / count * left
            if left:
                self._screen.live(f'{left} to go, {seconds // 60:.0f}:{seconds % 60:02.0f} left')

    def _take(self, result: Result) -> None:
        self._results[result.name] = result
        paint = self._screen.paint
        self._screen.line(
            paint(f'{len(self._results):>4} of {len(self._jobs)}  ', 'dim')
            + paint(f'{result.name}: ', 'bold')
            + paint(printable(str(result)), 'green' if result.whole else 'red'))

    def close(self) -> list[Result]:
        """Write the page about all that there is; return the results in the order of the jobs."""
        results = [self._results[job.folder.name] for job in self._jobs
                   if job.folder.name in self._results]
        self._folder.mkdir(parents=True, exist_ok=True)
        entries = [report.Entry(
            result.name, result.headline, f'{result.name}/{report.FILE}')
            for result in results if result.headline is not None]
        page = report.summary(entries, self._folder, notes=[
            f'{result.name}: {result}' for result in results if not result.whole])
        (self._folder / FILE).write_text(
            json.dumps([result.fields() for result in results], indent=1) + '\n')
        self._screen.close()
        self._screen.line(f'{sum(result.whole for result in results)} of {len(self._jobs)} '
                          f'replays are whole; {page}')
        return results
