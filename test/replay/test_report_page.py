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

"""The report in a real browser: what a person sees, points at, and reads on a phone."""

import json
import os
from pathlib import Path
from urllib.parse import unquote, urlparse

from browser import Browser, DESKTOP, find, PHONE
from drive import replay
from infmllm_ros.replay import records, report
from infmllm_ros.replay.sources import BEGIN
import pytest

CAMERAS = ('front', 'rear')
HOSTILE = ('<script>document.title = "taken"</script><b>"\'&amp;</b> '
           '\u05e9\u05dc\u05d5\u05dd \u202e ')
LONG = HOSTILE + 'x' * 10_000
# The contrast of each text with what lies behind it, by WCAG 2; those that are hidden left out.
CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255).map(
    (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4).reduce(
    (sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('main *, footer')].filter((e) => e.getClientRects().length
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())
    && !e.matches('script, .sign, .in')).map((e) => {
      const style = getComputedStyle(e);
      const pair = [light(parse(e.ownerSVGElement ? style.fill : style.color)), light(behind(e))];
      return [e.outerHTML.slice(0, 80), (Math.max(...pair) + .05) / (Math.min(...pair) + .05)];
    });
})()"""


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """Write the report of a run of two cameras, with an answer that nobody would want."""
    folder = tmp_path_factory.mktemp('drive')
    replay(folder, 200, CAMERAS)
    path = folder / records.FILE
    kept = list(records.read(path))
    last = next(r for r in reversed(kept) if isinstance(r, records.Answer) and not r.watch)
    evil = records.Answer(
        'a <b> & "c"', 'evil', False, last.asked_ns, last.stamp_ns, 'rear', LONG, '', HOSTILE,
        'FAILED', HOSTILE, 'stop', 3, False, ['yes', HOSTILE], 1, [.25, .75], 'yes', False,
        last.evidence)
    kept.insert(len(kept) - 1, evil)
    path.write_text(''.join(record.line() + '\n' for record in kept))
    return report.write(folder).as_uri()


@pytest.fixture(scope='module')
def said(page):
    """Read the answers of the report's run."""
    return [r for r in records.read(Path(unquote(urlparse(page).path)).parent)
            if isinstance(r, records.Answer)]


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """Start a browser; skip where there is none that can read a file."""
    binary = find()
    if binary is None:
        pytest.skip('needs Chromium or Chrome on the path, or $BROWSER_BINARY')
    probe = tmp_path_factory.mktemp('probe') / 'probe.html'
    probe.write_text('<!DOCTYPE html><title>probe</title>')
    try:
        one = Browser(binary).__enter__()
        one.visit(probe.as_uri())
    except (OSError, RuntimeError) as error:
        if os.environ.get('CI'):
            raise
        pytest.skip(f'{binary} does not run here: {error}')
    yield one
    one.__exit__()


@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
@pytest.mark.parametrize('size', [DESKTOP, PHONE], ids=['desktop', 'phone'])
def test_it_fits_loads_nothing_and_can_be_read(browser, page, size, dark):
    browser.visit(page, size, dark)
    assert not browser.complaints and not browser.requests
    assert browser.run('document.title') == 'drive.mcap'
    assert browser.run('document.documentElement.scrollWidth') <= size[0]
    wide = browser.run("""[...document.querySelectorAll('main *')].filter((e) => !e.closest('svg')
        && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))
        """)
    assert not wide
    ground = browser.run('getComputedStyle(document.body).backgroundColor')
    assert (sum(map(int, ground.strip('rgb()').split(','))) < 200) == dark
    poor = [pair for pair in browser.run(CONTRAST) if pair[1] < 4.5]
    assert not poor


def test_a_mark_shows_its_answer_and_lines_to_its_frames(browser, page, said):
    browser.visit(page)
    first = next(one for one in said if not one.watch)
    place = f'.mark[data-to="answer-{first.id}"]'
    browser.point(place)
    assert browser.run('document.querySelectorAll("#links .link").length') == len(first.evidence)
    assert browser.run('document.querySelectorAll("#links use").length') == len(first.evidence)
    shown = browser.run('document.getElementById("panel").innerText')
    assert first.question in shown and first.text in shown
    # Each line ends at its frame's time, whatever the width.
    ends = browser.run("""[...document.querySelectorAll('#links .link')].map((e) =>
        Number(e.getAttribute('d').split(' ').at(-2)) / e.ownerSVGElement.clientWidth)""")
    seconds = browser.run('JSON.parse(document.getElementById("data").textContent).seconds')
    wanted = sorted((stamp - BEGIN) / 1e9 / seconds for stamp, *_ in first.evidence)
    assert sorted(ends) == pytest.approx(wanted, abs=2e-3)


