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

"""The numbers that sum up a run, from its records: for a report, and for tables of many runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from infmllm_ros.replay.records import Answer, End, Frame, Problem, Record, Run, Stats
import numpy as np

COMPLETE, EARLY, BROKEN = 'complete', 'ended early', 'broken off'
PARTS = ('vision_ms', 'prefill_ms', 'evict_ms')
"""What the model's time for a frame is made of, as statistics name it."""


@dataclass(frozen=True)
class Headline:
    """
    A run in numbers; what was not recorded is None.

    Parameters
    ----------
    run : Run
        Its first line.
    state : str
        'complete', 'ended early' (its last line says why), or 'broken off' (there is none).
    seconds : float
        From the first frame to the last, in the source's time.
    frames : dict of str to int
        How many of each fate.
    answers, judged, right : int
        Of questions; watches are not counted.
    turns : int
        Of watches.
    latency_ms, first_ms, frame_ms : (float, float) or None
        Median and 95th percentile, of answers to questions, their first token, and the model's
        time for a frame.
    tokens, tokens_seen, process_bytes : int or None
        Most that were held, all that went by, and the most memory of the process.
    fps, speed : float or None
        Frames a second of real time, and source time over real time.
    problems : tuple of str
        What went wrong; why the run ended before its source did comes last.
    """

    run: Run
    state: str
    seconds: float
    frames: dict[str, int]
    answers: int
    judged: int
    right: int
    turns: int
    latency_ms: tuple[float, float] | None
    first_ms: tuple[float, float] | None
    frame_ms: tuple[float, float] | None
    tokens: int | None
    tokens_seen: int | None
    process_bytes: int | None
    fps: float | None
    speed: float | None
    problems: tuple[str, ...]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Headline:
        """
        Sum up the records of a run.

        Raises
        ------
        ValueError
            The first is not the line that every run begins with.
        """
        records = list(records)
        if not records or not isinstance(records[0], Run):
            raise ValueError('the records do not begin with what is replayed: replay again')
        frames, stats, answers, problems = (
            [record for record in records if isinstance(record, kind)]
            for kind in (Frame, Stats, Answer, Problem))
        asked = [answer for answer in answers if not answer.watch]
        end = records[-1] if isinstance(records[-1], End) else None
        told = end.measured if end else {}
        judged = [answer for answer in asked if answer.right is not None]
        stamps = [frame.stamp_ns for frame in frames]
        return cls(
            run=records[0],
            state=BROKEN if end is None else EARLY if end.problem else COMPLETE,
            seconds=(max(stamps) - min(stamps)) / 1e9 if stamps else 0.0,
            frames=dict(Counter(frame.fate for frame in frames)),
            answers=len(asked), judged=len(judged),
            right=sum(bool(answer.right) for answer in judged),
            turns=len(answers) - len(asked),
            latency_ms=spread([1e3 * value for value in measured(asked, 'latency')]),
            first_ms=spread([1e3 * v for v in measured(asked, 'time_to_first_token')]),
            frame_ms=spread([frame_ms(one) for one in stats if one.measured]),
            tokens=max((one.tokens for one in stats), default=None),
            tokens_seen=stats[-1].tokens_seen if stats else None,
            process_bytes=max(measured(stats, 'process_bytes'), default=None),
            fps=told.get('frames_per_second'), speed=told.get('speed'),
            problems=(*(problem.text for problem in problems),
                      *([end.problem] if end and end.problem else [])))

    @property
    def accuracy(self) -> float | None:
        """Share of the judged answers that is right; None if none was judged."""
        return self.right / self.judged if self.judged else None


def measured(records: Iterable[Record], name: str) -> list[Any]:
    """List what was measured under a name, of those records that have it."""
    return [record.measured[name] for record in records if name in record.measured]


def frame_ms(stats: Stats) -> float:
    """Give the model's time for the newest frame [ms]."""
    return sum(stats.measured.get(part, 0.0) for part in PARTS)


def spread(values: Sequence[float]) -> tuple[float, float] | None:
    """Give median and 95th percentile; None of nothing."""
    return tuple(np.percentile(values, (50, 95)).tolist()) if values else None
