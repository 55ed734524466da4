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
Time the first right answer after each fault that the node gets over, beside that without a fault.

    python -m benchmarks.recovery [--minutes 12] [--seed 0] [--page docs/reliability.md] [--again]

The faults are those of `benchmarks.soak`. When one is over, the next image is waited for, and then
the colour of the traffic light asked for until the answer is right for a frame sent since. Before
each fault the same is done without one. The result is written to benchmarks/recovery.json, and
from it the section Recovery of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import sys
import textwrap
import time
from typing import Any

import numpy as np
import torch

from .pages import markdown
from .soak import RATE, Soak, take
from .timing import processor

RESULT = Path(__file__).with_suffix('.json')
CALM = 'none'  # the kind of fault of the questions before which there was none
# So often that each kind comes about as often as the others: `order` has six, `hang` two.
ACTS = (*('order',) * 6, *('hang',) * 2, 'images', 'silence', 'burst', 'crowd', 'cancel', 'reset',
        'pause')
WHOLE = 1000  # [ms] in a second


class Recovery(Soak):
    """A soak that times how soon all is well again."""

    def __init__(self, *arguments: Any):
        """Begin as a soak does."""
        robot = arguments[0]
        self.begun = robot._stamp
        super().__init__(*arguments)
        self.times: dict[str, list[tuple[float, float, int]]] = {CALM: []}

    def order(self) -> str:
        """Have the model fail; it is over when who asked has the reply."""
        kind = super().order()
        self.reply(self.sent[-1])
        return kind

    def crowd(self) -> str:
        """Ask too much; it is over when each has its reply."""
        kind = super().crowd()
        for asked in self.sent[-50:]:
            self.reply(asked)
        return kind

    def measure(self, kind: str) -> None:
        """Ask what is seen, from now on, until the answer is right."""
        over, shown, asks = time.monotonic(), self.shown, 0
        stamp = self.robot._stamp
        while self.shown == shown:
            time.sleep(0.002)
        asked, right = time.monotonic(), False
        while not right:
            asks += 1
            answer = self.reply(self.ask('what colour is the light'))
            seen = answer.header.stamp.sec * 10**9 + answer.header.stamp.nanosec
            frame = (seen - self.begun) // 10**8 - 1  # the robot's stamps are 100 ms apart
            right = seen > stamp and (answer.text.strip()
                                      == self.steps[frame % len(self.steps)].truth['light'])
        self.times.setdefault(kind, []).append((asked - over, time.monotonic() - asked, asks))

    def run(self, seconds: float, names: Sequence[str]) -> dict[str, Any]:
        """Go through faults, by the names of the methods, for so long; return the result."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            time.sleep(self.random.expovariate(1.0))
            self.measure(CALM)
            self.measure(getattr(self, self.random.choice(names))())
        self.finish()
        return {'minutes': (time.monotonic() - begun) / 60, 'machine': processor(),
                'torch': torch.__version__, 'tracebacks': self.process.log.count('Traceback'),
                'times_s': {kind: [(round(wait, 4), round(answer, 4), asks)
                                   for wait, answer, asks in times]
                            for kind, times in sorted(self.times.items())}}


def bound(result: dict[str, Any]) -> tuple[float, float, float]:
    """Take median and 95th percentile of the answers without a fault, and the bound [s]."""
    calm = [answer for _, answer, _ in result['times_s'][CALM]]
    median, most = np.percentile(calm, (50, 95))
    return float(median), float(most), 1 / RATE + float(most)


def table(result: dict[str, Any]) -> str:
    """Write the section of the page."""
    median, most, limit = bound(result)
    about = textwrap.fill(
        f'`python -m benchmarks.recovery --minutes {result["minutes"]:.0f} --seed '
        f'{result["seed"]}`, one core of {result["machine"]} shared with other work, torch '
        f'{result["torch"]}. A frame period is {WHOLE / RATE:.0f} ms. The normal latency, of the '
        f'same question where no fault was before it, is {WHOLE * median:.0f} ms in the median '
        f'and {WHOLE * most:.0f} ms at the 95th percentile; the latter is meant in the bound, '
        f'{WHOLE * limit:.0f} ms.', 118, break_on_hyphens=False)

    def row(kind: str) -> list[object]:
        waits, answers, asks = np.array(result['times_s'][kind]).T
        whole = waits + answers
        return [kind, len(whole), *(f'{WHOLE * value:.0f}' for value in (
            np.median(waits), np.median(answers), *np.percentile(whole, (50, 95)), whole.max())),
            int(asks.sum() - len(asks)), f'{(whole <= limit).sum()} of {len(whole)}']

    kinds = [CALM, *(kind for kind in result['times_s'] if kind != CALM)]
    return about + '\n\n' + markdown(
        ('fault', 'times', 'wait for an image, median', 'answer, median', 'both, median',
         '95th percentile', 'worst', 'asked again', 'within the bound'), map(row, kinds))


def main() -> int:
    """Run, or only write the page from the last result; 0 if the node ended well."""
    result = take(__doc__.splitlines()[1], 12.0, RESULT, table, ACTS, Recovery)
    return int(bool(result['status'] or result['tracebacks']))


if __name__ == '__main__':
    sys.exit(main())
