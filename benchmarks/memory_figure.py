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
Draw what the memory held of a rendered drive, and what an answer at its end rests on.

    python -m benchmarks.memory_figure

Plays a drive into the bundled model, tells it facts on the way, then asks whatever can be asked
about what is no longer in view. Writes the figure of README.md, and the answers into
`docs/memory.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode, Question
from infmllm_ros.engine import Answer, holdings, load_model, make_policy, StreamingSession
from infmllm_ros.replay.interview import Interview
import numpy as np

from .pages import DOCS, markdown, save_figure, write_between

FRAMES, EVERY, SEED = 1200, 4, 0
PERIOD_NS = 500_000_000  # two frames a second
STRIP = 7  # thumbnails
RECENT, CHOSEN, EVIDENCE = (.20, .50, .85), (.95, .50, .10), 'tab:red'


@dataclass(frozen=True)
class Moment:
    """
    What was held after a frame.

    Parameters
    ----------
    frame : int
        Ordinal of the newest frame.
    held : list of (int, float, float)
        Ordinal of a frame of which a token is left; how many; how many of them were chosen to
        stay, as tokens behind them were evicted.
    """

    frame: int
    held: list[tuple[int, float, float]]


@dataclass(frozen=True)
class Asked:
    """A question at the end of the drive, and its answer."""

    question: Question
    answer: Answer

    @property
    def right(self) -> bool:
        """Tell whether the answer is that of the scene."""
        return self.answer.text.strip() == self.question.answer


@dataclass
class Drive:
    """A drive as the memory lived it."""

    moments: list[Moment]
    told: list[tuple[int, str]]
    asked: list[Asked]
    pictures: dict[int, np.ndarray]
    tokens: int


def watch(frames: int = FRAMES, every: int = EVERY, seed: int = SEED) -> Drive:
    """
    Play a drive to the bundled model and question it at the end.

    Parameters
    ----------
    frames : int
        How many of them.
    every : int
        After how many frames to look at what is held.
    seed : int
        Which drive, and what is told.
    """
    session = StreamingSession(
        load_model(MODEL, device='cpu'),
        make_policy('saddle', budget=MODEL_BUDGET, **MODEL_POLICY),
        max_question=32, max_answer=8)
    episode, interview = Episode('drive', seed, keys=0), Interview(seed, frames)
    drive = Drive([], [], [], {}, 0)
    for step in (next(episode) for _ in range(frames)):
        session.observe(step.frame, step.ordinal * PERIOD_NS)
        drive.pictures[step.ordinal] = step.frame
        text, _ = interview.go_on(episode)
        if text is not None:
            session.tell(text)
            drive.told.append((step.ordinal, text))
        if step.ordinal % every == every - 1:
            drive.moments.append(Moment(step.ordinal, [
                (one.frame.ordinal, one.tokens, one.old) for one in holdings(session)]))
    for question in episode.questions(('back', 'told', 'again')):
        drive.asked.append(Asked(question, session.answer(question.text, max_tokens=8)))
    drive.tokens = session.stats().tokens_seen
    return drive


def farthest(drive: Drive) -> Asked:
    """Choose the question about the oldest thing that was seen, right or wrong."""
    seen = [one for one in drive.asked
            if one.answer.evidence and all(kind == 'frame' for kind, _ in one.question.evidence)]
    return max(seen, key=lambda one: one.question.age_frames)


def table(drive: Drive) -> str:
    """Write questions and answers in Markdown."""
    return markdown(
        ('asked at the end', 'evidence from', 'answer', ''),
        [(one.question.text, f'{one.question.age_frames:,} frames ago', one.answer.text.strip(),
          'right' if one.right else f'wrong: {one.question.answer}') for one in drive.asked])


def _strip(axes: Sequence[Any], drive: Drive, chosen: Asked) -> None:
    """Show frames of the drive, and mark those that the answer rests on."""
    last = drive.moments[-1].frame
    best = {e.frame: e.weight for e in chosen.answer.evidence}
    marked = sorted(best, key=best.get)[-3:]
    even = np.linspace(0, last, STRIP).round().astype(int).tolist()
    for number in marked:  # each takes the place of the nearest
        even.remove(min(even, key=lambda other: abs(other - number)))
    for panel, number in zip(axes, sorted(even + marked), strict=True):
        panel.imshow(drive.pictures[number])
        panel.set(xticks=[], yticks=[])
        share = f'\n{best[number]:.0%} of the attention' if number in best else '\n'
        panel.set_xlabel(f'frame {number}{share}', fontsize=8)
        for spine in panel.spines.values():
            spine.set(color=EVIDENCE if number in best else '.7', lw=3 if number in best else 1)


def _line(axes: Any, drive: Drive, chosen: Asked) -> None:
    """Draw what is left of each frame, and lines from the question to its evidence."""
    now = drive.moments[-1]
    frames, tokens, old = (np.array(column) for column in zip(*now.held, strict=True))
    axes.bar(frames, tokens, 3, color=RECENT, label='the recent past')
    axes.bar(frames, old, 3, color=CHOSEN, label='older, chosen to stay')
    for frame, text in drive.told:
        axes.plot(frame, -.5, '^', color='tab:green', ms=6, clip_on=False,
                  label='a fact is told' if text == drive.told[0][1] else None)
    for one in chosen.answer.evidence:
        far = now.frame - one.frame
        place = np.linspace(0, np.pi, 60)
        axes.plot(one.frame + far * (1 + np.cos(place)) / 2, 5.4 + 2.6 * np.sin(place) * (
            far / now.frame) ** .5, color=EVIDENCE, lw=.4 + 4 * one.weight, clip_on=False)
    said = f'"{chosen.question.text}?"  "{chosen.answer.text.strip()}"'
    mark = 'right' if chosen.right else f'wrong, {chosen.question.answer}'
    axes.set_title(f'{said}  ({mark}; seen {chosen.question.age_frames:,} frames before)',
                   fontsize=11, color=EVIDENCE, pad=2)
    axes.set(xlim=(-8, now.frame + 8), ylim=(-.9, 8.4), yticks=(0, 5),
             ylabel='tokens left\nof a frame')
    axes.legend(loc='upper center', ncols=3, fontsize=8, frameon=False, bbox_to_anchor=(.5, .62))
    axes.spines[['top', 'right']].set_visible(False)


def _map(axes: Any, drive: Drive) -> None:
    """Draw for each moment what was held then."""
    last = drive.moments[-1].frame
    rows = 300
    picture = np.ones((rows, len(drive.moments), 3))
    for column, moment in enumerate(drive.moments):
        for frame, tokens, old in moment.held:
            row = min(rows - 1, frame * rows // (last + 1))
            colour = np.array(CHOSEN if old > tokens / 2 else RECENT)
            shade = .4 + .6 * min(1., tokens / 5)
            picture[row, column] = np.minimum(picture[row, column], 1 - shade * (1 - colour))
    axes.imshow(picture, origin='lower', extent=(0, last, 0, last), aspect='auto',
                interpolation='nearest')
    axes.set(xlim=(-8, last + 8), xlabel='the drive, in frames', ylabel='frames that\nwere held')
    axes.spines[['top', 'right']].set_visible(False)


def draw(drive: Drive) -> Any:
    """Draw frames, the time line at the end, and how it came to be."""
    from matplotlib.figure import Figure  # no window, no global state
    chosen = farthest(drive)
    figure = Figure(figsize=(9, 6.6), layout='constrained')
    strip, line, chart = figure.subfigures(3, 1, height_ratios=(1.5, 2.1, 3))
    _strip(strip.subplots(1, STRIP), drive, chosen)
    _line(line.subplots(), drive, chosen)
    _map(chart.subplots(), drive)
    return figure


def main() -> None:
    """Write the figure and the answers."""
    drive = watch()
    save_figure(draw(drive), DOCS / 'figures' / 'memory_timeline.png')
    right = sum(one.right for one in drive.asked)
    write_between(DOCS / 'memory.md', 'answers', (
        f'{right} of {len(drive.asked)} answers are right. {FRAMES:,} frames and '
        f'{len(drive.told)} told facts were {drive.tokens:,} tokens; {MODEL_BUDGET} are held.'
        f'\n\n{table(drive)}'))
    print(table(drive))


if __name__ == '__main__':
    main()
