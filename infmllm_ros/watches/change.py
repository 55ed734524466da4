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

"""When the answer of a watch has changed, and has not just wavered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """From which choice to which, by index; `previous` is -1 when nothing was known yet."""

    previous: int
    choice: int


class ChangeDetector:
    """
    Tells a change from noise.

    With p the probabilities of an answer and c the present choice, the best choice b takes its
    place when, in `hold` answers in a row,

        p[b] >= threshold    and    p[b] - p[c] >= hysteresis    (the latter once c is known).

    With two choices that is a Schmitt trigger, which switches at (1 + hysteresis) / 2.

    Parameters
    ----------
    threshold : float
        Least probability of a new choice, 0 to 1.
    hysteresis : float
        How much more probable than the present one it must be, 0 to 1.
    hold : int
        [answers] in a row in which the same new choice must be so.
    """

    def __init__(self, threshold: float = 0.5, hysteresis: float = 0.0, hold: int = 1):
        """Know nothing yet."""
        self.threshold, self.hysteresis, self.hold = threshold, hysteresis, hold
        self.choice = -1  # the present one; -1: not known yet
        self._new, self._held = -1, 0  # which one may replace it, and for how many answers

    def __call__(self, probabilities: Sequence[float]) -> Change | None:
        """Take an answer's probabilities, one for each choice; return the change, if any."""
        # of equal ones the present choice is the best
        best = max(range(len(probabilities)), key=lambda i: (probabilities[i], i == self.choice))
        sure = probabilities[best] >= self.threshold
        if self.choice >= 0:
            sure &= probabilities[best] - probabilities[self.choice] >= self.hysteresis
        if best == self.choice or not sure:
            self._new = -1
            return None
        self._held = self._held + 1 if best == self._new else 1
        self._new = best
        if self._held < self.hold:
            return None
        change = Change(self.choice, best)
        self.choice, self._new = best, -1
        return change
