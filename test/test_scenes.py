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

"""The scenes: the same everywhere, and true to their own truth."""

from collections import Counter, defaultdict
import copy
from itertools import islice
import subprocess
import sys
import zlib

from infmllm_ros.bundled.scenes import Episode, KEYS, NONE, TOPICS, VOCABULARY
from infmllm_ros.bundled.scenes.render import _glyph, PAINT
from infmllm_ros.bundled.scenes.words import LIGHTS, NUMBERS, PLACES
import numpy as np
import pytest

SCENES = tuple(TOPICS)
CRCS = {'drive': 2086779239, 'bench': 3007199841}


def cut(frame, box, inner=1.):
    """Return the pixels of the middle of a box, as far as it is in view."""
    x0, y0, x1, y1 = box
    cx, cy, rx, ry = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2 * inner, (y1 - y0) / 2 * inner
    edges = [min(max(round(v * len(frame)), 0), len(frame)) for v in (cx - rx, cx + rx,
                                                                      cy - ry, cy + ry)]
    return frame[edges[2]:max(edges[2] + 1, edges[3]), edges[0]:max(edges[0] + 1, edges[1])]


def nearest_colour(patch):
    """Return the name of the paint that most of the patch looks like, whatever the light."""
    names = list(PAINT)
    pixels = patch.reshape(-1, 3).astype(float)
    paints = np.array([PAINT[name] for name in names], float)
    # A paint under any brightness is a line through black: compare directions.
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True) + 1e-9
    paints /= np.linalg.norm(paints, axis=1, keepdims=True)
    return names[int(np.bincount((pixels @ paints.T).argmax(1), minlength=len(names)).argmax())]


def steps(kind, seeds, count, **options):
    """Yield the episode and each of its first steps, for every seed."""
    for seed in seeds:
        episode = Episode(kind, seed, **options)
        for step in islice(episode, count):
            yield episode, step


# --- the same everywhere


@pytest.mark.parametrize('kind', SCENES)
def test_a_seed_gives_the_same_bytes_on_every_machine(kind):
    crc = 0
    for _, step in steps(kind, (3, 44), 60):
        crc = zlib.crc32(step.frame.tobytes(), crc)
    assert crc == CRCS[kind], 'if the scenes were changed on purpose, renew CRCS'


@pytest.mark.parametrize('kind', SCENES)
def test_asking_telling_size_and_rendering_do_not_change_the_world(kind):
    plain, other = Episode(kind, 5, render=False), Episode(kind, 5, 96, told_rate=.5)
    for one, two in zip(islice(plain, 40), other):
        other.ask()
        other.tell('code', 'seven')
        assert (one.truth, one.events) == (two.truth, two.events)


@pytest.mark.parametrize('kind', SCENES)
def test_a_copied_episode_goes_on_as_the_first_does(kind):
    first = Episode(kind, 6)
    list(islice(first, 10))
    second = copy.deepcopy(first)
    for one, two in zip(islice(first, 5), second):
        assert np.array_equal(one.frame, two.frame)
        assert first.ask() == second.ask()


