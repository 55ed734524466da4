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

"""The picture of the memory shows what was held, and its page says what it shows."""

from pathlib import Path
import re

from infmllm_ros.bundled import MODEL_BUDGET
import pytest

pytest.importorskip('matplotlib', reason='draws figures')
from benchmarks.memory_figure import DOCS, draw, farthest, FRAMES, watch  # noqa: E402, I100

FRAME_TOKENS = 5  # of the bundled model


@pytest.fixture(scope='module')
def drive():
    """Play a short drive: longer than the budget holds."""
    return watch(frames=60, every=20)


def test_what_is_drawn_fits_the_budget(drive):
    assert [moment.frame for moment in drive.moments] == [19, 39, 59]
    for moment in drive.moments:
        frames = [frame for frame, _, _ in moment.held]
        assert frames == sorted(set(frames)) and frames[-1] == moment.frame
        assert sum(tokens for _, tokens, _ in moment.held) <= MODEL_BUDGET
        assert all(0 <= old <= tokens <= FRAME_TOKENS for _, tokens, old in moment.held)
        assert moment.held[-1][1:] == (FRAME_TOKENS, 0)  # the newest is whole
    assert not any(old for _, _, old in drive.moments[0].held)  # nothing has left yet
    assert any(old for _, _, old in drive.moments[-1].held)


def test_the_figure_is_about_the_oldest_sight(drive):
    chosen = farthest(drive)
    ages = [one.question.age_frames for one in drive.asked
            if one.question.evidence[0][0] == 'frame']
    assert chosen.question.age_frames == max(ages)
    titles = {axes.get_title() for part in draw(drive).subfigs for axes in part.axes}
    assert any(chosen.question.text in title for title in titles)


def test_the_page_counts_its_answers():
    page = (DOCS / 'memory.md').read_text()
    right, asked, frames = re.search(r'(\d+) of (\d+) answers are right. ([\d,]+) frames',
                                     page).groups()
    marks = re.findall(r'^\| .* frames ago \| .* \| (right|wrong: \w+) \|$', page, re.M)
    assert (marks.count('right'), len(marks)) == (int(right), int(asked))
    assert int(frames.replace(',', '')) == FRAMES
    assert Path(DOCS / 'figures/memory_timeline.png').exists()
