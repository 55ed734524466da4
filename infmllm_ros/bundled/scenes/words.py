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
The words of the scenes: what can be asked, what can be told, and every possible answer.

All is lower case without punctuation, and the vocabulary is closed (`VOCABULARY`).
"""

from __future__ import annotations

import dataclasses
from itertools import combinations

NONE = 'none'
COLOURS = ('red', 'green', 'blue', 'yellow', 'purple', 'white')
SHAPES = ('cube', 'ball', 'cup')
OBJECTS = tuple(f'{colour} {shape}' for colour in COLOURS for shape in SHAPES)
PLACES = ('left', 'middle', 'right')
LIGHTS = ('red', 'yellow', 'green')
NUMBERS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
THINGS = ('tree', 'house', 'person', 'rock', 'fence')
AHEAD = ('car', 'truck', 'person', 'barrier')
SIGHTS = ('light', 'sign', 'cones', 'vehicle')
NAMES = ('anna', 'ben', 'carla', 'david', 'emma', 'felix', 'grace', 'hugo', 'iris', 'jonas',
         'karin', 'leo')
ROOMS = ('kitchen', 'garage', 'office', 'library', 'cellar', 'workshop', 'garden', 'lobby',
         'pantry', 'attic', 'hall', 'balcony')
SECRETS = ('river', 'mountain', 'apple', 'silver', 'window', 'thunder', 'candle', 'pepper',
           'anchor', 'violin', 'marble', 'falcon')


def count_word(count: int) -> str:
    """Return the word for a number of things; no thing is 'none'."""
    return NUMBERS[count] if count else NONE


@dataclasses.dataclass(frozen=True)
class Topic:
    """
    A question that a world can answer, in several wordings.

    Attributes
    ----------
    name
        Of the fact; with members, that of a fact is ``name:member``.
    kind
        'now' or 'back'.
    texts
        The wordings; ``{}`` stands for the member.
    choices
        The answers that are possible.
    members
        What can be asked about with these wordings.
    none_rate
        How often a question whose answer is 'none' is to be asked, so that 'none' is about as
        frequent as other answers (see ``Question.weight``).
    never
        Whether the answer is 'none' (kind 'no') before the fact was ever shown; else it is not
        asked before.
    """

    name: str
    kind: str
    texts: tuple[str, ...]
    choices: tuple[str, ...]
    members: tuple[str, ...] = ('',)
    none_rate: float = 1
    never: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """List the names of its facts, in the order of the members."""
        return tuple(f'{self.name}:{member}' if member else self.name for member in self.members)


TOPICS: dict[str, tuple[Topic, ...]] = {
    'drive': (
        Topic('light', 'now', ('what colour is the light', 'what does the traffic light show',
                               'which light is on'), (*LIGHTS, NONE), none_rate=.3),
        Topic('sign', 'now', ('which digit is on the sign', 'what does the sign say',
                              'what number is on the sign'), (*NUMBERS, NONE), none_rate=.08),
        Topic('cones', 'now', ('how many cones are there', 'how many cones do you see'),
              (*NUMBERS[1:6], NONE), none_rate=.06),
        Topic('ahead', 'now', ('what is ahead', 'what is in front of us'), (*AHEAD, NONE),
              none_rate=.3),
        Topic('vehicle', 'now', ('what colour is the vehicle ahead',
                                 'which colour does the vehicle ahead have'), (*COLOURS, NONE),
              none_rate=.08),
        Topic('left', 'now', ('what is on the left', 'what stands on the left'), (*THINGS, NONE),
              none_rate=.3),
        Topic('right', 'now', ('what is on the right', 'what stands on the right'),
              (*THINGS, NONE), none_rate=.3),
        Topic('light_last', 'back', ('what colour was the last light',
                                     'what did the last traffic light show'), (*LIGHTS, NONE)),
        Topic('sign_last', 'back', ('which digit was on the last sign',
                                    'what did the last sign say'), (*NUMBERS, NONE)),
        Topic('vehicle_last', 'back', ('what colour was the last vehicle',
                                       'which colour did the last vehicle have'),
              (*COLOURS, NONE)),
        Topic('cones_last', 'back', ('how many cones were in the last group',
                                     'how many cones were there last time'),
              (*NUMBERS[1:6], NONE)),
        Topic('cones_since', 'back', ('how many cones so far since the last sign',
                                      'how many cones did we pass since the last sign'),
              (*NUMBERS[1:], NONE), none_rate=.25, never=False),
        Topic('first', 'back', ('what came first', 'what did we see first'), (*SIGHTS, NONE)),
        Topic('order', 'back', ('what was seen last the {} or the {}',
                                'what did we see last the {} or the {}'),
              SIGHTS, members=tuple('/'.join(pair) for pair in combinations(SIGHTS, 2)),
              never=False),
    ),
    'bench': (
        Topic('hold', 'now', ('what does the gripper hold', 'what is in the gripper'),
              (*OBJECTS, NONE), none_rate=.1),
        Topic('gripper', 'now', ('what is the gripper doing', 'how is the gripper'),
              ('open', 'closed', 'holding', NONE)),
        Topic('gripper_at', 'now', ('where is the gripper', 'where is the gripper now'),
              (*PLACES, NONE)),
        Topic('left', 'now', ('what is on the left', 'what stands on the left'),
              (*OBJECTS, NONE), none_rate=.1),
        Topic('middle', 'now', ('what is in the middle', 'what stands in the middle'),
              (*OBJECTS, NONE), none_rate=.1),
        Topic('right', 'now', ('what is on the right', 'what stands on the right'),
              (*OBJECTS, NONE), none_rate=.1),
        Topic('count', 'now', ('how many things are on the table', 'how many things do you see'),
              (*NUMBERS[1:4], NONE)),
        Topic('where', 'now', ('where is the {}', 'where is the {} now'),
              (*PLACES, 'gripper', NONE), members=OBJECTS, none_rate=.03),
        Topic('put', 'back', ('where was the {} put', 'where did the {} stand'),
              (*PLACES, NONE), members=OBJECTS, none_rate=.1),
        Topic('held', 'back', ('what was held before', 'what did the gripper hold before'),
              (*OBJECTS, NONE)),
        Topic('colour_last', 'back', ('what colour was the last {} the gripper held',
                                      'which colour had the last {} in the gripper'),
              (*COLOURS, NONE), members=SHAPES),
        Topic('taken', 'back', ('what was taken away', 'what was taken away last'),
              (*OBJECTS, NONE), none_rate=.4),
        Topic('first', 'back', ('what came first', 'what was put first'), (*OBJECTS, NONE)),
    ),
}

# What can be told: key -> its possible values. Two keys share each list, so that an answer needs
# the key and not only the sort of value.
KEYS: dict[str, tuple[str, ...]] = {
    'target': OBJECTS, 'spare': OBJECTS,
    'code': NUMBERS, 'gate': NUMBERS,
    'operator': NAMES, 'visitor': NAMES,
    'base': ROOMS, 'dock': ROOMS,
    'password': SECRETS, 'signal': SECRETS,
}
TELLS = ('the {} is {}', 'remember the {} is {}', 'from now on the {} is {}')
TOLD_QUESTIONS = ('what is the {}', 'tell me the {}', 'which {} were you told')
_ARTICLE = (OBJECTS, ROOMS)


def tell_text(key: str, value: str, wording: int) -> str:
    """Return the sentence that tells a fact, in one of the wordings (any number will do)."""
    said = f'the {value}' if KEYS[key] in _ARTICLE else value
    return TELLS[wording % len(TELLS)].format(key, said)


def _all_words() -> tuple[str, ...]:
    """Return every word of every question, telling and answer, sorted."""
    texts = [NONE, 'the', *KEYS, *(value for values in KEYS.values() for value in values),
             *(text.replace('{}', '') for text in (*TELLS, *TOLD_QUESTIONS))]
    for topics in TOPICS.values():
        for topic in topics:
            texts += [text.replace('{}', '') for text in topic.texts]
            texts += [*topic.choices, *(member.replace('/', ' ') for member in topic.members)]
    return tuple(sorted({word for text in texts for word in text.split()}))


VOCABULARY: tuple[str, ...] = _all_words()
