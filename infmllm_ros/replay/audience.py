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

"""Asks the node questions while a source plays, and follows what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from infmllm_msgs.msg import Answer, AnswerChunk, CacheStats
from infmllm_ros.replay.sources import SECOND
from infmllm_ros.replay.terminal import printable, Screen
from rclpy.qos import QoSProfile
from std_msgs.msg import String

MIB = 1 << 20


@dataclass
class Asked:
    """One question and what became of it."""

    question: str
    frame: int  # frames sent when it was asked
    age: float | None = None  # [s] since the newest frame it saw was sent, at its first word
    answer: Answer | None = None
    judge: Callable[[int], str] | None = None  # right answer of someone who saw so many frames
    right: bool = False


class Audience:
    """
    Asks the questions and follows what the node says; no callback takes long.

    Parameters
    ----------
    node : rclpy.node.Node
        In the namespace of the node that answers.
    screen : Screen
        Where all of it is shown.
    total : int
        Number of frames to come; 0 where it is not known.
    fps : float or None
        Frame rate of the source, where it is known.
    """

    def __init__(self, node: Any, screen: Screen, total: int, fps: float | None):
        self._screen, self._total, self._fps = screen, total, fps
        self.asked: list[Asked] = []
        self.sent: dict[int, tuple[int, float]] = {}  # stamp -> (frame, [s] when)
        self.stats: list[CacheStats] = []
        self._ended: set[str] = set()  # ids of answers: a piece may come behind its answer
        self.frames = 0  # sent
        self.failed = False  # the node, to start
        self._node_status = f'{node.get_namespace()}/infmllm: node'.lstrip('/')
        self.query = node.create_publisher(String, 'query', 10)
        self._telling = node.create_publisher(String, 'tell', 10)
        node.create_subscription(CacheStats, 'cache_stats', self._on_stats, 10)
        node.create_subscription(Answer, 'answer', self._on_answer, 10)
        node.create_subscription(AnswerChunk, 'answer_stream', self._on_chunk,
                                 QoSProfile(depth=1000))
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    @property
    def waiting(self) -> bool:
        """Whether a question has no answer."""
        return any(asked.answer is None for asked in self.asked)

    def sending(self, frame: int, stamp_ns: int) -> None:
        """Note a frame that was sent."""
        self.frames = frame
        self.sent[stamp_ns] = (frame, time.monotonic())

    def tell(self, text: str) -> None:
        """Have the node remember a text."""
        paint, place = self._screen.paint, self._place(self.frames)
        self._screen.line(paint(f'{place}  ', 'dim') + paint(f'told: {text}', 'yellow'))
        self._telling.publish(String(data=text))

    def ask(self, question: str, judge: Callable[[int], str] | None = None) -> None:
        """Put a question to the node; `judge` says what is right, by the frames it has seen."""
        self.asked.append(Asked(question, self.frames, judge=judge))
        paint = self._screen.paint
        self._screen.line(paint(f'{self._place(self.frames)}  ', 'dim') + paint(question, 'bold'))
        self.query.publish(String(data=question))

    def _place(self, frame: int) -> str:
        seconds = f'{frame / self._fps:6.1f} s, ' if self._fps else ''
        return f'{seconds}frame {frame:,}'

    def _next_open(self) -> Asked | None:
        return next((asked for asked in self.asked if asked.answer is None), None)

    def _on_chunk(self, chunk: AnswerChunk) -> None:
        asked = self._next_open()
        if asked is None or chunk.id in self._ended:
            return
        if asked.age is None:
            asked.age = self._age(chunk.header)
        if chunk.text:
            self._screen.grow(printable(chunk.text))

    def _on_answer(self, answer: Answer) -> None:
        asked = self._next_open()
        if asked is None:
            return
        asked.answer = answer
        self._ended.add(answer.id)
        screen = self._screen
        screen.finish(printable(answer.text))
        if answer.status != Answer.OK:
            screen.line(screen.paint(f'  no answer: {answer.message}', 'red'))
            return
        frame, _ = self.sent.get(stamp_of(answer.header), (0, 0.0))
        if asked.judge is not None and frame:
            expected = asked.judge(frame)
            asked.right = answer.text.strip() == expected
            screen.line('  ' + (screen.paint('right', 'green') if asked.right else screen.paint(
                f'wrong: it is {expected}', 'red')))
        stamp = answer.header.stamp
        age = f', {asked.age:.2f} s old at the first word' if asked.age is not None else ''
        screen.line(screen.paint(
            f'  saw frame {frame:,}, stamp {stamp.sec}.{stamp.nanosec:09d}{age}; first word after '
            f'{answer.time_to_first_token * 1e3:.0f} ms, all after {answer.latency:.2f} s', 'dim'))

    def _age(self, header: Any) -> float | None:
        frame = self.sent.get(stamp_of(header))
        return time.monotonic() - frame[1] if frame else None

    def _on_stats(self, stats: CacheStats) -> None:
        self.stats.append(stats)
        if not self.frames:
            return
        work = stats.vision_ms + stats.prefill_ms + stats.evict_ms
        total = f'/{self._total:,}' if self._total else ''
        self._screen.live(
            f'sent {self.frames:,}{total}, arrived {stats.frames_received:,}, seen '
            f'{stats.frames_seen:,} | {stats.tokens:,}/{stats.budget:,} tokens | KV '
            f'{stats.kv_bytes / MIB:.1f} MiB, process {stats.process_bytes / MIB:.0f} MiB | '
            f'{work:.0f} ms a frame')

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._node_status and status.level == DiagnosticStatus.ERROR:
                self.failed = True


def stamp_of(header: Any) -> int:
    """Return the stamp of a header [ns]."""
    return header.stamp.sec * SECOND + header.stamp.nanosec
