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
The next frames of a backlog pass the vision tower while the language model reads the last ones.

That is on a GPU, which works off what it is given on two streams; on a CPU there is nothing to be
had, as both would share its cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TYPE_CHECKING

import torch

from .chunk import Chunk

if TYPE_CHECKING:
    from .session import StreamingSession


class Side(Protocol):
    """A queue of work beside the main one."""

    def at_work(self) -> AbstractContextManager[Any]:
        """Queue here what is begun inside."""

    def join(self) -> None:
        """Let the main queue go on only when this one is empty."""


class SideStream:
    """A CUDA stream beside the current one."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def at_work(self) -> AbstractContextManager[Any]:
        """Queue here what is begun inside."""
        return torch.cuda.stream(self.stream)

    def join(self) -> None:
        """Let the main stream wait for this one."""
        torch.cuda.current_stream(self.device).wait_stream(self.stream)


def side_of(device: torch.device) -> Side | None:
    """Make a queue beside a device's main one; None where there is but one."""
    return SideStream(device) if device.type == 'cuda' else None


class Lookout:
    """
    The frames of a backlog, pass by pass.

    What the tower makes on the side stream is read on the main one. Its memory may be given to
    later frames only when that is over, and it is: the host waits for each pass before it lets go
    of the frames (`finite`).

    Parameters
    ----------
    session : StreamingSession
    chunks : sequence of Chunk
        Laid out, one a frame.
    images : sequence
        Of the same frames.
    passes : sequence of slice
        Which frames share a pass.
    """

    def __init__(self, session: StreamingSession, chunks: Sequence[Chunk], images: Sequence[Any],
                 passes: Sequence[slice]) -> None:
        self._session, self._chunks, self._images = session, chunks, images
        self._passes, self._side = passes, side_of(session.model.device)
        self._seen: dict[int, list[Chunk] | Exception] = {}

    def frames(self, number: int) -> list[Chunk]:
        """Give the frames of a pass, seen; what went wrong with them is raised here."""
        if number not in self._seen:
            return self._look(number)
        self._side.join()
        seen = self._seen.pop(number)
        if isinstance(seen, Exception):
            raise seen
        return seen

    def look_ahead(self, number: int) -> None:
        """Begin to look at the frames of a pass, if there is one and a side stream for it."""
        if self._side is None or number == len(self._passes) or number in self._seen:
            return
        try:
            with self._side.at_work():
                self._seen[number] = self._look(number)
        except Exception as error:  # noqa: B902 it is not the fault of the pass at work
            self._seen[number] = error

    def _look(self, number: int) -> list[Chunk]:
        part = self._passes[number]
        return self._session.adapter.see(self._session.model.model, self._chunks[part],
                                         self._images[part], self._session.graphs)
