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

"""A replay on the terminal: answers as they come, and at the end which were right."""

from __future__ import annotations

from infmllm_ros.replay import records
from infmllm_ros.replay.sources import SECOND
from infmllm_ros.replay.terminal import printable, Screen

WIDTH = 60  # [columns] of a name or a text in the table


class Console:
    """
    Shows records.

    Parameters
    ----------
    screen : Screen
    """

    def __init__(self, screen: Screen):
        """Have shown nothing yet."""
        self._screen = screen
        self._begin_ns: int | None = None
        self._answers: dict[str, list[records.Answer]] = {}  # by name of the question

    def write(self, record: records.Record) -> None:
        """Show a record, if it is one for people."""
        if isinstance(record, records.Frame) and self._begin_ns is None:
            self._begin_ns = record.stamp_ns
        elif isinstance(record, records.Told):
            self._line(record.stamp_ns, f'told: {record.text}', 'yellow')
        elif isinstance(record, records.Problem):
            self._line(record.stamp_ns, record.text, 'red')
        elif isinstance(record, records.Event):
            self._line(record.stamp_ns, f'{record.name}: {record.previous_text or "?"} -> '
                       f'{record.text} ({record.probability:.2f})', 'cyan')
        elif isinstance(record, records.Answer) and not record.watch:
            self._answers.setdefault(record.name, []).append(record)
            self._line(record.asked_ns, f'{record.id}: {record.question}', 'bold')
            self._screen.line(f'          {self._answer(record)}')

    def table(self) -> list[str]:
        """Write how often each question was asked, and how often the answer was right."""
        width = min(WIDTH, max(map(len, self._answers), default=0))
        rows = []
        for name, answers in self._answers.items():
            right = [answer.right for answer in answers if answer.right is not None]
            mark = self._mark(all(right)) if right else self._screen.paint('--   ', 'dim')
            verdict = f'{sum(right)} of {len(right)} right' if right else 'not judged'
            last = printable(answers[-1].text)
            rows.append(f'  {mark}  {name:<{width}}  asked {len(answers):>4}  {verdict:<16}  '
                        f'last: {last[:WIDTH]}')
        return rows

    def _line(self, time_ns: int, text: str, colour: str) -> None:
        seconds = (time_ns - (self._begin_ns or time_ns)) / SECOND
        paint = self._screen.paint
        self._screen.line(paint(f'{seconds:7.1f} s ', 'dim') + paint(printable(text), colour))

    def _answer(self, record: records.Answer) -> str:
        paint = self._screen.paint
        text = paint(printable(record.text), 'cyan')
        if record.status != 'OK':
            text += paint(f'  {record.status}: {printable(record.message)}', 'red')
        if record.right is not None:
            text += f'  {self._mark(record.right)}'
            if not record.right:
                text += paint(f'  expected: {printable(record.expected or "")}', 'red')
        return text

    def _mark(self, right: bool) -> str:
        return self._screen.paint('right' if right else 'wrong', 'green' if right else 'red')
