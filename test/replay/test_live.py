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

"""A replay into a running node: the results of a plain session, every question ended once."""

from contextlib import closing
import itertools
from math import inf
from types import SimpleNamespace
from zipfile import ZipFile

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.engine import load_model, make_policy, StreamingSession
from infmllm_ros.replay.interview import Interview
from infmllm_ros.replay.plan import Entry, Plan, Telling
from infmllm_ros.replay.records import (
    Answer,
    Event,
    Frame,
    INTERRUPTED,
    Problem,
    read,
    Run,
    Stats,
    Told,
)
from infmllm_ros.replay.sources import Rendered
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
pytest.importorskip('rosbags', reason='bags are written by rosbags')
from infmllm_msgs.msg import Answer as AnswerMessage  # noqa: E402, I100
from infmllm_msgs.srv import MemoryFile  # noqa: E402
from infmllm_ros.replay import live  # noqa: E402
from infmllm_ros.replay.__main__ import main  # noqa: E402
from infmllm_ros.replay.bagging import open_bag  # noqa: E402
from infmllm_ros.replay.live import Live, meeting  # noqa: E402
from infmllm_ros.replay.live.meeting import LiveError, Meeting  # noqa: E402
from infmllm_ros.replay.offline import Offline  # noqa: E402
from infmllm_ros.replay.to_bag import main as to_bag  # noqa: E402
import rclpy  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

NAMESPACE = 'test_live'
FPS = Rendered.fps
PARAMETERS = {
    'model': str(MODEL), 'budget_tokens': MODEL_BUDGET, 'autostart': 'true',
    'use_sim_time': 'true', 'stats_period': 0.02, 'max_answer_tokens': 8,
    'max_question_tokens': 32, **{f'saddle.{name}': v for name, v in MODEL_POLICY.items()}}
# Best effort, one deep, is the default: on a busy machine a frame may take another's place.
QUALITY = {f'qos_overrides./{NAMESPACE}/image.subscription.{name}': value for name, value in (
    ('reliability', 'reliable'), ('history', 'keep_last'), ('depth', 10))}


@pytest.fixture(scope='module')
def node(start, robot, tmp_path_factory):
    """Start the node, with the bundled model."""
    folder = tmp_path_factory.mktemp('memory')
    process = start({**PARAMETERS, **QUALITY, 'memory.folder': str(folder)})
    process.wait_for_log('active: images from')
    robot.add_client(MemoryFile, 'save_memory')
    robot.meet()
    return process


@pytest.fixture(autouse=True)
def environment(monkeypatch, domain):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))


def play(source, plan, write, namespace=NAMESPACE, bags=(), **options):
    with closing(Live(source, plan, namespace=namespace, **options)) as run:
        return run.replay([SimpleNamespace(write=write)], bags=bags)


def interview(source):
    """Plan what an interviewer tells and asks during a drive, with the right answers."""
    interviewer, questions, tellings = Interview(source.seed), [], []
    for number, _ in enumerate(source):
        text, question = interviewer.go_on(source.episode)
        if text is not None:
            tellings.append(Telling(number / FPS, text))
        if question is not None:
            right = interviewer.right_answer(question, number)
            questions.append(Entry(f'at {number}', question.text, at=(number / FPS,),
                                   expected=(right,)))
    last = Entry('last', question_of(questions), at=(inf,), remember=True)
    return Plan((*questions, last), tuple(tellings))


def question_of(questions):
    return questions[-1].question if questions else 'what is ahead'


@pytest.fixture(scope='module')
def model():
    return load_model(str(MODEL))


def plainly(model, source, plan):
    """Do it with a session alone, frame by frame; returns it, and its answers by name."""
    session = StreamingSession(
        model, make_policy('saddle', budget=MODEL_BUDGET, **MODEL_POLICY), max_answer=8,
        max_question=32)
    answers = {}

    def do(when):
        for telling in plan.tellings:
            if telling.at == when:
                session.tell(telling.text)
        for entry in plan.questions:
            if when in entry.at or entry.frame is not None and entry.frame / FPS == when:
                answers[entry.name] = session.answer(
                    entry.question, remember=bool(entry.remember), choices=entry.choices or None)
    for number, frame in enumerate(source):
        session.observe(frame.image, frame.time_ns)
        do(number / FPS)
    do(inf)
    return session, answers


