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

"""What to do when a pass needs more memory than there is. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic
import traceback

from infmllm_ros.engine import EngineError, fit_budget, StreamingSession
from infmllm_ros.node.loading import relieve
import torch

DROP, SHRINK = MODES = ('drop', 'shrink')
STEP = 0.75  # of the budget is left each time that it is lowered
LASTING = 1.0  # [s] if memory lacks again and again for so long, what is new does not hold it
PAUSE = 10.0  # [s] between two looks at everything


def out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, of a GPU or the machine; if so, let go of what was at work."""
    short = (isinstance(error, (torch.OutOfMemoryError, MemoryError))
             or 'DefaultCPUAllocator' in str(error))
    if short:
        traceback.clear_frames(error.__traceback__)  # tensors of the pass that failed
    return short


class Relief:
    """
    Gives memory back after a pass has run out of it; what the pass was for is lost already.

    The buffers of the memory are allocated once and keep their size. What a lower budget spares
    is what a pass takes beside them, as it attends to fewer tokens.

    Parameters
    ----------
    mode : str
        One of `MODES`. 'drop': nothing more; 'shrink': lower the budget, too.
    floor : float
        [0..1] Share of the first budget that it is never lowered below.
    clock : callable
        Monotonic time [s].

    Attributes
    ----------
    times : int
        How often memory ran out.
    """

    def __init__(self, mode: str = DROP, floor: float = 0.25,
                 clock: Callable[[], float] = monotonic):
        """Count from 0."""
        self.mode, self.floor, self._clock = mode, floor, clock
        self.times = 0
        self._most: int | None = None  # [tokens] the budget at first
        # [s] when it began to lack, when it last did, when everything was last looked at
        self._began = self._given = self._searched = -inf

    def give(self, session: StreamingSession | None) -> str:
        """
        Free what can be freed, once nothing refers to the failed pass any more.

        Returns
        -------
        str
            What was done, and what else could be: for the log and for who asked.
        """
        self.times += 1
        now = self._clock()
        if now - self._given > LASTING:
            self._began = now
        whole = now - self._began >= LASTING and now - self._searched >= PAUSE
        relieve(whole)
        self._given, self._searched = now, now if whole else self._searched
        remedy = ('give the node fewer max_question_tokens, tokens_per_frame or chunk_tokens, a '
                  'smaller budget or model, or more memory')
        if self.mode == DROP or session is None:
            return f'out of memory: {remedy}, or set on_out_of_memory to shrink'
        budget = session.stats().budget
        self._most = max(self._most or 0, budget)
        lower = max(int(budget * STEP), int(self._most * self.floor))
        try:
            fit_budget(session, lower)
            session.set_budget(lower)
        except EngineError as error:
            return f'out of memory, and the budget stays at {budget} tokens ({error}): {remedy}'
        if lower == budget:
            return (f'out of memory, and the budget of {budget} tokens is at shrink_floor '
                    f'already: {remedy}')
        return (f'out of memory: the budget was lowered from {budget} to {lower} tokens; if this '
                f'goes on, {remedy}')
