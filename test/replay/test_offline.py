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

"""A replay without DDS, held against a plain loop over a session."""

from contextlib import closing
import json
import signal
import zipfile

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped
from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.engine import EngineError, load_model, make_policy, StreamingSession
from infmllm_ros.node.mailbox import FATES
from infmllm_ros.node.option import ParameterError
from infmllm_ros.replay import records
from infmllm_ros.replay.bagging import open_bag
from infmllm_ros.replay.offline import Offline
from infmllm_ros.replay.plan import Entry, Plan, Telling
from infmllm_ros.replay.records import INTERRUPTED, Journal
from infmllm_ros.replay.records.thumbnails import Thumbnails
from infmllm_ros.replay.sources import Frame, IMAGE, open_source, Rendered, Source
from nav_msgs.msg import Odometry, Path
import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

COUNT = 80
PLAN = Plan((
    Entry('ahead', 'what is ahead', every=1.0, expected=('Wall',)),
    Entry('told', 'what is the visitor', at=(2.02,), choices=('iris', 'robin')),
    Entry('kept', 'what is ahead', frame=30, remember=True),
    Entry('last', 'what came first', at=(float('inf'),)),
), (Telling(1.02, 'remember the visitor is iris'),), 'plan.yaml')


@pytest.fixture(scope='module')
def model():
    return load_model(MODEL)


def replay_offline(source, plan, given, sinks, *, model=None, **options):
    """Replay once."""
    with closing(Offline(source, plan, given, model)) as run:
        return run.replay(sinks, **options)


class Sink(list):
    """Keeps records."""

    write = list.append

    def of(self, kind):
        return [record for record in self if isinstance(record, kind)]


class Bag(list):
    """Keeps messages."""

    def publish(self, topic, stamp_ns, message):
        self.append((topic, stamp_ns, message))


class Given(Source):
    """A source of the frames that a test gives."""

    name, count = 'given', None

    def __init__(self, frames, **about):
        self.frames = frames
        self.__dict__.update(about)

    def __iter__(self):
        return iter(self.frames)


def grey(value, size=64):
    return np.full((size, size, 3), value, np.uint8)


def test_it_is_what_a_plain_loop_over_a_session_gives(model, tmp_path):
    sink = Sink()
    replay_offline(Rendered(3, count=COUNT), PLAN, {}, [sink], model=model,
                   save_memory=tmp_path / 'memory')

    session = StreamingSession(model, make_policy('saddle', budget=MODEL_BUDGET, **MODEL_POLICY),
                               max_question=32, max_answer=8)
    texts, stats = [], []
    for number, frame in enumerate(Rendered(3, count=COUNT)):
        session.observe(frame.image, frame.time_ns)
        stats.append((session.stats().tokens_seen, session.stats().tokens_evicted))
        if number % 20 == 0:  # at 20 frames a second
            texts.append((f'ahead@{number // 20}', session.answer('what is ahead').text))
        if number == 20:  # 1.0 s, and 1.05 s comes next
            session.tell('remember the visitor is iris')
        if number == 30:
            texts.append(('kept', session.answer('what is ahead', remember=True).text))
        if number == 40:
            texts.append(('told', session.answer(
                'what is the visitor', choices=['iris', 'robin']).text))
    last = session.answer('what came first')

    answers = sink.of(records.Answer)
    assert [(a.id, a.text) for a in answers] == [*texts, ('last', last.text)]
    assert [s[:2] for s in answers[-1].evidence] == [[e.stamp_ns, e.camera] for e in last.evidence]
    assert [e[2] for e in answers[-1].evidence] == pytest.approx(
        [e.weight for e in last.evidence], abs=1e-6)
    assert [(s.tokens_seen, s.tokens_evicted) for s in sink.of(records.Stats)] == stats
    saved = StreamingSession.load(tmp_path / 'memory', model)
    assert stats[-1][1] > 0, 'something was evicted'
    for layer in range(len(session.cache.layers)):
        assert saved.kept(layer).tolist() == session.kept(layer).tolist()
    assert [a.right for a in answers if a.name == 'ahead'] == [
        text == 'wall' for name, text in texts if name.startswith('ahead')]
    told, = sink.of(records.Told)
    assert (told.stamp_ns, told.text) == (2_020_000_000, 'remember the visitor is iris')


