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
A picture of what the memory holds: for people. Nothing here knows ROS.

Thumbnails of retained frames in the order of time, under each how much of it is left; below, all
retained frames on a time line. Frames chosen to stay (tokens after them are gone: attention
saddles, under policy `saddle`) are orange, those of the unbroken recent past blue; what the last
answer rests on has a yellow frame and a share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
import io

from infmllm_ros.engine import Answer, Frame, Holding, Stats
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 640, 256  # [pixels] 480 kB: larger raw images need more room in shared memory
COLUMNS, ROWS = 10, 2
_EDGE, _CELL, _ROW, _TOP = 10, 62, 66, 32  # [pixels]
_BOX = (58, 44)  # [pixels] a thumbnail
_BASE, _TALL = 224, 46  # [pixels] the time line, and how far a whole frame rises above it
_GROUND, _SHADE, _DIM, _LIGHT = (18, 21, 28), (42, 47, 58), (138, 147, 163), (228, 232, 240)
_RECENT, _CHOSEN, _EVIDENCE = (86, 156, 246), (247, 151, 54), (255, 226, 92)


def draw(stats: Stats, held: Sequence[Holding], jpeg: Callable[[Frame], bytes | None],
         question: str = '', answer: Answer | None = None) -> np.ndarray:
    """
    Draw what the memory holds.

    Parameters
    ----------
    stats : Stats
        Of the memory.
    held : sequence of Holding
        From ``holdings``.
    jpeg : callable
        Gives the thumbnail of a frame, or None.
    question : str
        The last one.
    answer : Answer, optional
        To it.

    Returns
    -------
    numpy.ndarray
        uint8 [256, 640, 3], RGB.
    """
    image = Image.new('RGB', (WIDTH, HEIGHT), _GROUND)
    pen = ImageDraw.Draw(image)
    weights = {Frame(e.frame, e.stamp_ns, e.camera): e.weight
               for e in (answer.evidence if answer else ())}
    most = max((h.tokens for h in held), default=1.0)
    newest = max((h.frame.stamp_ns for h in held), default=0)
    shown = _shown(held, weights)
    _head(pen, stats, len(held) - len(shown))
    for place, one in enumerate(shown):
        corner = (_EDGE + _CELL * (place % COLUMNS), _TOP + _ROW * (place // COLUMNS))
        _thumbnail(image, pen, corner, one, jpeg(one.frame), one.tokens / most,
                   _age(newest - one.frame.stamp_ns), weights.get(one.frame, 0.0))
    _line(pen, held, most, newest, weights)
    if answer is not None:
        _text(pen, (_EDGE, HEIGHT - 16), f'{question}  >  {answer.text}', _LIGHT, 11,
              WIDTH - 2 * _EDGE)
    return np.asarray(image)


def _shown(held: Sequence[Holding], weights: Mapping[Frame, float]) -> list[Holding]:
    """Choose as many as there is room for: evidence, and others evenly spread over the rest."""
    rest = [h for h in held if h.frame not in weights]
    room = COLUMNS * ROWS - (len(held) - len(rest))
    picked = np.linspace(0, len(rest) - 1, max(0, min(room, len(rest)))).round().astype(int)
    shown = [rest[number] for number in picked] + [h for h in held if h.frame in weights]
    return sorted(shown, key=lambda h: h.frame.ordinal)[-COLUMNS * ROWS:]


def _head(pen: ImageDraw.ImageDraw, stats: Stats, hidden: int) -> None:
    """Tell how full the memory is, and of how much."""
    bar = (_EDGE, 9, _EDGE + 150, 21)
    pen.rectangle(bar, _SHADE)
    pen.rectangle((*bar[:2], bar[0] + round(150 * min(1.0, stats.usage)), bar[3]), _RECENT)
    _text(pen, (bar[2] + 8, 8), f'{stats.tokens} of {stats.budget} tokens', _LIGHT, 12)
    rest = f', {hidden} not shown' if hidden else ''
    _text(pen, (WIDTH - _EDGE, 8), f'{stats.frames_retained} of {stats.frames_seen} frames, '
          f'{stats.tokens_seen} tokens seen{rest}', _DIM, 12, anchor='ra')


def _thumbnail(image: Image.Image, pen: ImageDraw.ImageDraw, corner: tuple[int, int], one: Holding,
               jpeg: bytes | None, left: float, age: str, weight: float) -> None:
    """Draw a frame, a bar of what is left of it, its age and its share of the last answer."""
    x, y = corner
    wide, tall = _BOX
    pen.rectangle((x, y, x + wide - 1, y + tall - 1), _SHADE)
    if jpeg is not None:
        small = Image.open(io.BytesIO(jpeg)).convert('RGB')
        small.thumbnail(_BOX)
        image.paste(small, (x + (wide - small.width) // 2, y + (tall - small.height) // 2))
    if weight:
        pen.rectangle((x - 2, y - 2, x + wide + 1, y + tall + 1), None, _EVIDENCE, 2)
    pen.rectangle((x, y + tall + 2, x + wide - 1, y + tall + 5), _SHADE)
    full, chosen = round(wide * left), round(wide * left * one.old / one.tokens)
    for stop, colour in ((full, _RECENT), (chosen, _CHOSEN)):
        if stop:
            pen.rectangle((x, y + tall + 2, x + stop - 1, y + tall + 5), colour)
    _text(pen, (x, y + tall + 7), age, _DIM, 10)
    if weight:
        _text(pen, (x + wide, y + tall + 7), f'{weight:.0%}', _EVIDENCE, 10, anchor='ra')


def _line(pen: ImageDraw.ImageDraw, held: Sequence[Holding], most: float, newest: int,
          weights: Mapping[Frame, float]) -> None:
    """Draw all retained frames over time: as high as what is left of them."""
    pen.line((_EDGE, _BASE, WIDTH - _EDGE, _BASE), _SHADE)
    oldest = min((h.frame.stamp_ns for h in held), default=0)
    for one in held:
        share = (one.frame.stamp_ns - oldest) / max(1, newest - oldest)
        x = _EDGE + 2 + round(share * (WIDTH - 2 * _EDGE - 4))
        for tokens, colour in ((one.tokens, _RECENT), (one.old, _CHOSEN)):
            if tokens:
                pen.line((x, _BASE - max(2, round(_TALL * tokens / most)), x, _BASE - 1), colour,
                         2)
        if one.frame in weights:
            size = 2 + round(4 * weights[one.frame] ** 0.5)
            y = _BASE - round(_TALL * one.tokens / most) - size - 1
            pen.ellipse((x - size, y - size, x + size, y + size), _EVIDENCE)
    _text(pen, (_EDGE, _BASE + 3), _age(newest - oldest), _DIM, 10)
    _text(pen, (WIDTH - _EDGE, _BASE + 3), 'newest frame', _DIM, 10, anchor='ra')


def _age(span_ns: int) -> str:
    """Write how long before the newest frame: now, -0.4 s, -12 s, -3:07 or -1:02:45."""
    seconds = span_ns / 1e9
    if not span_ns:
        return 'now'
    if seconds < 60:
        return f'-{seconds:.1f} s' if seconds < 10 else f'-{seconds:.0f} s'
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'-{hours}:{minutes:02}:{seconds:02}' if hours else f'-{minutes}:{seconds:02}'


def _text(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: tuple[int, ...],
          size: int, room: int = WIDTH, anchor: str = 'la') -> None:
    """Write one line, cut where there is no room; the font knows Latin letters only."""
    text, font = ' '.join(text.split()).encode('latin-1', 'replace').decode('latin-1'), _font(size)
    width = pen.textlength(text, font)
    if width > room:
        text = text[:max(0, int(len(text) * room / width) - 3)] + '...'
        width = pen.textlength(text, font)
    x, y = place
    pen.text((x - width if anchor == 'ra' else x, y), text, colour, font)


@cache
def _font(size: int) -> ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):  # before Pillow 10.1, or without FreeType: one small size
        return ImageFont.load_default()
