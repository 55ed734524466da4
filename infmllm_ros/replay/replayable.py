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

"""What a replay is, offline or live: who takes what comes of it. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from infmllm_ros.replay.records import End, Record
from infmllm_ros.replay.records.thumbnails import Thumbnails


class Sink(Protocol):
    """Takes the records of a run."""

    def write(self, record: Record) -> None:
        """Take the next one."""


class Bag(Protocol):
    """Takes the messages of a run."""

    def publish(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Take the next one, published at that time of the source [ns]."""


class Replayable(Protocol):
    """
    A replay that is ready to begin.

    Attributes
    ----------
    cameras : list of str
        Names that its records and pictures give the cameras.
    """

    cameras: list[str]

    def replay(self, sinks: Iterable[Sink] = (), *, bags: Iterable[Bag] = (),
               thumbnails: Thumbnails | None = None,
               on_frame: Callable[[int], None] = lambda count: None) -> End:
        """
        Replay, once.

        Parameters
        ----------
        sinks : iterable of Sink
            Each takes all records.
        bags : iterable of Bag
            Each takes all messages of the node.
        thumbnails : Thumbnails, optional
            Takes pictures.
        on_frame : callable
            Takes the number of frames that are done (offline) or were sent (live), after each.

        Returns
        -------
        End
            The last record, with a problem if the run ended before its source did.
        """