def check(records, answers):
    """Hold the answers to those of a session, with all that they rest on."""
    found = {r.name: r for r in records if isinstance(r, Answer)}
    assert set(found) == set(answers)
    assert len({r.id for r in records if isinstance(r, Answer)}) == len(
        [r for r in records if isinstance(r, Answer)])
    for name, answer in answers.items():
        record = found[name]
        assert (record.status, record.text, record.tokens, record.stamp_ns) == (
            'OK', answer.text, answer.tokens, answer.stamp_ns), name
        assert [tuple(e[:2]) for e in record.evidence] == [
            (e.stamp_ns, e.camera) for e in answer.evidence]
        np.testing.assert_allclose([e[2] for e in record.evidence],
                                   [e.weight for e in answer.evidence], atol=2e-6)
        np.testing.assert_allclose(record.probabilities, answer.probabilities, atol=2e-6)


def check_memory(robot, model, *others):
    """Hold the node's memory to those of sessions, token for token."""
    saved = robot.call('save_memory', MemoryFile.Request(path='memory'))
    assert saved.success, saved.message
    loaded = StreamingSession.load(saved.path, model)
    for layer in range(model.config.get_text_config().num_hidden_layers):
        for other in others:
            np.testing.assert_array_equal(loaded.kept(layer), other.kept(layer))


def check_offline(source, plan, records, model, file):
    """Hold what was told and answered to an offline replay; returns its session, from a file."""
    given = {name: value for name, value in PARAMETERS.items()
             if name not in ('autostart', 'use_sim_time', 'stats_period')}
    offline = []
    with closing(Offline(source, plan, given, model)) as run:
        run.replay([SimpleNamespace(write=offline.append)], save_memory=file)
    pairs = list(zip(*([r for r in run if isinstance(r, (Told, Answer))]
                       for run in (records, offline)), strict=True))
    assert len(pairs) == len(plan.tellings) + len(plan.questions)
    for one, other in pairs:
        numbers = []
        for record in (one, other):
            record.measured = {}
            if isinstance(record, Answer):
                numbers.append([*record.probabilities, *(e.pop() for e in record.evidence)])
                record.probabilities = []
        assert one == other  # but for numbers, which depend on how many threads there were
        if numbers:
            np.testing.assert_allclose(*numbers, atol=2e-6)
    return StreamingSession.load(file, model)


def test_with_hold_nothing_is_dropped_and_all_is_as_in_a_plain_session(
        node, robot, model, tmp_path):
    source = Rendered(3, count=200)
    plan = interview(source)
    asked = [round(e.at[0] * FPS) for e in plan.questions[:-1]]
    assert len(plan.tellings) == 3 and len(plan.questions) == 4
    records, bag = [], open_bag(tmp_path / 'bag')
    end = play(source, plan, records.append, bags=[bag], rate=100, hold=True)
    bag.close()
    assert not [r for r in records if isinstance(r, Problem)] and records[-1] is end
    session, answers = plainly(model, source, plan)
    check(records, answers)
    heard = messages(tmp_path / 'bag')
    told = [deserialize_message(raw, AnswerMessage) for raw in heard[f'/{NAMESPACE}/answer']]
    assert [a.text for a in told] == [r.text for r in records if isinstance(r, Answer)]
    check_memory(robot, model, session,
                 check_offline(source, plan, records, model, tmp_path / 'offline'))
    run = records[0]
    assert [r.asked_ns for r in records if isinstance(r, Answer)] == [
        frame.time_ns for i, frame in enumerate(source) if i in (*asked, 199)]
    assert isinstance(run, Run) and (run.mode, run.model, run.policy, run.budget) == (
        'live', 'bundled', 'saddle', MODEL_BUDGET)
    frames = [(r.number, r.stamp_ns, r.fate) for r in records if isinstance(r, Frame)]
    assert frames == [(i, frame.time_ns, 'sent') for i, frame in enumerate(source)]
    assert [r.text for r in records if isinstance(r, Told)] == [t.text for t in plan.tellings]
    assert max(r.tokens for r in records if isinstance(r, Stats)) <= MODEL_BUDGET
    right = sum(answers[e.name].text == e.expected[0] for e in plan.questions if e.expected)
    assert (end.frames, end.answers, end.judged, end.right, end.problem) == (
        {'sent': 200}, 4, 3, right, '')
    assert len(heard[f'/{NAMESPACE}/cache_stats']) == len(
        [r for r in records if isinstance(r, Stats)])
    jpeg = deserialize_message(heard[f'/{NAMESPACE}/evidence_image'][-1], CompressedImage)
    assert bytes(jpeg.data[:2]) == b'\xff\xd8'
    assert '/rosout' not in heard and '/diagnostics' in heard