def test_two_runs_are_the_same_and_a_loaded_model_serves_both(model, tmp_path):
    ends = []
    for name in 'ab':
        journal = Journal(tmp_path / f'{name}.jsonl')
        ends.append(replay_offline(Rendered(1, count=40), PLAN, {}, [journal], model=model))
        journal.close()
    assert ends[0].digest == ends[1].digest != ''
    lines = [(tmp_path / f'{name}.jsonl').read_text() for name in 'ab']
    assert lines[0] != lines[1], 'what was measured differs'
    run, *_, end = records.read(tmp_path / 'a.jsonl')
    assert (run.model, run.budget, run.cameras, run.questions) == (
        'bundled', MODEL_BUDGET, [''], 'plan.yaml')
    assert run.parameters['saddle.window'] == 'marker'
    assert (end.frames, end.answers, end.judged) == ({'seen': 40}, 5, 2)


def test_a_frame_at_which_the_model_fails_is_not_laid_to_another_camera(model):
    broken, still = np.full((4, 4), 255, np.uint8), grey(0)
    frames = [Frame(10**9 + i * 10**8, image=image, camera=camera) for i, camera, image in (
        (0, 'a', still), (1, 'b', still), (2, 'a', broken), (3, 'b', still), (20, 'a', grey(99)))]
    source = Given(frames)
    source.msgtypes = dict.fromkeys('ab', IMAGE)
    sink = Sink()
    replay_offline(source, Plan(), {'min_change': 0.1, 'max_frame_rate': 1.0}, [sink], model=model)
    assert sorted((f.number, f.camera, f.fate) for f in sink.of(records.Frame)) == [
        (0, 'a', 'seen'), (1, 'b', 'seen'), (2, 'a', 'failed'), (3, 'b', 'similar'),
        (4, 'a', 'seen')]


def test_the_node_and_the_records_have_the_same_words_for_the_fates_of_frames():
    assert {*records.FATES} - {records.SENT} == {*FATES}


def test_what_becomes_of_each_frame(model):
    """A still camera, a rate, a broken message, and one that is no image, in source time."""
    pictures = [grey(value) for value in (0, 0, 200, 200, 90)]
    frames = [Frame(10**9 + i * 10**8, image=pictures[i]) for i in range(5)]
    frames.insert(3, Frame(10**9 + 250_000_000, raw=b'\0\1\0\0broken'))
    frames.insert(4, Frame(10**9 + 260_000_000, image=np.zeros((4, 4), np.uint8)))
    sink = Sink()
    end = replay_offline(Given(frames), Plan(), {'min_change': 0.1}, [sink], model=model)
    fates = [(f.number, f.fate) for f in sink.of(records.Frame)]
    assert fates == [(0, 'seen'), (1, 'similar'), (2, 'seen'), (3, 'bad'), (4, 'failed'),
                     (5, 'seen'), (6, 'seen')], 'after one that fails the gate is open'
    assert end.frames == {'seen': 4, 'similar': 1, 'bad': 1, 'failed': 1}
    reasons = [f.reason for f in sink.of(records.Frame) if f.fate in ('bad', 'failed')]
    assert 'sensor_msgs/msg/Image' in reasons[0] and all(reasons)

    sink = Sink()
    frames = [Frame(10**9 + i * 10**8, image=grey(10 * i)) for i in range(11)]
    replay_offline(Given(frames), Plan((Entry('q', 'what is ahead', at=(float('inf'),)),)),
                   {'max_frame_rate': 2.5}, [sink], model=model)
    # seen at 0 s, at 0.4 s, at 0.8 s, and the last one as it is asked about
    assert [f.number for f in sink.of(records.Frame) if f.fate == 'seen'] == [0, 4, 8, 10]
    assert {f.fate for f in sink.of(records.Frame)} == {'seen', 'dropped'}
    assert sink.of(records.Answer)[0].stamp_ns == frames[10].time_ns


