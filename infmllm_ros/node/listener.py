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

"""Who works with the worker: what it tells, and what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from infmllm_ros.engine import StreamingSession
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.questions import Outcome, Question

# A frame that was seen, and the same as the engine takes it with a question: image, stamp, camera.
Shown = tuple[Frame | None, tuple[Any, int, str] | None]


class Listener(Protocol):
    """What the worker tells; called in the worker's thread, `answered` in others as well."""

    def decode(self, message: Any) -> Any:
        """Decode an image message to uint8 [H, W, 3] RGB; ValueError says why it cannot."""

    def preface(self, question: Question) -> str:
        """Say what to put before a question whose turn it is; empty for nothing."""

    def observed(self, frame: Frame, image: Any, session: StreamingSession,
                 again: bool = False) -> None:
        """Take note of a frame that the model has seen, or found to repeat its last one."""

    def bad_image(self, frame: Frame, reason: str) -> None:
        """Take note of an image that was dropped."""

    def piece(self, question: Question, text: str) -> None:
        """Pass on a piece of an answer."""

    def answered(self, question: Question, outcome: Outcome) -> None:
        """Pass on the end of a question: called once for each."""

    def failed(self, job: str, error: Exception) -> None:
        """Take note of an exception; the worker goes on."""

    def relieved(self, relief: str) -> None:
        """Take note of what was done after memory ran out."""


class Watching(Protocol):
    """Questions of the node's own, asked when no other waits; called in the worker's thread."""

    def due_in(self) -> float:
        """Tell in how many seconds to look again; 0 = one is due, infinite = after a frame."""

    def run(self, session: StreamingSession, show: Callable[[str], Shown],
            heard: Callable[[], bool]) -> None:
        """
        Ask the one that is due; its question and answer leave the memory.

        `show` finds the newest frame of a camera, '' for any, None when none was seen; and what
        to ask the session with, if that is not where the memory ends. `heard` says whether the
        answer may still be told: not when the worker was given up meanwhile.
        """


class Deaf:
    """The listener of a worker that was given up: whatever it tells, nobody hears."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Hear nothing."""
        return lambda *_, **__: None