def messages(folder):
    """Read the bytes of a bag's messages, by topic."""
    from rosbags.rosbag2 import Reader
    found = {}
    with Reader(folder) as reader:
        for connection, _, raw in reader.messages():
            found.setdefault(connection.topic, []).append(bytes(raw))
    return found


def test_at_a_low_rate_nothing_is_held_and_all_is_the_same(node, robot, model):
    source = Rendered(5, count=8)
    plan = Plan((Entry('choice', 'what is ahead', at=(.2,), choices=('car', 'tree')),
                 Entry('frame', 'what is on the left', frame=6),
                 Entry('last', 'what is ahead', at=(inf,))),
                (Telling(.1, 'the target is the white cube'),))
    session, answers = plainly(model, source, plan)
    for rate in (.5, .1, .02, .005):  # until the machine keeps up
        assert robot.trigger('reset').success
        records = []
        play(source, plan, records.append, rate=rate)
        problems = [r.text for r in records if isinstance(r, Problem)]
        assert all('dropped by the node' in text for text in problems), problems
        try:
            assert not problems
            check(records, answers)
            check_memory(robot, model, session)
            return
        except AssertionError:  # what is late is told and asked all the same, in between frames
            if rate == .005:
                raise


def test_every_question_ends_once_whatever_comes_of_it(node, robot):
    source, records = Rendered(5, count=12), []
    plan = Plan((Entry('long', 'x' * 5000, at=(.1,)), Entry('fine', 'what is ahead', at=(.2,)),
                 Entry('late', 'what is ahead', at=(.3,), expected=('a',)),
                 Entry('never', 'what is ahead', frame=99)))
    original = live.Follower.ask

    def ask(follower, turn, asked_ns):
        follower._patience = -1.0 if turn.entry.name == 'late' else 120.0
        original(follower, turn, asked_ns)
        follower.look()  # it is late before the node can answer

    live.Follower.ask = ask
    assert robot.trigger('reset').success
    try:
        end = play(source, plan, records.append, hold=True, rate=100)
    finally:
        live.Follower.ask = original
    answers = [r for r in records if isinstance(r, Answer)]
    assert [(r.name, r.status, r.right) for r in answers] == [
        ('long', 'BAD_QUERY', None), ('fine', 'OK', None), ('late', 'LOST', False)]
    assert 'no answer came' in answers[2].message and (end.answers, end.judged) == (3, 1)
    problem, = [r.text for r in records if isinstance(r, Problem)]
    assert 'question never is not asked' in problem
    again = []
    play(Rendered(5, count=1), Plan(), again.append, hold=True)
    assert 'remembers 12 frames from before' in next(
        r.text for r in again if isinstance(r, Problem))
    assert not [r for r in records if isinstance(r, Event)]


