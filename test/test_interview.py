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

"""The interview of the demo asks what has an answer, and knows it for every frame."""

from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.replay.interview import Interview, KINDS
import pytest

FRAMES = 600


def hold(seed):
    """Hold one interview: what was told and asked, by frame, and the interview."""
    episode, interview = Episode('drive', seed, keys=0, render=False), Interview(seed)
    told, asked = {}, {}
    for frame in range(FRAMES):
        next(episode)
        text, question = interview.go_on(episode)
        if text is not None:
            told[frame] = text
        if question is not None:
            asked[frame] = question
            assert question.answer == interview.right_answer(question, frame)
    return told, asked, interview


@pytest.mark.parametrize('seed', range(8))
def test_every_question_gets_asked_and_told_facts_are_asked_long_after(seed):
    told, asked, interview = hold(seed)
    assert len(asked) == len(KINDS) == len(interview.questions)
    words = ' '.join(told.values())
    facts = [(frame, question) for frame, question in asked.items()
             if question.name.startswith('told:') and question.kind != 'no']
    assert len(facts) >= 3
    for frame, question in facts:
        assert question.answer in words
        said = max(at for at, text in told.items() if question.name[5:] in text and at < frame)
        assert told[said].endswith(question.answer)
    assert max(question.age_frames for _, question in facts) >= 100
    assert sum(question.answer == 'none' for question in asked.values()) < len(KINDS) / 2


def test_what_is_right_depends_on_the_frame_that_was_seen():
    _, asked, interview = hold(3)
    now = [question for question in asked.values() if question.kind == 'now']
    answers = {interview.right_answer(now[0], frame) for frame in range(FRAMES)}
    assert len(answers) > 1


def test_interviews_differ_by_their_seed():
    assert hold(1)[0] != hold(2)[0] and hold(1)[:2] == hold(1)[:2]