def test_a_question_that_fails_is_an_answer_with_a_status(model):
    sink = Sink()
    plan = Plan((Entry('long', 'what ' * 200, frame=2, expected=('a',)),
                 Entry('fine', 'what is ahead', frame=3)))
    end = replay_offline(Rendered(count=5), plan, {}, [sink], model=model)
    long, fine = sink.of(records.Answer)
    assert (long.status, long.right, fine.status) == ('BAD_QUERY', False, 'OK')
    assert 'max_question_tokens' in long.message or 'tokens' in long.message
    assert (end.answers, end.judged, end.right, end.problem) == (2, 1, 0, '')


def test_a_run_that_the_engine_or_a_person_ends_keeps_what_there_is(model):
    sink = Sink()
    end = replay_offline(Rendered(count=90), PLAN, {'policy': 'full', 'budget_tokens': 192},
                         [sink], model=model)
    seen = len([f for f in sink.of(records.Frame) if f.fate == 'seen'])
    assert 30 < seen < 40, 'five tokens a frame in a budget of 192'
    assert 'full' in end.problem
    assert sink[-1] is end and sink.of(records.Memory)

    def interrupt(count):
        if count == 25:
            signal.raise_signal(signal.SIGINT)
    sink = Sink()
    run = Offline(Rendered(count=90), PLAN, {}, model)
    # whoever started the tests may have it ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        end = run.replay([sink], on_frame=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (end.problem, end.frames) == (INTERRUPTED, {'seen': 25})
    assert [a.id for a in sink.of(records.Answer)] == ['ahead@0', 'ahead@1']
    run.close()


def test_a_source_that_ends_early_is_asked_what_can_be_known(model):
    frames = [Frame(10**9 + i * 10**8, image=grey(i)) for i in range(5)]
    sink = Sink()
    plan = Plan((Entry('later', 'what is ahead', at=(7.0,)),
                 Entry('end', 'what is ahead', at=(float('inf'),))))
    end = replay_offline(Given(frames, problem='torn after 5'), plan, {}, [sink], model=model)
    assert [a.id for a in sink.of(records.Answer)] == ['end']
    problems = [p.text for p in sink.of(records.Problem)]
    assert 'later' in problems[0] and problems[-1] == end.problem == 'torn after 5'


def test_messages_and_pictures(model, tmp_path):
    bag, sink = Bag(), Sink()
    thumbnails = Thumbnails(tmp_path / 'thumbnails.zip')
    replay_offline(Rendered(2, count=150), PLAN, {}, [sink], model=model, bags=[bag],
                   thumbnails=thumbnails)
    thumbnails.close()
    topics = {topic for topic, _, _ in bag}
    assert topics == {'/answer', '/answer_text', '/answer_stream', '/cache_stats',
                      '/evidence_image'}
    assert [message.id for topic, _, message in bag if topic == '/answer'] == [
        a.id for a in sink.of(records.Answer)]
    stamps = [stamp for _, stamp, _ in bag]
    assert stamps == sorted(stamps) and stamps[0] >= 10**9
    with zipfile.ZipFile(tmp_path / 'thumbnails.zip') as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
        assert archive.read(sorted(names)[0])[:3] == b'\xff\xd8\xff'
    evidence = {f'_/{stamp}.jpg' for a in sink.of(records.Answer) for stamp, _, _ in a.evidence}
    assert evidence and evidence <= names
    others = sorted(int(name[2:-4]) for name in names - evidence)
    assert 20 < len(names) <= 60 + len(evidence)
    assert others[0] < 3 * 10**9 and others[-1] > 6 * 10**9, 'over the whole run'
    memories = sink.of(records.Memory)
    assert 140 <= len(memories) <= 152
    assert sum(tokens for _, _, tokens in memories[-1].held) <= MODEL_BUDGET


