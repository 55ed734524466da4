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

"""Comparisons: tables and misses as computed by hand, and runs that share a model and a bag."""

from collections import Counter
import json

from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.replay.comparison import misses, read_baseline, Row, tables
from infmllm_ros.replay.records import Answer, End, Frame, Journal, read, Run, Stats
import pytest
import yaml


def run(name, rights, latencies_ms, policy='saddle', budget=192):
    """Make the records of a run, with the first of its questions asked once and the others so."""
    records = [Run('bag', 'offline', 'm', policy, budget, [''])]
    for number, (right, latency) in enumerate(zip(rights, latencies_ms)):
        records += [
            Frame(number, number, '', 'seen'),
            Stats(number, 100 + number, budget, number, 0, number, 1, 9, measured={
                'vision_ms': 2.0, 'prefill_ms': 3.0, 'evict_ms': 0.5,
                'process_bytes': 2 << 20}),
            Answer(str(number), 'first' if not number else 'others', False, 0, number, '', 'q', '',
                   'a', 'OK', '', 'stop', 1, False, [], -1, [],
                   None if right is None else 'a', right, [], measured={
                       'latency': latency / 1e3, 'time_to_first_token': .001})]
    records.append(End({'seen': len(rights)}, len(rights), 0, 0, measured={
        'frames_per_second': 20.25, 'speed': 2.0, 'seconds': 1.0}))
    return Row.of(name, records)


GOOD = run('saddle 192', [True, True, True, False, None], [10, 20, 30, 40, 50])
POOR = run('streaming_llm | 96', [False, True, False, False, None], [1, 2, 3, 4, 5])


def test_the_tables_say_what_was_measured():
    assert tables([GOOD, POOR]) == """\
| run                 |  right | accuracy | frames/s | frame p50 ms | answer p50 ms | p95 ms | \
tokens | process MiB |    ended |
|---------------------|-------:|---------:|---------:|-------------:|--------------:|-------:|\
-------:|------------:|---------:|
| saddle 192          | 3 of 4 |    75.0% |     20.2 |          5.5 |          30.0 |   48.0 | \
   104 |           2 | complete |
| streaming_llm \\| 96 | 1 of 4 |    25.0% |     20.2 |          5.5 |           3.0 |    4.8 | \
   104 |           2 | complete |

| question | saddle 192 | streaming_llm \\| 96 |
|----------|-----------:|--------------------:|
| first    |     1 of 1 |              0 of 1 |
| others   |     2 of 3 |              1 of 3 |
"""


def test_nothing_judged_and_nothing_measured_are_dashes():
    row = Row.of('empty', [Run('bag', 'live', '', 'full', 9, [''])])
    text = tables([row])
    assert '| empty | 0 of 0 |        - |        - |' in text and 'broken off' in text
    assert 'question' not in text


def test_a_miss_is_named_with_what_is_lacking():
    rows = [GOOD, POOR]
    assert misses(rows) == misses(rows, min_accuracy=.25, max_latency_ms=48.0) == []
    accuracy, = misses(rows, min_accuracy=.3)
    assert accuracy == ('streaming_llm | 96: accuracy 25.0%, by 5.0% below --min-accuracy 30.0%')
    latency, = misses(rows, max_latency_ms=40)
    assert 'saddle 192: 95 % of the answers within 48.0 ms, 8.0 ms above' in latency
    unjudged = run('unjudged', [None], [1])
    assert 'no answer was judged' in misses([unjudged], min_accuracy=0.0)[0]


def test_a_baseline_is_an_earlier_comparison_or_a_run(tmp_path):
    (tmp_path / 'compare.json').write_text(json.dumps(
        {'runs': [GOOD.numbers(), {**POOR.numbers(), 'accuracy': .3}]}))
    baseline = read_baseline(tmp_path)
    assert baseline == {'saddle 192': .75, 'streaming_llm | 96': .3}
    assert misses([GOOD, POOR], baseline=baseline, tolerance=.05) == []
    worse, = misses([GOOD, POOR], baseline=baseline, tolerance=.02)
    assert 'accuracy 25.0%, 5.0% below the 30.0% of the baseline' in worse
    assert 'no run of that name' in misses([run('new', [True], [1])], baseline=baseline)[0]
    single = tmp_path / 'single'
    single.mkdir()
    journal = Journal(single / 'run.jsonl')
    for record in (Run('bag', 'live', '', 'full', 9, ['']), Answer(
            '1', 'n', False, 0, 0, '', '', '', '', 'OK', '', '', 0, False, [], -1, [], 'a', True,
            [])):
        journal.write(record)
    journal.close()
    assert read_baseline(single) == {'': 1.0}
    assert [m.split(':')[0] for m in misses([GOOD], baseline={'': 1.0})] == ['saddle 192']
    with pytest.raises(ValueError, match='holds neither compare.json nor run.jsonl'):
        read_baseline(tmp_path / 'nothing')
    (tmp_path / 'compare.json').write_text('{"runs": 3}')
    with pytest.raises(ValueError, match='not written by a comparison'):
        read_baseline(tmp_path)