@pytest.mark.parametrize('kind', SCENES)
def test_every_size_shows_the_same_scene(kind):
    for size in (48, 128):
        for one, two in zip(islice(Episode(kind, 8), 6), Episode(kind, 8, size)):
            assert two.frame.shape == (size, size, 3) and two.frame.dtype == np.uint8
            small, other = (step.frame.reshape(16, len(step.frame) // 16, 16, -1, 3)
                            .mean((1, 3)) for step in (one, two))
            assert np.abs(small - other).mean() < 4


@pytest.mark.parametrize('options, words', [
    ({'kind': 'kitchen'}, 'drive, bench'), ({'size': 47}, '48'), ({'pace': 0}, 'pace'),
    ({'keys': 11}, 'keys'), ({'told_rate': 2}, 'told_rate'), ({'things': 2}, 'things')])
def test_bad_parameters_are_refused_with_the_limit(options, words):
    with pytest.raises(ValueError, match=words):
        Episode(**{'kind': 'drive', 'seed': 0, **options})


# --- the picture is true


def test_the_bright_lamp_is_the_one_of_the_truth():
    right = total = 0
    for _, step in steps('drive', range(12), 25):
        assert ('light' in step.boxes) == (step.truth['light'] != NONE)
        if 'light' in step.boxes:
            housing = cut(step.frame, step.boxes['light']).astype(int)
            lit = housing[housing.max(2) > .8 * housing.max()].mean(0)
            third = len(housing) / 3
            row = np.argmax(housing.max(2).mean(1))
            colour = ('yellow' if min(lit[:2]) > 1.5 * lit[2] and lit[1] > .55 * lit[0] else
                      'red' if lit[0] > lit[1] else 'green')
            right += colour == step.truth['light'] == LIGHTS[int(row / third)]
            total += 1
    assert total > 80 and right >= .97 * total


def test_the_digit_on_the_sign_can_be_read_back():
    right = total = 0
    for _, step in steps('drive', range(14), 25, size=96):
        if step.truth['sign'] == NONE or min(step.boxes['sign'][:2]) < 0:
            continue
        panel = cut(step.frame, step.boxes['sign']).astype(float).mean(2)
        unit = len(panel) / 2 * 1.32 / 1.6             # a digit's width in pixels
        y = (np.arange(len(panel)) + .5 - len(panel) / 2) / unit
        x = (np.arange(panel.shape[1]) + .5 - panel.shape[1] / 2) / unit
        inside = (np.abs(y) < .95)[:, None] & (np.abs(x) < .65)
        scores = []
        for digit in range(10):
            field = _glyph(digit)
            rows = np.clip(((y + 1.) * 48).astype(int), 0, field.shape[0] - 1)
            cols = np.clip(((x + .7) * 48).astype(int), 0, field.shape[1] - 1)
            ink = (field[rows][:, cols] < .14)[inside]
            scores.append(abs(np.corrcoef(ink, panel[inside])[0, 1]))
        right += NUMBERS[int(np.argmax(scores))] == step.truth['sign']
        total += 1
    assert total > 60 and right >= .95 * total


def test_as_many_cones_stand_apart_as_the_truth_says():
    seen = 0
    for _, step in steps('drive', range(10), 20):
        cones = [box for name, box in step.boxes.items() if name.startswith('cone ')]
        assert len(cones) == (0 if step.truth['cones'] == NONE
                              else NUMBERS.index(step.truth['cones']))
        for box in cones:
            foot = cut(step.frame, (box[0], box[1] + .75 * (box[3] - box[1]), box[2],
                                    box[3] - .02), .4).astype(int).reshape(-1, 3).mean(0)
            assert foot[0] > 1.5 * foot[2], 'a cone is orange'
            seen += 1
        edges = sorted((box[0], box[2]) for box in cones)
        assert all(one[1] < two[0] for one, two in zip(edges, edges[1:]))
    assert seen > 50


@pytest.mark.parametrize('kind, names', [('drive', ('vehicle',)), ('bench', (*PLACES, 'held'))])
def test_things_have_the_colour_of_the_truth(kind, names):
    right = total = 0
    for _, step in steps(kind, range(12), 25):
        for name in names:
            value = step.truth['hold' if name == 'held' else name]
            assert (name in step.boxes) == (value != NONE)
            if value != NONE and step.boxes[name][0] > 0 and step.boxes[name][2] < 1:
                x0, y0, x1, y1 = step.boxes[name]
                low = (x0, y0 + .5 * (y1 - y0), x1, y1 - .1 * (y1 - y0))    # below the glass
                right += nearest_colour(cut(step.frame, low, .7)) == value.split()[0]
                total += 1
    assert total > 50 and right >= .97 * total


# --- what is asked


class Witness:
    """Remembers what the frames showed, on its own, and answers *back* questions from that."""

    def __init__(self):
        self.shown = []

    def see(self, truth):
        self.shown.append(truth)

    def last(self, topic):
        """Return the newest value of a truth that was not 'none'."""
        return next((t[topic] for t in reversed(self.shown) if t[topic] != NONE), NONE)

    def held(self):
        """Return what was held before the present hold: a hold is a run of equal frames."""
        shown = list(reversed([t['hold'] for t in self.shown]))
        while shown and shown[0] != NONE:
            shown.pop(0)
        return next((thing for thing in shown if thing != NONE), NONE)

    def stood(self, thing):
        return next((place for t in reversed(self.shown) for place in PLACES
                     if t[place] == thing), NONE)

    def first(self):
        for truth in self.shown:
            for sight in ('light', 'sign', 'cones', 'vehicle'):
                if truth[sight] != NONE:
                    return sight
        return NONE

    def cones_since(self):
        """Return the cones of all groups after the newest sign."""
        count, before = 0, NONE
        for truth in self.shown:
            if truth['sign'] != NONE:
                count = 0
            elif truth['cones'] != NONE and before == NONE:
                count += NUMBERS.index(truth['cones'])
            before = truth['cones']
        return NUMBERS[count] if count else NONE

    def answer(self, name):
        topic, _, member = name.partition(':')
        if topic == 'put':
            return self.stood(member)
        if topic == 'colour_last':
            return next((t['hold'].split()[0] for t in reversed(self.shown)
                         if t['hold'].endswith(member)), NONE)
        if topic == 'order':
            return next(sight for t in reversed(self.shown) for sight in member.split('/')
                        if t[sight] != NONE)
        if topic in ('held', 'cones_since'):
            return getattr(self, topic)()
        if topic.endswith('_last'):
            return self.last(topic[:-5])
        if topic == 'first' and 'light' in self.shown[0]:
            return self.first()
        return None


@pytest.mark.parametrize('kind', SCENES)
def test_answers_about_the_past_agree_with_what_the_frames_showed(kind):
    checked = Counter()
    for seed in range(8):
        witness, episode = Witness(), Episode(kind, seed, render=False)
        for step in islice(episode, 90):
            witness.see(step.truth)
            for question in episode.questions(('back', 'no')):
                expected = witness.answer(question.name)
                if expected is not None and question.topic != 'told':
                    assert question.answer == expected, (seed, step.ordinal, question)
                    checked[question.topic] += 1
    backs = {topic.name for topic in TOPICS[kind] if topic.kind == 'back'}
    assert backs - set(checked) <= {'taken', 'first'} and min(checked.values()) > 20


@pytest.mark.parametrize('kind', SCENES)
def test_the_evidence_shows_the_answer(kind):
    shows = {'light_last': 'light', 'sign_last': 'sign', 'vehicle_last': 'vehicle',
             'cones_last': 'cones', 'held': 'hold', 'taken': 'hold'}
    seen = 0
    for seed in range(6):
        truths, episode = [], Episode(kind, seed, render=False)
        for step in islice(episode, 80):
            truths.append(step.truth)
            for event in step.events:
                assert event.evidence and all(0 <= at <= step.ordinal for _, at in event.evidence)
            for question in episode.questions(('back',)):
                assert question.age_frames == step.ordinal - min(at for _, at in question.evidence)
                at = truths[question.evidence[0][1]]
                if question.topic in shows:
                    assert at[shows[question.topic]] == question.answer
                elif question.topic == 'put':
                    assert at[question.answer] == question.name[4:]
                elif question.topic == 'colour_last':
                    assert at['hold'] == f'{question.answer} {question.name[12:]}'
                seen += 1
            live = episode.live()
            for question in episode.questions(('back', 'told', 'again')):
                assert live[question.name].evidence == question.evidence
    assert seen > 500


def test_the_last_telling_holds():
    episode = Episode('drive', 1, told_rate=0, again_gap=5, render=False)
    next(episode)
    no = {q.name: q for q in episode.questions(('no',))}['told:target']
    assert (no.answer, no.evidence, no.age_frames) == (NONE, (), None)
    first = episode.tell('target', 'red cube')
    assert first.text.endswith('the target is the red cube') and first.frame == 0
    episode.tell('target', 'blue cup')
    list(islice(episode, 30))
    (question,) = episode.questions(('told',))
    assert question.answer == 'blue cup' and set(question.choices) == {*KEYS['target'], NONE}
    assert question.evidence == (('told', 1),) and question.age_frames == 30
    assert first.text.split()[-1] not in question.text


def test_a_fact_is_asked_again_only_after_the_gap():
    episode = Episode('drive', 1, told_rate=0, again_gap=5, render=False)
    next(episode)
    episode.tell('gate', 'two')
    assert episode.ask(('told',)).answer == 'two'
    for _ in islice(episode, 4):
        assert episode.ask(('told', 'again'), topics=('told',)) is None
    next(episode)
    assert episode.ask(('told',)) is None
    assert episode.ask(('again',), topics=('told',)).kind == 'again'
    episode.tell('gate', 'six')
    assert episode.ask(('told', 'again'), topics=('told',), min_age=1) is None
    told = episode.ask(('told', 'again'), topics=('told',))
    assert (told.kind, told.answer) == ('told', 'six')


@pytest.mark.parametrize('call, words', [
    (lambda e: e.tell('weather', 'one'), 'target'), (lambda e: e.tell('code', 'anna'), 'zero'),
    (lambda e: e.questions(('later',)), 'now, back'), (lambda e: e.questions(), 'no frame'),
    (lambda e: e.answer('weather'), 'told, hold')])
def test_wrong_calls_are_refused_with_the_remedy(call, words):
    with pytest.raises(ValueError, match=words):
        call(Episode('bench', 0, render=False))


@pytest.mark.parametrize('kind', SCENES)
def test_answers_change_when_the_world_does(kind):
    answers = defaultdict(set)
    for episode, _ in steps(kind, range(6), 150, render=False):
        for question in episode.questions():
            answers[question.topic].add(question.answer)
            assert question.answer in question.choices
            assert (question.kind == 'no') == (not question.evidence)
            assert question.kind != 'no' or question.answer == NONE
            words = f'{question.text} {question.answer}'.split()
            assert set(words) <= set(VOCABULARY), words
    assert {topic.name for topic in TOPICS[kind]} | {'told'} == set(answers)
    assert min(len(found) for found in answers.values()) >= 4


def test_the_vocabulary_is_closed_and_covers_what_is_told():
    assert list(VOCABULARY) == sorted(set(VOCABULARY)) and len(VOCABULARY) < 250
    assert all(word.isalpha() and word.islower() for word in VOCABULARY)
    told = [t.text for _, step in steps('bench', range(4), 60, told_rate=1, keys=10, render=False)
            for t in step.told]
    assert len(told) == 240 and {word for text in told for word in text.split()} < set(VOCABULARY)


def test_the_sheet_is_written(tmp_path):
    pytest.importorskip('PIL.Image')
    out = tmp_path / 'sheet.png'
    subprocess.run([sys.executable, '-m', 'infmllm_ros.bundled.scenes', str(out), '--frames', '6',
                    '--seed', '2'], check=True)
    assert out.read_bytes()[:4] == b'\x89PNG'
