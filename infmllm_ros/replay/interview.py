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

"""What to tell and to ask during a rendered world, and which answers are right."""

from __future__ import annotations

import random

from infmllm_ros.bundled.scenes import Episode, KEYS, Question
from infmllm_ros.bundled.scenes.words import TOPICS

FRAMES = 600  # of the drive that these are for; another length stretches them
TELLINGS = (20, 40, 60)  # [frames] when a new fact is told
CHANGE = 300  # [frames] when the first of them gets another value
FIRST, GAP = 110, 40  # [frames] of the first question, and between two
KINDS = (('now',), ('told',), ('back',), ('no',), ('now',), ('told',), ('back',), ('now',),
         ('told', 'again'), ('no',), ('back',), ('told', 'again'))
MIN_AGE = 5  # [frames] a remembered sight is asked about after that long, at least


class Interview:
    """
    Tells and asks as a drive goes on; all of it drawn from the seed.

    Parameters
    ----------
    seed : int
        Of what is told.
    frames : int
        How long it goes on.

    Attributes
    ----------
    questions : list of Question
        What has been asked.
    """

    def __init__(self, seed: int = 0, frames: int = FRAMES) -> None:
        self._dice = random.Random(seed)
        stretch = frames / FRAMES
        self._tellings = [round(frame * stretch) for frame in TELLINGS]
        self._change, self._first, self._gap = CHANGE * stretch, FIRST * stretch, GAP * stretch
        self._changed = False
        self._keys = self._dice.sample(sorted(KEYS), len(TELLINGS))
        self._values: dict[str, str] = {}
        self._truth: list[dict[str, str | None]] = []
        self.questions: list[Question] = []

    def go_on(self, episode: Episode) -> tuple[str | None, Question | None]:
        """
        Take note of a new frame.

        Parameters
        ----------
        episode : Episode
            At the new frame; all frames must be shown, one after the other.

        Returns
        -------
        str or None
            What to tell now.
        Question or None
            What to ask now.
        """
        text = question = None
        frame = episode.ordinal
        if frame in self._tellings:
            text = self._tell(episode, self._keys[self._tellings.index(frame)])
        elif frame >= self._change and not self._changed:
            self._changed = True
            text = self._tell(episode, self._keys[0])
        done = len(self.questions)
        if done < len(KINDS) and frame >= self._first + done * self._gap:
            question = episode.ask(KINDS[done], min_age=MIN_AGE)
            if question is not None:
                self.questions.append(question)
        self._truth.append({name: episode.answer(name) for name in self._names(episode.kind)})
        return text, question

    def right_answer(self, question: Question, frame: int) -> str:
        """Return the right answer to a question from someone who saw frame 0, 1, ... last."""
        return self._truth[frame].get(question.name) or question.answer

    def _tell(self, episode: Episode, key: str) -> str:
        values = [value for value in KEYS[key] if value != self._values.get(key)]
        self._values[key] = self._dice.choice(values)
        return episode.tell(key, self._values[key]).text

    @staticmethod
    def _names(kind: str) -> list[str]:
        """List the names of all questions of a world."""
        return [*(f'told:{key}' for key in KEYS),
                *(name for topic in TOPICS[kind] for name in topic.names)]
