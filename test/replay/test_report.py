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

"""The report of a run says what its records say, in one file that is safe to open."""

from base64 import b64decode, b64encode
from dataclasses import replace
import hashlib
from html.parser import HTMLParser
import json
import re
import zipfile

from drive import CHOICES, replay
from hypothesis import given
from hypothesis import strategies as st
from infmllm_ros.replay import report
from infmllm_ros.replay.records import (
    Answer,
    End,
    Event,
    Frame,
    Memory,
    Problem,
    read,
    Run,
    Stats,
    Told,
)
from infmllm_ros.replay.records.headline import Headline
from infmllm_ros.replay.report import charts, plots, timeline
from infmllm_ros.replay.report.__main__ import main
import pytest

HOSTILE = '<script>alert(1)</script> "\'&amp; </svg> \u202eabc \u05d0\u05d1 \0 {{ 7 * 7 }}'
EVIL = HOSTILE.replace('\0', '\ufffd')  # as it is read: HTML knows no NUL
SECOND = 1_000_000_000


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and their text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts, self.source = [], [], path.read_text('utf-8')
        self.feed(self.source)
        self.text = ' '.join(' '.join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def find(self, tag, **wanted):
        return [fields for name, fields in self.elements if name == tag and all(
            fields.get(key.rstrip('_')) == value for key, value in wanted.items())]


def stats(number, measured=True):
    given = {'vision_ms': 1., 'prefill_ms': 2., 'evict_ms': 3. + number % 7,
             'process_bytes': 2 ** 28} if measured else {}
    return Stats(number * SECOND // 10, 90, 100, 5 * number, 0, number, 9, 1 << 20,
                 measured=given)


def answer(number='1', **fields):
    return replace(Answer(number, 'n', False, SECOND, SECOND, '', 'What?', '', 'this', 'OK', '',
                          'stop', 1, False, [], -1, [], 'this', True, [[0, '', .5]],
                          measured={'latency': .5, 'time_to_first_token': .25}), **fields)


def journal(folder, *records, run=None):
    lines = [record.line() for record in (
        run or Run('bag', 'live', 'm', 'saddle', 100, ['']), *records)]
    (folder / 'run.jsonl').write_text('\n'.join(lines) + '\n')
    return Page(report.write(folder))


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drive')
    replay(folder, 120)
    report.write(folder)
    return folder


def test_a_report_says_what_the_records_say(drive):
    page, records = Page(drive / 'report.html'), list(read(drive))
    end = records[-1]
    asked = [r for r in records if isinstance(r, Answer) and not r.watch]
    assert f'{end.right} of {end.judged} answers right' in page.text
    assert (end.judged, len(asked)) == (3, 4)
    rows = {fields['id']: fields for fields in page.find('li', class_='answer')}
    for one in asked:
        assert rows[f'answer-{one.id}']['data-verdict'] == {
            True: 'right', False: 'wrong', None: 'open'}[one.right]
        assert one.question in page.texts and one.text in page.texts
    for one in records:
        if isinstance(one, (Told, Event)):
            assert one.text in page.texts
    assert end.digest in page.texts and '192' in page.text
    assert {f'figure-{name}' for name in ('ages', 'tokens', 'frames', 'answers', 'process')} == {
        fields['id'] for _, fields in page.elements
        if fields.get('id', '').startswith('figure-')}


def test_turns_of_a_watch_that_say_the_same_are_one_row(drive):
    records = list(read(drive))
    texts = [r.text for r in records if isinstance(r, Answer) and r.watch]
    changes = 1 + sum(a != b for a, b in zip(texts, texts[1:]))
    assert set(texts) <= set(CHOICES)
    page = Page(drive / 'report.html')
    kinds = [fields['data-kind'] for fields in page.find('li', class_='answer')]
    assert kinds.count('watch') == changes < len(texts)


def test_pictures_are_those_of_the_thumbnails_and_in_the_page_once(drive):
    page = Page(drive / 'report.html')
    with zipfile.ZipFile(drive / 'thumbnails.zip') as album:
        stored = {album.read(name) for name in album.namelist()}
    shown = [b64decode(fields['href'].removeprefix('data:image/jpeg;base64,'))
             for fields in page.find('image')]
    assert set(shown) <= stored and len(set(shown)) == len(shown) > 16
    symbols = {f'#{fields["id"]}' for fields in page.find('symbol')}
    uses = [fields['href'] for fields in page.find('use')]
    assert set(uses) == symbols and len(uses) > len(symbols)


def test_nothing_is_loaded_and_only_its_own_script_may_run(drive):
    page = Page(drive / 'report.html')
    for tag, fields in page.elements:
        for name in ('src', 'href', 'xlink:href', 'action', 'data', 'style', 'srcset'):
            value = fields.get(name, '#')
            assert value.startswith('#') or (tag == 'image' and value.startswith('data:')), tag
        assert not [name for name in fields if name.startswith('on')]
    policy = page.find('meta', **{'http-equiv': 'Content-Security-Policy'})[0]['content']
    assert policy.startswith("default-src 'none'") and 'unsafe' not in policy
    for tag in ('style', 'script'):
        text = re.search(f'<{tag}>(.*?)</{tag}>', page.source, re.S)[1]
        made = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{made}'" in policy


def test_whatever_is_written_in_a_record_is_shown_as_text(tmp_path):
    evil = answer(HOSTILE, name=HOSTILE, question=HOSTILE, text=HOSTILE, context=HOSTILE,
                  message=HOSTILE, status=HOSTILE, choices=[HOSTILE], probabilities=[1.],
                  choice=0, expected=HOSTILE, right=False, camera=HOSTILE, finish_reason=HOSTILE,
                  evidence=[[0, HOSTILE, .5]])
    page = journal(
        tmp_path, Frame(0, 0, HOSTILE, 'seen'), evil, replace(evil, watch=True, id='w'),
        Told(5, HOSTILE), Event(9, HOSTILE, 0, 1, HOSTILE, HOSTILE, .5), Problem(9, HOSTILE),
        run=Run(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, [HOSTILE], {HOSTILE: HOSTILE}, HOSTILE,
                measured={'started': HOSTILE, 'device': HOSTILE, 'versions': {HOSTILE: HOSTILE}}))
    scripts = page.find('script')
    assert len(scripts) == 2 and '<script>alert' not in page.source and '49' not in page.texts
    assert sum(EVIL in text for text in page.texts) >= 15
    data = next(text for text in page.texts if text.startswith('{"answers"'))
    assert HOSTILE in json.loads(data)['answers']


@pytest.mark.parametrize('records', [
    [], [End({}, 0, 0, 0)], [Frame(0, 5, '', 'seen')], [Frame(0, 5, '', 'bad', 'torn')],
    [stats(0)], [stats(0, measured=False), stats(1, measured=False)], [answer()],
    [answer(stamp_ns=0, evidence=[], measured={})], [Memory(5, [])], [Memory(5, [[5, '', 1.]])],
    [Told(3, 'x'), Event(4, 'w', -1, 0, '', 'red', .9)], [answer(watch=True)],
    [Frame(0, 5, 'left', 'sent'), Memory(5, [[5, 'gone', 0.]]), answer(asked_ns=-5)],
], ids=str)
def test_a_report_of_little_is_written_too(tmp_path, records):
    page = journal(tmp_path, *records)
    ended = bool(records) and isinstance(records[-1], End)
    assert ('complete' if ended else 'broken off') in page.texts
    assert not re.search(r'\bnan\b|\binf\b', page.source.partition('<main>')[2], re.I)


@pytest.mark.parametrize('album', [None, b'', b'PK\x03\x04 torn', 'pictures'])
def test_pictures_may_be_missing_or_torn(tmp_path, album):
    if album == 'pictures':
        with zipfile.ZipFile(tmp_path / 'thumbnails.zip', 'w') as file:
            for name in ('_/0.jpg', '../5.jpg', '_/x.jpg', 'readme'):
                file.writestr(name, b'<svg onload="alert(1)"/>')
    elif album is not None:
        (tmp_path / 'thumbnails.zip').write_bytes(album)
    page = journal(tmp_path, Frame(0, 0, '', 'seen'), Frame(1, SECOND, '', 'seen'), answer())
    assert not page.find('image') and page.find('rect', class_='blank')


def test_problems_and_an_early_end_are_named(tmp_path):
    page = journal(tmp_path, Frame(0, 5, '', 'bad', 'torn'), Problem(5, 'no such topic'),
                   End({'bad': 1}, 0, 0, 0, 'memory is full'))
    assert 'ended early' in page.texts and 'no such topic' in page.texts
    assert 'memory is full' in page.texts and '2 problems' in page.texts


def test_a_long_run_stays_small(tmp_path):
    held = [[place * SECOND, '', 3.5] for place in range(250)]
    page = journal(
        tmp_path, *(stats(number) for number in range(20_000)),
        *(Memory(number * 10 * SECOND, held[:1 + number]) for number in range(400)),
        *(answer(str(number), asked_ns=number * SECOND, text=f'{number % 3}', watch=number % 2 > 0)
          for number in range(4_000)))
    assert len(page.source) < 6_000_000
    assert len(page.find('li', class_='answer')) == timeline.ROWS
    assert f'{4_000 - timeline.ROWS:,} more answers are in run.jsonl' in page.text


def test_a_folder_without_a_run_is_refused_in_a_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    (tmp_path / 'run.jsonl').write_text('')
    assert main([str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and 'run.jsonl' in lines[0] and 'replay again' in lines[1]
    assert not (tmp_path / 'report.html').exists()


def test_a_headline_by_hand():
    timed = [answer(str(n), right=n != 2, measured={'latency': n / 10}) for n in range(1, 5)]
    head = Headline.of([
        Run('b', 'offline', 'm', 'saddle', 100, ['']), Frame(0, 5 * SECOND, '', 'seen'),
        Frame(1, 7 * SECOND, '', 'bad'), stats(1), stats(2), *timed,
        answer('w', watch=True, right=False), End({}, 4, 4, 3, measured={
            'frames_per_second': 20., 'speed': 2.})])
    assert (head.state, head.seconds, head.frames) == ('complete', 2., {'seen': 1, 'bad': 1})
    assert (head.answers, head.judged, head.right, head.turns) == (4, 4, 3, 1)
    assert head.latency_ms == pytest.approx((250., 385.)) and head.first_ms is None
    assert head.frame_ms == pytest.approx((7.5, 7.95))
    assert (head.tokens, head.tokens_seen, head.process_bytes) == (90, 10, 2 ** 28)
    assert (head.fps, head.speed, head.accuracy, head.problems) == (20., 2., .75, ())


def test_a_summary_lists_runs_and_draws_those_that_were_judged(tmp_path):
    run = Run('b', 'offline', 'm', 'saddle', 100, [''])
    one, two = (Headline.of([run, *more]) for more in ([stats(1), answer()], []))
    path = report.summary([report.Entry(EVIL, one, 'a/report.html'), report.Entry('two', two)],
                          tmp_path, notes=['one run failed'])
    page = Page(path)
    assert path == tmp_path / 'summary.html' and EVIL in page.texts
    assert page.find('a')[0]['href'] == 'a/report.html' and len(page.find('a')) == 1
    assert '1 of 1' in page.text and 'none judged' in page.text and 'one run failed' in page.text
    assert len(page.find('circle')) == 1


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 9))
def test_ticks_are_few_round_and_within(low, span, most):
    marks = charts.ticks(low, low + span, most)
    slack = 1e-6 * (span + abs(low))
    assert len(marks) <= most + 1
    assert all(low - slack <= mark <= low + span + slack for mark in marks)
    steps = {f'{(b - a) / span:.3g}' for a, b in zip(marks, marks[1:])}
    if marks[1:] and abs(low) < 1e3 * span:
        assert len(steps) == 1
        digits = f'{marks[1] - marks[0]:.0e}'[0]
        assert digits in '125'


@pytest.mark.parametrize('seconds, text', [
    (0, '0 s'), (.44, '0.4 s'), (12, '12 s'), (187, '3:07'), (3765, '1:02:45')])
def test_times_are_written_for_people(seconds, text):
    assert charts.clock(seconds) == text


@given(st.integers(0, 5000), st.integers(1, 400))
def test_bins_cut_without_loss(count, most):
    runs = charts.bins(count, most)
    assert [place for run in runs for place in run] == list(range(count)) and len(runs) <= most


def test_places_on_axes_by_hand():
    axes = charts.Axes((10, 30), (0, 4), height=130)  # 100 pixels between 8 above and 22 below
    assert [axes.across(x) for x in (5, 10, 15, 30, 99)] == [0, 0, 25, 100, 100]
    assert [axes.down(y) for y in (0, 1, 4, 9)] == [108, 83, 8, 8]
    line = axes.line([(10, 0), (15, 1), (30, 4)], 'blue')
    assert 'd="M0.0 1000.0L250.0 750.0L1000.0 0.0"' in line


@given(st.lists(st.tuples(st.integers(0, 10 ** 11), st.floats(.1, 50)), min_size=1, max_size=40))
def test_the_map_of_ages_shows_how_much_is_held_and_the_oldest(held):
    now = max(stamp for stamp, _ in held) + 10
    memory = Memory(now, [[stamp, '', tokens] for stamp, tokens in sorted(held)])
    time = timeline.Clock(0, now / 1e9)
    figure = plots.figures([memory], time)[0]
    assert figure.data['rows'][0][2] == [len(held)]
    oldest = (now - min(stamp for stamp, _ in held)) / 1e9
    assert figure.data['rows'][1][2][0] == pytest.approx(oldest, rel=1e-3, abs=1e-6)
    heights = [float(size) for size in re.findall(r'<rect class="h\d"[^>]* height="([\d.]+)"',
                                                  figure.picture)]
    rows = round(sum(heights) / (1000 / plots.AGES))
    assert 1 <= rows <= min(len(held), plots.AGES)
