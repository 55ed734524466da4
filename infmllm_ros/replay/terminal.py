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

"""Lines that stay and, on a terminal, a few below them that are rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import os
import shutil
import signal
import threading
import time
from typing import Any, TextIO
import unicodedata

COLOURS = {'bold': 1, 'dim': 2, 'red': 31, 'green': 32, 'yellow': 33, 'blue': 34, 'cyan': 36}


def printable(text: str) -> str:
    """Return text that cannot move the cursor: a model may say anything."""
    return ''.join(c if c.isprintable() else '\N{MIDDLE DOT}' for c in text)


def rows(text: str, width: int) -> list[str]:
    """Cut text into rows of at most `width` columns; wide and combining characters count so."""
    cut, used = [''], 0
    for character in text:
        columns = 0 if unicodedata.combining(character) else \
            2 if unicodedata.east_asian_width(character) in 'WF' else 1
        if used + columns > width:
            cut.append('')
            used = 0
        cut[-1] += character
        used += columns
    return cut


class Screen:
    """
    Writes lines, an answer piece by piece, and a live line of statistics.

    On a terminal the growing answer and the live line stay at the bottom and are rewritten.
    Elsewhere the pieces are written as they come, and the live line is a line once in a while.

    Parameters
    ----------
    stream : file
        Where to; colours only if it is a terminal and NO_COLOR is not set.
    every : float
        [s] between two live lines where they cannot be rewritten.
    """

    def __init__(self, stream: TextIO, every: float = 5.0):
        self._stream, self._every = stream, every
        self._tty = stream.isatty() and os.environ.get('TERM') != 'dumb'
        self._colours = self._tty and not os.environ.get('NO_COLOR')
        self._lock = threading.RLock()  # the node's own lines come in another thread
        self._growing = self._live = ''
        self._drawn = 0  # rows at the bottom, to be rewritten
        self._last = -every

    def paint(self, text: str, *colours: str) -> str:
        """Return text in colours, where there are any."""
        if not self._colours:
            return text
        return f'\x1b[{";".join(str(COLOURS[c]) for c in colours)}m{text}\x1b[0m'

    def line(self, text: str = '') -> None:
        """Write a line that stays, above the live ones."""
        with self._lock:
            self._erase()
            if self._growing and not self._tty:
                self._stream.write('\n')
            self._stream.write(text + '\n')
            if self._growing and not self._tty:
                self._stream.write('  ' + self._growing)
            self._draw()

    def grow(self, piece: str) -> None:
        """Add a piece to the answer at the bottom; it must be `printable`."""
        with self._lock:
            if not self._tty:
                self._stream.write(piece if self._growing else '  ' + piece)
            self._erase()
            self._growing += piece
            self._draw()

    def finish(self, text: str) -> None:
        """Replace the answer at the bottom by its whole text, which stays."""
        with self._lock:
            grown, self._growing = self._growing, ''
            if self._tty or not grown:
                self.line('  ' + self.paint(text, 'cyan'))
            else:  # it stands there, but for pieces that have not come
                self.line(text.removeprefix(grown))

    def live(self, text: str) -> None:
        """Show the newest statistics."""
        with self._lock:
            now = time.monotonic()
            if self._tty:
                self._erase()
                self._live = text
                self._draw()
            elif not self._growing and now - self._last >= self._every:
                self._last = now
                self.line(text)

    def close(self) -> None:
        """Leave the cursor on a line of its own, without live lines."""
        with self._lock:
            self._erase()
            if self._growing and not self._tty:
                self._stream.write('\n')
            self._growing = self._live = ''
            self._stream.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write('\r' + '\x1b[1A' * (self._drawn - 1) + '\x1b[J')
            self._drawn = 0

    def _draw(self) -> None:
        if self._tty:
            width = max(20, shutil.get_terminal_size().columns - 1)
            answer = rows('  ' + self._growing, width)[-5:] if self._growing else []
            live = rows(self._live, width)[:2] if self._live else []
            self._stream.write('\n'.join([self.paint(row, 'cyan') for row in answer]
                                         + [self.paint(row, 'dim') for row in live]))
            self._drawn = len(answer) + len(live)
        self._stream.flush()


class Progress:
    """
    The live line of a source that is worked through: how far, how fast, how long still.

    Parameters
    ----------
    screen : Screen
    total : int or None
        Number of frames to come, where it is known.
    """

    def __init__(self, screen: Screen, total: int | None):
        self._screen, self._total = screen, total
        self._begin = time.monotonic()
        self._shown = -1.0

    def show(self, frames: int) -> None:
        """Show that so many frames are done; not more than ten times a second."""
        now = time.monotonic() - self._begin
        if now - self._shown < .1:
            return
        self._shown = now
        rate = frames / now if now > 0 else 0.0
        text = f'frame {frames:,}'
        if self._total:
            share = min(1.0, frames / self._total)
            left = round(max(0, self._total - frames) / rate) if rate else 0
            text = (f'[{"#" * round(24 * share):<24}] {share:4.0%}  {text} of {self._total:,}, '
                    f'{rate:,.0f} frames/s, {left // 60}:{left % 60:02} left')
        else:
            text += f', {rate:,.0f} frames/s'
        self._screen.live(text)


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """
    Give what raises KeyboardInterrupt once SIGINT or SIGTERM has come, to be called now and then.

    A handler that raises at once may do so where foreign code swallows it; a second signal does.
    """
    came: list[int] = []

    def handle(*_: Any) -> None:
        came.append(1)
        if len(came) > 1:
            raise KeyboardInterrupt

    def check() -> None:
        if came:
            raise KeyboardInterrupt
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
