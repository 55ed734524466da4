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

"""The memory exam counts right: against memories whose knowledge is known beforehand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import inf, isnan
from types import SimpleNamespace

from infmllm_ros.engine import load_model, POLICIES
import numpy as np
import pytest
import torch

from benchmarks import bias_sweep, exam, exam_report, memory_exam  # noqa: I100
from training.model import make_config, make_model, make_tokenizer, write_folder

PLAN = exam.Plan(660, every=15, gap=50, distances=(10, 40, 320))
WINDOW = 60.


@pytest.fixture(scope='module', autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def papers():
    return {world: list(exam.write_paper(PLAN, world, 5)) for world in exam.WORLDS}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Make a model of the bundled one's kind, with random weights and little of everything."""
    tokenizer = make_tokenizer()
    model = make_model(make_config(tokenizer, {
        'vision': {'image_size': 64, 'patch_size': 16, 'hidden_size': 32,
                   'intermediate_size': 64, 'num_hidden_layers': 1, 'num_attention_heads': 2},
        'text': {'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 2,
                 'num_attention_heads': 4, 'num_key_value_heads': 2}}), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    place = tmp_path_factory.mktemp('model')
    write_folder(model, tokenizer, place, torch.float32)
    return place


class Oracle:
    """
    A session that knows the paper, and forgets what is older than `window` frames.

    What the first of its two layers holds is right; the second holds nothing but the newest token.
    """

    def __init__(self, paper, window=inf, frozen=False):
        self.asks = iter([ask for moment in paper for ask in moment.asks])
        self.window, self.frozen = window, frozen
        self.frame, self.seen, self.born = -1, 0, []
        self.cache = SimpleNamespace(layers=[0, 1])
        self.remembered = []

    def observe(self, image, stamp_ns):
        self.frame += 1
        assert stamp_ns == self.frame * 10**9 and image.shape == (64, 64, 3)
        self._add(5)

    def tell(self, text):
        self._add(len(text.split()))

    def _add(self, count):
        self.born += [self.frame] * count
        self.seen += count

    def stats(self):
        return SimpleNamespace(tokens_seen=self.seen)

    def kept(self, layer):
        if layer:
            return torch.tensor([[self.seen - 1]])
        young = self.frame - np.array(self.born) <= self.window
        return torch.tensor(young.nonzero()[0])[None].expand(2, -1)

    def answer(self, text, max_tokens, remember):
        ask = next(self.asks)
        assert ask.text == text and max_tokens >= 2
        if remember:
            self.remembered.append((self.frame, ask.kind))
        known = ask.distance is None or ask.distance <= self.window
        known = known and not (self.frozen and ask.kind in ('overwritten', 'late'))
        return SimpleNamespace(text=f'{ask.answer} ' if known else 'dunno')


def sat(papers, **options):
    return [exam.sit(Oracle(paper, **options), paper) for paper in papers.values()]


def shares(streams):
    return {name: exam_report.score_where(streams, wanted)
            for name, wanted in exam_report.columns(WINDOW).items()}


def test_one_who_knows_all_is_all_right(papers):
    streams = sat(papers)
    found = shares(streams)
    assert all(one.share == one.high == 1 and one.asked for one in found.values())
    assert found['now'].asked >= 80 and found['no'].asked >= 60
    assert exam_report.mean_where(streams, 'layers', exam_report.is_fact) == .5


def test_a_window_knows_what_lies_within_it_and_nothing_else(papers):
    streams = sat(papers, window=WINDOW)
    found = {name: one.share for name, one in shares(streams).items()}
    assert found == {'now': 1, 'back, in window': 1, 'back, beyond': 0, 'no': 1, 'told': 0,
                     'again': 1, 'overwritten': 0, 'late': 0}
    facts = exam_report.by_distance(streams)
    assert {distance: one.share for distance, one in facts.items()} == {10: 1, 40: 1, 320: 0}
    assert exam_report.held_by_distance(streams) == {10: .5, 40: .5, 320: 0}
    ages = exam_report.by_age(streams)
    assert len(ages) > 4 and all(one.share == (age <= WINDOW) for age, one in ages.items()
                                 if not 30 <= age < 100)      # the bin that the window parts


def test_one_who_freezes_is_found_out(papers):
    found = shares(sat(papers, frozen=True))
    assert found['told'].share == found['again'].share == 1
    assert found['overwritten'].share == found['late'].share == 0


@pytest.mark.parametrize('world', exam.WORLDS)
def test_facts_are_told_and_asked_when_the_plan_says(papers, world):
    paper = papers[world]
    told, count = {}, Counter()
    for now, moment in enumerate(paper):
        for key, text in moment.tells:
            assert key in text.split()
            told.setdefault(key, []).append(now)
            count[text] += 1
        for ask in moment.asks:
            if ask.kind in exam.FACTS:
                assert ask.distance == now - told[ask.key][-1] in PLAN.distances
                assert not ask.remember
            elif ask.kind == 'again':
                assert ask.remember and now % PLAN.gap == 0
                assert ask.distance in (PLAN.gap, PLAN.gap - exam.EARLY)
            else:
                assert now % PLAN.every == 0 and not ask.key and not ask.remember
            if ask.kind == 'overwritten':
                assert len(told[ask.key]) == 2
    assert sorted(map(tuple, told.values())) == [(2,), (2,), (2,), (2, 330), (220,), (440,)]
    asked = Counter(ask.kind for moment in paper for ask in moment.asks if ask.key)
    assert asked == {'told': 6, 'overwritten': 3, 'late': 5, 'again': 13}
    silent = {ask.key for moment in paper for ask in moment.asks if ask.kind == 'no'}
    assert silent <= {''}


def test_an_overwritten_fact_is_asked_for_its_new_value(papers):
    for paper in papers.values():
        texts = {}
        for moment in paper:
            for key, text in moment.tells:
                assert not set(text.split()[-1:]) & set(texts.get(key, '').split())
                texts[key] = text
            for ask in moment.asks:
                if ask.key:
                    assert texts[ask.key].endswith(ask.answer) and ask.key in ask.text


def test_the_same_seed_writes_the_same_paper(papers):
    for one, two in zip(papers['bench'], exam.write_paper(PLAN, 'bench', 5)):
        assert (one.image == two.image).all()
        assert (one.tells, one.asks) == (two.tells, two.asks)


def test_intervals():
    one = exam_report.score([[1] * 8 + [0] * 2])      # Wilson's, from the textbook
    assert (one.share, round(one.low, 3), round(one.high, 3), one.asked) == (.8, .49, .943, 10)
    assert exam_report.score([[1] * 10]).low == pytest.approx(10 / (10 + 1.96 ** 2), abs=1e-4)
    alike = exam_report.score([[1, 0, 1, 1, 0]] * 8)
    apart = exam_report.score([[1] * 5] * 5 + [[0] * 5] * 3)
    few = exam_report.score([[1]] * 5 + [[0]] * 3)
    assert alike.share == .6 and alike.high - alike.low < apart.high - apart.low
    # where streams are all right or all wrong, only streams count
    assert (apart.low, apart.high) == pytest.approx((few.low, few.high))
    # worlds that differ are no surprise: they are compared within themselves
    worlds = exam_report.score([[1] * 5, [0] * 5] * 4, worlds=2)
    assert worlds.high - worlds.low == pytest.approx(
        2 * (exam_report.score([[1] * 20 + [0] * 20]).high - .5))
    assert isnan(exam_report.score([]).share) and str(exam_report.score([[]])) == '-'


def test_intervals_hold_what_they_promise_for_streams_that_differ():
    dice, hits = np.random.default_rng(0), 0
    for _ in range(400):
        own = np.clip(dice.normal(.7, .15, 12), 0, 1)
        found = exam_report.score([list(map(float, dice.random(30) < p)) for p in own])
        hits += found.low <= .7 <= found.high
    assert hits / 400 > .9


def test_probes_leave_no_trace_under_any_window(folder):
    """What is asked with remember=False changes neither the memory nor a later answer."""
    plan = exam.Plan(90, every=9, gap=30, distances=(10, 40))
    paper = list(exam.write_paper(plan, 'bench', 1))
    bare = [replace(moment, asks=tuple(ask for ask in moment.asks if ask.remember))
            for moment in paper]
    model = load_model(folder)
    for window in ('question', 'chunk', 'marker'):
        setting = exam.Setting('s', 'saddle', 96, (('window', window), ('discount', .5)))
        lives = []
        for sheet in (paper, bare):
            session = exam.enter(model, setting, plan)
            records = exam.sit(session, sheet)
            lives.append(([record for record in records if record['kind'] == 'again'],
                          session.kept(0).tolist(),
                          session.cache.slots[0].state[:, :, :session.cache.count].tolist()))
        assert lives[0][0] and session.stats().evictions
        assert lives[0] == lives[1]


def test_an_exam_from_end_to_end_is_resumed_and_written(folder, tmp_path, monkeypatch, capsys):
    tiny = exam.Plan(36, every=12, gap=15, distances=(4, 9))
    for module, names in ((memory_exam, ('HOUR', 'SHORT', 'QUICK')),
                          (bias_sweep, ('LONG', 'QUICK'))):
        for name in names:
            monkeypatch.setattr(module, name, tiny)
    out = tmp_path / 'docs'
    out.mkdir()
    (out / 'memory_exam.md').write_text('# The exam\n\nWhy.\n')
    common = ['--model', str(folder), '--quick', '--out', str(out)]
    command = ['memory_exam', *common, '--budgets', '64', '--topics', '--work',
               str(tmp_path / 'exam.jsonl')]
    monkeypatch.setattr('sys.argv', command)
    memory_exam.main()
    first = capsys.readouterr()
    page = (out / 'memory_exam.md').read_text()
    assert page.startswith('# The exam\n\nWhy.\n')
    for policy in ('saddle', 'streaming_llm', 'recent_frames', 'random', 'full'):
        assert f'| {policy} |' in page
    lines = (tmp_path / 'exam.jsonl').read_text().splitlines()
    assert len(lines) == 2 * (4 + 1 + 3)    # streams; hour, shares (nothing fits but full), paper
    # what was finished is not sat again; a line that was torn is
    (tmp_path / 'exam.jsonl').write_text('\n'.join([*lines[:-1], lines[-1][:50]]) + '\n')
    memory_exam.main()
    again = capsys.readouterr()
    assert first.err.count('right') == len(lines) and again.err.count('right') == 1
    assert again.out == first.out
    monkeypatch.setattr('sys.argv', ['bias_sweep', *common, '--budget', '64', '--biases', '0,.1',
                                     '--work', str(tmp_path / 'bias.jsonl')])
    bias_sweep.main()
    for name in ('memory_exam', 'bias_sweep'):
        figure = (out / 'figures' / f'{name}.png').read_bytes()
        assert figure.startswith(b'\x89PNG') and len(figure) < 200_000
        assert (out / 'figures' / f'{name}.json').stat().st_size > 100
    page = (out / 'memory_exam.md').read_text()
    assert page.count(': begin') == page.count(': end -->') == 2 and 'Why.' in page


def test_a_policy_that_was_rewritten_sits_again(tmp_path, monkeypatch):
    ledger, setting = exam.Ledger(tmp_path / 'sat.jsonl', 'a'), exam.Setting('r', 'random', 9)
    ledger.add(setting, PLAN, 'drive', 1, [], 0.)
    assert exam.Ledger(ledger.path, 'a').find(setting, PLAN, 'drive', 1) == []

    class Rewritten(POLICIES['random']):
        """The same name, other code."""

    monkeypatch.setitem(POLICIES, 'random', Rewritten)
    assert exam.Ledger(ledger.path, 'a').find(setting, PLAN, 'drive', 1) is None


def test_full_sits_only_where_it_fits(folder):
    model = load_model(folder)
    full = exam.Setting('full', 'full', 0)
    assert exam.enter(model, full, exam.Plan(100)).plan.budget > 500
    with pytest.raises(exam.BudgetError, match='5000 frames'):
        exam.enter(model, full, exam.Plan(5000))


def sweep(recall):
    """Make a sweep in which a fact of some distance is recalled with a bias or is not."""
    return {bias: [[{'kind': 'told', 'distance': distance, 'layers': 1., 'right': recall(
        bias, distance)} for distance in (10, 1000) for _ in range(20)]] for bias in (0., .01, .1)}


@pytest.mark.parametrize(('recall', 'said'), [
    (lambda bias, distance: bias < (.2 if distance < 300 else .05),
     ('does not show', 'only its upper edge')),
    (lambda bias, distance: bias == (.1 if distance < 300 else .01), ('holds', 'holds')),
    (lambda bias, distance: True, ('does not show', 'does not show')),
])
def test_the_sweep_says_whether_the_claim_holds(recall, said):
    lines = bias_sweep.verdict(sweep(recall))
    assert [line.split(': ')[1].split('.')[0] for line in lines] == list(said)