def test_the_keyboard_walks_along_the_time_line(browser, page):
    browser.visit(page)
    browser.run("document.querySelector('.mark').focus()")
    order = browser.run("""[...document.querySelectorAll('.mark')].sort((a, b) =>
        a.dataset.x - b.dataset.x).map((e) => e.dataset.to)""")
    start = order.index(browser.run('document.activeElement.dataset.to'))
    browser.press('ArrowRight')
    assert browser.run('document.activeElement.dataset.to') == order[start + 1]
    browser.press('ArrowLeft')
    assert browser.run('document.activeElement.dataset.to') == order[start]
    browser.press('Escape')
    assert browser.run('document.getElementById("panel").hidden')
    browser.press('Enter')
    assert browser.run('decodeURIComponent(location.hash)') == f'#{order[start]}'


def test_filters_show_what_they_say(browser, page, said):
    browser.visit(page)

    def shown(filter_):
        browser.run(f'document.querySelector(\'[data-show="{filter_}"]\').click()')
        return browser.run("""[...document.querySelectorAll('.answers > .answer')].filter(
            (e) => e.getClientRects().length).map((e) => e.id.replace('answer-', ''))""")
    questions = [one.id for one in said if not one.watch]
    wrong = [one.id for one in said if one.right is False]
    assert sorted(shown('question')) == sorted(questions)
    assert sorted(shown('wrong')) == sorted(wrong) and 0 < len(wrong) < len(questions)
    assert len(shown('all')) == len(shown('watch')) + len(questions)
    browser.run("""(() => {const find = document.getElementById('find'); find.value = 'XXXXX';
        find.dispatchEvent(new Event('input'));})()""")
    assert shown('all') == ['a <b> & "c"']


def test_a_link_leads_to_its_answer_even_where_it_is_filtered_out(browser, page, said):
    watch = next(one for one in said if one.watch)
    for wanted in (watch.id, 'a <b> & "c"'):
        browser.visit(page)
        address = browser.run("""(id => [...document.querySelectorAll('.answers .when')].find(
            (e) => e.closest('.answer').id === 'answer-' + id).getAttribute('href'))"""
                              f'({json.dumps(wanted)})')
        browser.visit(page + address)
        assert browser.run('document.querySelector(":target").id') == f'answer-{wanted}'
        top, height = browser.run("""(() => {const b = document.querySelector(':target')
            .getBoundingClientRect(); return [b.top, b.height];})()""")
        assert height > 0 and -height < top < DESKTOP[1]


def test_hostile_text_is_text(browser, page):
    browser.visit(page, PHONE)
    row = 'document.getElementById(\'answer-a <b> & "c"\').querySelector'
    assert browser.run(f'{row}(".question").textContent') == LONG
    assert browser.run(f'{row}(".said").textContent') == HOSTILE
    assert browser.run('document.title') == 'drive.mcap' and not browser.complaints
    assert browser.run('document.querySelectorAll("script").length') == 2


def test_a_moment_pointed_at_in_one_figure_is_shown_in_all(browser, page):
    browser.visit(page)
    browser.point('#figure-tokens svg.plot')
    texts = browser.run("""[...document.querySelectorAll('.readout')].map((e) =>
        e.textContent)""")
    assert len(texts) == 5 and all(texts) and 'tokens 192' in texts[1]


def test_it_can_be_read_without_scripts_and_on_paper(browser, page, said):
    browser.visit(page, script=False)
    questions = sum(not one.watch for one in said)
    count = """[...document.querySelectorAll('.answers > .answer[data-kind=question]')].filter(
        (e) => e.getClientRects().length).length"""
    hidden = 'document.querySelector(".filters").getClientRects().length'
    assert browser.run(count) == questions and browser.run(hidden) == 0
    browser.visit(page, dark=True, media='print')
    assert browser.run(hidden) == 0 and browser.run(count) == questions
    text = 'getComputedStyle(document.querySelector(".question"))'
    assert browser.run(f'{text}.maxHeight') == 'none'
    assert browser.run('getComputedStyle(document.body).backgroundColor') == 'rgb(255, 255, 255)'
    assert not [pair for pair in browser.run(CONTRAST) if pair[1] < 4.5]
