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

"""What a policy costs: a frame and a question, beside all others in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from infmllm_ros.engine import StreamingModel

from .exam import enter, Moment, Plan, Setting, SharedEyes
from .timing import timed

ROUNDS = 60     # frames that are timed, after as many as fill the budget
ASK_EVERY = 5   # of the frames that are timed


@dataclass(frozen=True)
class Cost:
    """Median milliseconds of a frame (vision apart) and of a question with its answer."""

    frame: float
    question: float


def cost(model: StreamingModel, settings: Sequence[Setting], paper: Sequence[Moment],
         rounds: int = ROUNDS) -> dict[Setting, Cost]:
    """
    Time every setting on the same frames, in turns, once its memory is full.

    Parameters
    ----------
    model : StreamingModel
    settings : sequence of Setting
    paper : sequence of Moment
        At least as many as fill the largest budget and `rounds` more; it starts anew if fewer.
    rounds : int
        Frames that are timed.
    """
    eyes = SharedEyes(model.adapter)
    sessions = {setting: enter(model, setting, Plan(1)) for setting in settings}
    for session in sessions.values():
        session.adapter = eyes
    question = next(ask.text for moment in paper for ask in moment.asks)
    frames: dict[Setting, list[float]] = {setting: [] for setting in settings}
    answers: dict[Setting, list[float]] = {setting: [] for setting in settings}
    full = max(setting.budget for setting in settings) // (model.adapter.frame_tokens or 1) + 1
    for number in range(full + rounds):
        image = paper[number % len(paper)].image
        eyes.encode(model.model, image, float(number), '')      # nobody's time
        first = number % len(settings)
        for setting in (*settings[first:], *settings[:first]):
            session = sessions[setting]
            spent = timed(partial(session.observe, image, number * 10**9), model.device)
            if number >= full:
                frames[setting].append(spent.wall)
                if number % ASK_EVERY == 0:
                    answers[setting].append(timed(partial(
                        session.answer, question, max_tokens=4, remember=False),
                        model.device).wall)
    return {setting: Cost(1e3 * median(frames[setting]), 1e3 * median(answers[setting]))
            for setting in settings}