def test_watches_run_unchanged(model, tmp_path):
    watches = tmp_path / 'watches.yaml'
    watches.write_text(json.dumps([
        {'name': 'ahead', 'question': 'what is ahead', 'choices': ['wall', 'none'],
         'period': 1.0}]))
    sink = Sink()
    replay_offline(Rendered(3, count=61), Plan(), {'watches': str(watches)}, [sink], model=model)
    answers = sink.of(records.Answer)
    assert [(a.asked_ns - 10**9) / 1e9 for a in answers] == [0.0, 1.0, 2.0, 3.0]
    assert all(a.watch and a.name == 'ahead' for a in answers)
    assert [a.id for a in answers] == ['ahead#1', 'ahead#2', 'ahead#3', 'ahead#4']
    assert sink.of(records.Event)[0].previous == -1


def test_two_cameras(model):
    frames = [Frame(10**9 + i * 10**8, image=grey(20 * i), camera=camera)
              for i in range(6) for camera in ('front', 'rear')]
    source = Given(frames, msgtypes=dict.fromkeys(('front', 'rear'), 'sensor_msgs/msg/Image'))
    sink = Sink()
    plan = Plan((Entry('rear', 'what is ahead', frame=10, camera='rear'),))
    end = replay_offline(source, plan, {'camera_label': '', 'camera_question': ''}, [sink],
                         model=model)
    assert end.frames == {'seen': 12}
    answer, = sink.of(records.Answer)
    assert (answer.camera, answer.stamp_ns) == ('rear', frames[9].time_ns)
    with pytest.raises(ParameterError, match="'front' of the source is none of"):
        Offline(source, plan, {'cameras': ['left', 'right']}, model)


def test_where_the_path_leads_is_read_from_the_bag(model, tmp_path):
    """A straight path of 40 m along x, and a robot at its beginning, beside the images."""
    def stamp(ns):
        return Header(stamp=Time(sec=ns // 10**9, nanosec=ns % 10**9), frame_id='map')
    bag = open_bag(tmp_path / 'bag')
    for i in range(4):
        now = 10**9 + i * 10**8
        robot = Odometry(header=stamp(now), child_frame_id='base')
        path = Path(header=stamp(now), poses=[PoseStamped(
            pose=Pose(position=Point(x=float(x)))) for x in range(0, 41, 2)])
        bag.publish('/odom', now, robot)
        bag.publish('/plan', now, path)
        bag.publish('/image', now + 1, Image(
            header=stamp(now), height=4, width=4, step=12, encoding='rgb8', data=bytes(48)))
    bag.close()
    heard, sink = Bag(), Sink()
    run = Offline(open_source(tmp_path / 'bag'), Plan((Entry('a', 'what is ahead', frame=3),)), {
        'nav.enabled': True, 'max_question_tokens': 400, 'budget_tokens': 600,
        'nav.period': 0.1}, model, remap={'path': '/plan'})
    end = run.replay([sink], bags=[heard])
    run.close()
    assert (end.frames, end.problem) == ({'seen': 4}, '')
    answer, = sink.of(records.Answer)
    assert answer.status == 'OK' and 'straight' in answer.context
    maneuvers = [m for topic, _, m in heard if topic == '/maneuver']
    assert maneuvers and maneuvers[-1].distance == pytest.approx(40, abs=10)


@pytest.mark.parametrize('given, told', [
    ({'budget_tokns': 100}, 'did you mean budget_tokens'),
    ({'nonsense': 100}, 'nonsense does not exist'),
    ({'budget_tokens': 'many'}, 'must be of type integer'),
    ({'budget_tokens': -1}, '0 to'),
    ({'policy': 'sadle'}, 'one of saddle'),
    ({'cameras': 'front'}, 'string array'),
    ({'watches': 'nowhere.yaml'}, 'cannot be read'),
    ({'model': '/nowhere'}, '/nowhere'),
    ({'budget_tokens': 3}, 'budget'),
])
def test_what_is_wrong_with_the_parameters_is_known_before_anything_is_written(given, told):
    with pytest.raises((ParameterError, EngineError), match=told) as error:
        Offline(Rendered(count=3), Plan(), given)
    assert '\n' not in str(error.value)
