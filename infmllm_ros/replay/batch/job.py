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

"""One of many offline replays: all that is needed to do it elsewhere, and to know it is done."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
import hashlib
import json
from pathlib import Path
from typing import Any

from infmllm_ros.engine import StreamingModel
from infmllm_ros.node.desk import one_line
from infmllm_ros.replay.offline import Offline
from infmllm_ros.replay.options import read_input, WRONG_INPUT
from infmllm_ros.replay.output import replay_into
from infmllm_ros.replay.records import End, finished, read
from infmllm_ros.replay.records.headline import Headline
from infmllm_ros.replay.settings import remapped

KEY_FILE = 'job.json'  # in a finished folder, says what that is the outcome of
PATHS = ('input', 'questions', 'params_file')  # options that name files


@dataclass(frozen=True)
class Result:
    """
    What became of a job.

    Parameters
    ----------
    name : str
        Of its folder.
    end : End or None
        None if it failed.
    failure : str
        Why, on one line.
    tries : int
        0 = it was done before.
    place : str
        Where it ran, on a cluster.
    headline : Headline or None
        The numbers of the run, where there is an end.
    """

    name: str
    end: End | None
    failure: str = ''
    tries: int = 1
    place: str = ''
    headline: Headline | None = None

    def fields(self) -> dict[str, Any]:
        """Give as what JSON can hold: all but the headline."""
        fields = asdict(self)
        del fields['headline']
        return fields

    @property
    def whole(self) -> bool:
        """Whether the replay came to the end of its source."""
        return self.end is not None and not self.end.problem

    def __str__(self) -> str:
        """Sum it up on one line."""
        if self.end is None:
            return f'failed: {self.failure}'
        end = self.end
        verdict = f'{end.right} of {end.judged} right' if end.judged else f'{end.answers} answers'
        return (f'{sum(end.frames.values()):,} frames, {verdict}, '
                f'{end.measured["frames_per_second"]:.0f} frames/s'
                + (', done before' if not self.tries else '')
                + (f', try {self.tries}' if self.tries > 1 else '')
                + (f', ended early: {end.problem}' if end.problem else ''))


@dataclass(frozen=True)
class Job:
    """
    A replay that is to be done.

    Parameters
    ----------
    options : argparse.Namespace
        Of the command, with one `input`.
    folder : Path
        Takes all that is written.
    """

    options: argparse.Namespace
    folder: Path

    def run(self, model: StreamingModel | None = None, tries: int = 1, place: str = '',
            heed: Callable[[], None] = lambda: None) -> tuple[Result, StreamingModel | None]:
        """
        Replay; what is wrong with the job becomes its result.

        Parameters
        ----------
        model : StreamingModel, optional
            If it is loaded already.
        tries : int
            Counting this one.
        place : str
            Where that is.
        heed : callable
            Called now and then; KeyboardInterrupt from it ends the run.

        Returns
        -------
        Result, StreamingModel or None
            What became of it; the model, for the next job.
        """
        options, name = self.options, self.folder.name
        try:
            source, plan, given = read_input(options)
            key = self._key()  # a file that changes meanwhile is another input
            with closing(Offline(source, plan, given, model,
                                 remap=remapped(options.remap or ()), heed=heed)) as run:
                (self.folder / KEY_FILE).unlink(missing_ok=True)
                end = replay_into(self.folder, run, page=not options.no_report,
                                  storage=None if options.no_bag else options.storage)
            if not end.problem:
                (self.folder / KEY_FILE).write_text(key)
            headline = Headline.of(read(self.folder))
        except WRONG_INPUT as error:
            return Result(name, None, ' '.join(str(error).split()), tries, place), model
        except OSError as error:
            return Result(name, None, one_line(error), tries, place), model
        return Result(name, end, '', tries, place, headline), run.model

    def done(self) -> Result | None:
        """Return the result of an earlier run, if options and files are the same; else None."""
        try:
            if (self.folder / KEY_FILE).read_text() != self._key():
                return None
            records = list(read(self.folder))
        except (OSError, ValueError):
            return None
        return Result(self.folder.name, records[-1], tries=0, headline=Headline.of(records)
                      ) if finished(records) else None

    def _key(self) -> str:
        """Say what the outcome depends on: the options, and the files as they are."""
        options = {name: str(value) for name, value in vars(self.options).items()}
        files = {str(path): _state(path) for path in map(Path, self._files())}
        return json.dumps({'options': options, 'files': files}, sort_keys=True, indent=1)

    def _files(self) -> Iterator[str]:
        for name in PATHS:
            value = getattr(self.options, name)
            yield from value if isinstance(value, list) else [value] if value else []


def _state(path: Path) -> str:
    """Sum up names, sizes and times of a file, or of those in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob('*')) if path.is_dir() else [path]:
        stat = file.stat()
        digest.update(f'{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
    return digest.hexdigest()