@pytest.fixture(scope='module')
def material(tmp_path_factory):
    """Make a bag of a drive, and questions of which the last expects what is wrong."""
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
    to_bag = pytest.importorskip('infmllm_ros.replay.to_bag')
    folder = tmp_path_factory.mktemp('compare')
    assert to_bag.main([str(folder / 'bag'), '--rendered', 'drive', '--frames', '40', '--seed',
                        '3']) == 0
    episode, asked = Episode('drive', 3, 64, keys=0), []
    for number in range(40):
        next(episode)
        question = episode.ask(('now',)) if number in (20, 30) else None
        if question is not None:
            asked.append({'name': f'now{number}', 'question': question.text, 'frame': number,
                          'expected': question.answer})
    assert asked
    asked.append({'name': 'wrong', 'question': asked[0]['question'], 'at': 'end',
                  'expected': 'no such thing'})
    (folder / 'questions.yaml').write_text(yaml.safe_dump({'questions': asked}))
    return folder


def test_variants_share_the_model_and_read_the_bag_once_each(material, monkeypatch, capsys):
    from infmllm_ros.node import loading
    from infmllm_ros.replay import compare
    from infmllm_ros.replay.sources.bag import Bag
    counts = Counter()

    def counted(owner, name):
        original = getattr(owner, name)

        def wrapper(*args, **options):
            counts[name] += 1
            return original(*args, **options)
        monkeypatch.setattr(owner, name, wrapper)
    counted(loading, 'load_model')
    counted(Bag, '__iter__')
    out = material / 'out'
    arguments = [str(material / 'bag'), '--questions', str(material / 'questions.yaml'), '--out',
                 str(out), '--policies', 'saddle', 'random', '--budgets', '192', '1']
    assert compare.main(arguments) == 2  # a budget of one token cannot work
    said = capsys.readouterr()
    assert counts == {'load_model': 1, '__iter__': 2}
    assert [line.split(':')[1] for line in said.err.splitlines()] == [' saddle 1', ' random 1']
    told = json.loads((out / 'compare.json').read_text())
    runs = {one['name']: one for one in told['runs']}
    assert set(runs) == {'saddle 192', 'random 192'} and len(told['refused']) == 2
    assert [runs[name]['policy'] for name in runs] == ['saddle', 'random']
    for place, one in enumerate(told['runs']):
        records = list(read(out / f'{place:02}_{one["name"].replace(" ", "_")}'))
        judged = [r for r in records if isinstance(r, Answer)]
        assert one['right'] == sum(r.text == r.expected for r in judged) and one['judged'] == len(
            judged) >= 2
        assert one['questions']['wrong'] == {'right': 0, 'judged': 1}
        assert one['tokens'] <= 192 and one['state'] == 'complete'
    page = (out / 'compare.html').read_text()
    assert 'saddle 192' in page and '00_saddle_192/report.html' in page and '<svg' in page
    assert (out / '00_saddle_192' / 'report.html').exists()
    assert (out / 'compare.md').read_text() in said.out

    arguments = arguments[:-6] + ['--policies', 'saddle', '--no-report', '--min-accuracy', '.95',
                                  '--out', str(material / 'again')]
    assert compare.main(arguments) == 1
    assert 'below --min-accuracy 95.0%' in capsys.readouterr().err
    assert not list(material.glob('again/*/report.html'))


def test_a_folder_that_cannot_be_written_is_one_line(material, tmp_path, capsys):
    from infmllm_ros.replay import compare
    (tmp_path / '00_as_given').write_text('in its way')
    assert compare.main([str(material / 'bag'), '--out', str(tmp_path)]) == 3
    said = capsys.readouterr().err
    assert said.startswith('compare: ') and said.count('\n') == 1
    assert str(tmp_path) in said and 'can be written' in said


def test_wrong_input_is_one_line(material, tmp_path, capsys):
    from infmllm_ros.replay import compare
    for arguments in (['nowhere'], [str(material / 'bag'), '--baseline', str(tmp_path)],
                      [str(material / 'bag'), '-p', 'nonsense']):
        assert compare.main([*arguments, '--out', str(tmp_path / 'out')]) == 2
        said = capsys.readouterr()
        assert said.err.startswith('compare: ') and said.err.count('\n') == 1
    with pytest.raises(SystemExit):
        compare.main(['--min-accuracy', '90'])
    assert not list(tmp_path.glob('out/*'))