def test_the_command_plays_a_bag_into_the_node_and_writes_all_that_offline_does(
        node, robot, tmp_path, capsys):
    assert to_bag([str(tmp_path / 'drive'), '--rendered', 'drive', '--frames', '3']) == 0
    (tmp_path / 'questions.yaml').write_text(
        'questions: [{question: what is ahead, at: end, expected: no such thing}]')
    assert robot.trigger('reset').success
    status = main([str(tmp_path / 'drive'), '--questions', str(tmp_path / 'questions.yaml'),
                   '--live', '--namespace', NAMESPACE, '--hold', '--rate', '100',
                   '--out', str(tmp_path / 'out')])
    said = capsys.readouterr()
    assert status == 1 and 'frames: 3 sent' in said.out and '0 of 1 right' in said.out, said
    assert {file.name for file in (tmp_path / 'out').iterdir()} == {
        'run.jsonl', 'bag', 'thumbnails.zip', 'report.html'}
    evidence = [r for r in read(tmp_path / 'out') if isinstance(r, Answer)][0].evidence
    with ZipFile(tmp_path / 'out' / 'thumbnails.zip') as pictures:
        assert {f'_/{stamp}.jpg' for stamp, _, _ in evidence} <= set(pictures.namelist())
    assert evidence


def test_a_camera_that_the_node_does_not_have_is_said_and_nothing_is_written(node):
    source, records = Rendered(5, count=3), []
    source.msgtypes = {'left': source.msgtypes[''], 'right': source.msgtypes['']}
    with pytest.raises(LiveError, match="'left' of rendered drive 5 is none of /test_live/infm"):
        play(source, Plan(), records.append)
    assert not records


def refused(follower, monkeypatch, looks):
    """Say why a node is not active that may be found; hears `looks` times of one that loads."""
    monkeypatch.setattr(meeting, 'START', 0.0)
    heard = itertools.count()

    def spin(condition, timeout):
        if next(heard) == looks:
            follower.state = 'inactive'
        return condition()
    with pytest.raises(LiveError) as error:
        Meeting(None, follower, spin).active()
    assert next(heard) > looks
    return str(error.value)


def test_a_node_that_is_not_there_or_not_active_is_said(monkeypatch):
    follower = SimpleNamespace(name='', stats=None, stats_topic='/a/cache_stats', state='',
                               status=None)
    assert 'nobody publishes /a/cache_stats' in refused(follower, monkeypatch, looks=0)
    follower.name = '/a/infmllm'
    assert 'it publishes no statistics' in refused(follower, monkeypatch, looks=1)
    follower.state, follower.status = 'configuring', SimpleNamespace(message='inactive, so: do it')
    assert refused(follower, monkeypatch, looks=20) == (
        '/a/infmllm is not active: inactive, so: do it')


@pytest.mark.parametrize('durability, reason', [
    (DurabilityPolicy.TRANSIENT_LOCAL, 'RELIABLE, TRANSIENT_LOCAL does not match Image'),
    (None, r'nobody subscribes to /image \(Image\)')])
def test_frames_that_would_not_be_heard_are_not_sent(monkeypatch, durability, reason):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'OFF')
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        end = rclpy.create_node('end', context=context)
        if durability:
            end.create_subscription(Image, 'image', print, QoSProfile(
                depth=1, durability=durability))
        publisher = end.create_publisher(Image, 'image', 1)
        with pytest.raises(LiveError, match=reason):
            Meeting(end, SimpleNamespace(name='/infmllm'), lambda condition, _: condition()).heard(
                publisher)
    finally:
        rclpy.shutdown(context=context)


def test_an_interrupted_replay_keeps_what_there_is(node):
    records = []

    def heed():
        if sum(isinstance(record, Frame) for record in records) > 4:
            raise KeyboardInterrupt

    end = play(Rendered(5, count=600), Plan(), records.append, rate=2, heed=heed)
    assert end.problem == INTERRUPTED and records[-1] is end
    assert 5 <= end.frames['sent'] < 600


def test_a_node_that_dies_ends_the_replay_and_what_there_is_is_kept(node):
    records = []

    def write(record):
        records.append(record)
        if isinstance(record, Frame) and record.number == 4:
            node.stop()

    plan = Plan((Entry('early', 'what is ahead', at=(.1,)), Entry('late', 'why', at=(inf,))))
    end = play(Rendered(5, count=600), plan, write, rate=2)
    assert '/test_live/infmllm has gone after frame' in end.problem and records[-1] is end
    assert [r.text for r in records if isinstance(r, Problem)][-1] == end.problem
    assert [r.name for r in records if isinstance(r, Answer)] == ['early']
    assert 5 <= end.frames['sent'] < 600
