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

"""A run into its folder: records, pictures, a bag and a report."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing, ExitStack
from pathlib import Path
from typing import Any

from infmllm_ros.replay import report
from infmllm_ros.replay.bagging import open_bag
from infmllm_ros.replay.records import End, FILE, Journal
from infmllm_ros.replay.records.thumbnails import FILE as THUMBNAILS
from infmllm_ros.replay.records.thumbnails import Thumbnails
from infmllm_ros.replay.replayable import Replayable, Sink


def replay_into(folder: Path, run: Replayable, sinks: Iterable[Sink] = (), *,
                storage: str | None = 'mcap', page: bool = True, **options: Any) -> End:
    """
    Replay, and write down what comes of it.

    Parameters
    ----------
    folder : Path
        Made if it is not there; what an earlier replay wrote there is replaced.
    run : Offline or Live
    sinks : iterable of Sink
        Who else takes the records.
    storage : str or None
        Of the bag; None for no bag.
    page : bool
        Whether to write the report.
    options
        Of `run.replay`.

    Returns
    -------
    End
        The last record.

    Raises
    ------
    BagError
        The folder holds something else in the place of the bag.
    OSError
        It cannot be written; what was written before stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        bags = [stack.enter_context(closing(open_bag(folder / 'bag', storage)))] if storage else []
        journal = stack.enter_context(closing(Journal(folder / FILE)))
        thumbnails = stack.enter_context(closing(Thumbnails(folder / THUMBNAILS, run.cameras)))
        end = run.replay([journal, *sinks], bags=bags, thumbnails=thumbnails, **options)
    if page:
        report.write(folder)
    return end
