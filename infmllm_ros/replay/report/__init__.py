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
The report of a run, and the summary of many: ``python -m infmllm_ros.replay.report OUT``.

A report is one HTML file that loads nothing: style, script and pictures are in it, and its policy
forbids the browser to fetch or run anything else. Whatever a bag, a model or a person has written
into it is shown as text. Nothing here knows ROS.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
import hashlib
import os
from pathlib import Path
from typing import Any

from infmllm_ros.replay.records import FATES, read, thumbnails
from infmllm_ros.replay.records.headline import Headline
from infmllm_ros.replay.report import plots, timeline
from infmllm_ros.replay.report.charts import Axes, clock, compact, ticks
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

FILE, SUMMARY = 'report.html', 'summary.html'


@dataclass(frozen=True)
class Entry:
    """One run in a summary: its name, its numbers, and where its report is, if anywhere."""

    name: str
    headline: Headline
    link: str = ''


def write(folder: str | os.PathLike, title: str | None = None) -> Path:
    """
    Write the report of a run.

    Parameters
    ----------
    folder : path
        Holds run.jsonl and, if there are any, thumbnails.zip.
    title : str, optional
        Default: the name of what was replayed.

    Returns
    -------
    Path
        The file, report.html in the same folder; an earlier one is replaced.

    Raises
    ------
    OSError
        There is no run.jsonl, or the folder cannot be written.
    ValueError
        A line of it is no record.
    """
    folder = Path(folder)
    records = list(read(folder))
    headline = Headline.of(records)
    time = timeline.Clock.of(records)
    pictures = timeline.Pictures(folder / thumbnails.FILE)
    rows = timeline.rows(records, time)
    strips = timeline.strips(headline.run.cameras, pictures, time)
    timeline.illustrate(rows[:timeline.ROWS], pictures, time)
    figures = plots.figures(records, time)
    page = _render(
        'report.html.j2', title=title or headline.run.source or 'Replay', headline=headline,
        numbers=numbers(headline), rows=rows[:timeline.ROWS], hidden=len(rows[timeline.ROWS:]),
        marks=timeline.marks(rows[:timeline.ROWS]), lanes=timeline.lanes(rows, records, time),
        told=timeline.told(records, time), strips=strips, pictures=pictures,
        ticks=[(time.across(time.first_ns + round(1e9 * s)), clock(s))
               for s in Axes((0, time.seconds), (0, 1)).x_ticks(time.seconds)],
        figures=figures, fates=[(fate, headline.frames[fate]) for fate in FATES
                                if headline.frames.get(fate)],
        digest=getattr(records[-1], 'digest', ''), data={
            'seconds': time.seconds,
            'plots': {figure.key: figure.data for figure in figures},
            'answers': {row.id: {'evidence': [
                [e['across'], headline.run.cameras.index(e['camera'])
                 if e['camera'] in headline.run.cameras else 0, e['weight'], e['picture']]
                for e in row.evidence]} for row in rows[:timeline.ROWS] if row.evidence}})
    return _put(folder / FILE, page)


def summary(entries: Sequence[Entry], path: str | os.PathLike, title: str = 'Replays',
            notes: Sequence[str] = ()) -> Path:
    """
    Write one page about many runs: a table, and accuracy against the cost of a frame.

    Parameters
    ----------
    entries : sequence of Entry
        In the order in which they are to be listed; links are relative to the page.
    path : path
        The file, or a folder for it to lie in.
    title : str
    notes : sequence of str
        What else is to be said above the table, such as which runs failed, or missed a threshold.

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    path = path / SUMMARY if path.is_dir() else path
    return _put(path, _render('summary.html.j2', title=title, entries=entries, notes=notes,
                              scatter=_scatter(entries), data={}))


def numbers(headline: Headline) -> list[tuple[str, str, str]]:
    """List what a page shows first of a run: (what, value, more)."""
    count = sum(headline.frames.values())
    shown = [('Source', clock(headline.seconds), f'{count:,} frame' + 's' * (count != 1))]
    if headline.fps is not None:
        speed = '' if headline.speed is None else f'{headline.speed:.3g} × real time'
        shown.append(('Replayed at', f'{headline.fps:.3g} fps', speed))
    if headline.tokens is not None:
        shown.append(('Tokens held', f'{headline.tokens:,}',
                      f'of {headline.tokens_seen:,} seen'))
    if headline.frame_ms is not None:
        shown.append(('A frame', f'{headline.frame_ms[0]:.3g} ms',
                      f'p95 {headline.frame_ms[1]:.3g} ms'))
    if headline.latency_ms is not None:
        first = headline.first_ms
        shown.append(('An answer', f'{headline.latency_ms[0]:.3g} ms',
                      f'first token {first[0]:.3g} ms' if first else ''))
    if headline.process_bytes is not None:
        shown.append(('Process', f'{headline.process_bytes / 2 ** 20:,.0f} MiB', 'at most'))
    return shown


def _scatter(entries: Sequence[Entry]) -> Markup | None:
    """Draw accuracy against the model's time for a frame, of the runs that have both."""
    points = [(place, 100 * one.headline.accuracy, one.headline.frame_ms[0], one.name)
              for place, one in enumerate(entries, 1)
              if one.headline.accuracy is not None and one.headline.frame_ms]
    if not points:
        return None
    axes = Axes((0, 1.1 * max(cost for _, _, cost, _ in points)), (0, 105), 300,
                lambda high: ticks(0, high, 8), lambda v: f'{compact(v)} ms', '{:.0f} %'.format)
    return axes.draw('Accuracy against the time for a frame', *(
        part for place, share, cost, name in points for part in (
            axes.dot(cost, share, 'blue', f'{name}: {share:.0f} %, {cost:.3g} ms', 5),
            axes.name(cost, share, str(place)))))


@cache
def _environment() -> Environment:
    environment = Environment(loader=PackageLoader(__package__, 'pages'), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {'compact': compact, 'clock': clock}
    return environment


def _render(template: str, **fields: Any) -> str:
    """Fill in a page; what it may run and how it may look is told to the browser by hashes."""
    environment = _environment()
    style, script = (environment.loader.get_source(environment, name)[0]
                     for name in ('page.css', 'report.js'))
    return environment.get_template(template).render(
        style=Markup(style), script=Markup(script), policy=(
            f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
            f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"), **fields)


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _put(path: Path, page: str) -> Path:
    """Write a whole file or none."""
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        draft.write_text(page.replace('\0', '\N{REPLACEMENT CHARACTER}'), encoding='utf-8',
                         errors='replace')
        return draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
