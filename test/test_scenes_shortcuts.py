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

"""The scenes leave no short cut: answers cannot be guessed from words, shares or single pixels."""

from collections import Counter, defaultdict

from infmllm_ros.bundled.scenes import KINDS, NONE, TOPICS
from infmllm_ros.bundled.scenes.words import LIGHTS
import numpy as np
import pytest
from test_scenes import SCENES, steps


@pytest.mark.parametrize('kind', SCENES)
@pytest.mark.parametrize('pace', [1, .25])
def test_no_answer_is_much_more_frequent_than_the_others(kind, pace):
    answers = defaultdict(Counter)
    for episode, _ in steps(kind, range(80), 100, render=False, pace=pace):
        question = episode.ask()
        if question is not None:
            answers[question.topic][question.answer] += 1
    assert set(answers) == {topic.name for topic in TOPICS[kind]} | {'told'}
    for topic, counts in answers.items():
        most = counts.most_common(1)[0][1] / sum(counts.values())
        assert most < (.45 if pace == 1 else .55), (topic, counts)


@pytest.mark.parametrize('kind', SCENES)
def test_the_words_of_a_question_do_not_tell_its_answer(kind):
    known, hits = defaultdict(Counter), defaultdict(list)
    for seed in range(120):
        for episode, _ in steps(kind, (seed,), 70, render=False):
            question = episode.ask()
            if question is None:
                continue
            if seed < 60:
                known[question.text][question.answer] += 1
            elif question.text in known:
                guess = known[question.text].most_common(1)[0][0]
                hits[question.kind].append(guess == question.answer)
    assert set(hits) == set(KINDS)
    assert np.mean([hit for found in hits.values() for hit in found]) < .35
    for kind_of_question in ('now', 'back', 'told', 'again'):
        assert np.mean(hits[kind_of_question]) < .4, kind_of_question


def test_no_single_pixel_tells_the_light():
    def look(seeds):
        frames, lights = [], []
        for _, step in steps('drive', seeds, 16):
            if step.ordinal % 4 == 3:
                frames.append(step.frame.reshape(-1, 3))
                lights.append((*LIGHTS, NONE).index(step.truth['light']))
        pixels = np.array(frames, np.float32).transpose(1, 0, 2) / 255
        return np.concatenate([pixels, np.ones_like(pixels[..., :1])], 2), np.array(lights)

    (known, lights), (new, truth) = look(range(70)), look(range(500, 570))
    weight = 1 / np.bincount(lights)[lights]             # each state counts as much
    moments = np.einsum('pfc,f,pfd->pcd', known, weight, known) + 1e-5 * np.eye(4)
    target = np.einsum('pfc,f,fk->pck', known, weight, np.eye(4)[lights])
    guess = (new @ np.linalg.solve(moments, target).astype(np.float32)).argmax(2)
    score = np.mean([(guess[:, truth == k] == k).mean(1) for k in range(4)], 0)
    assert score.max() < .5, 'chance is .25'

    # The best threshold on one channel of one pixel, for each lamp against all else.
    levels = np.linspace(0, 1, 17, dtype=np.float32)[1:-1]
    for k in range(4):
        over = [np.array([(part[..., :3] > level)[:, which == k].mean(1)
                          - (part[..., :3] > level)[:, which != k].mean(1) for level in levels])
                for part, which in ((known, lights), (new, truth))]
        best = np.unravel_index(np.abs(over[0]).argmax(), over[0].shape)
        assert abs(over[1][best]) < .4, '1 would be perfect, 0 is chance'
