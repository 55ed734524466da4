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

"""A model that hangs or runs out of memory: noticed, told, got over."""

import gc
from itertools import islice
from types import SimpleNamespace
import weakref

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.node import retired
from infmllm_ros.node.loading import open_session, renew
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.parameters import Settings
from infmllm_ros.node.questions import Status
from infmllm_ros.node.relief import out_of_memory, Relief
from infmllm_ros.node.watchdog import ACTIONS, Watchdog
from infmllm_ros.node.worker import Worker
import pytest
from stand_ins import ask, hold, Listener, Session, TIMEOUT
import torch

LACK = torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')


class Node:
    """A node's parameters and its log."""

    def __init__(self, action, timeout=60.0):
        self.values = {'watchdog_action': action, 'watchdog_timeout': timeout}
        self.errors, self.infos = [], []

    def get_parameter(self, name):
        return SimpleNamespace(value=self.values[name])

    def get_logger(self):
        return SimpleNamespace(error=self.errors.append, info=self.infos.append)


@pytest.mark.parametrize('action', ACTIONS)
def test_a_question_that_hangs_is_told_once_and_its_later_outcome_dropped(
        action, session, listener):
    done, now = [], [0.0]
    worker = Worker(listener, clock=lambda: now[0])
    worker.load(lambda: session).result(TIMEOUT)
    worker.resume()
    watchdog = Watchdog(node := Node(action), {
        name: lambda reason, name=name: done.append(name) for name in ('reset', 'exit')})
    worker.offer(Frame('image', 1))
    listener.wait(lambda: listener.seen)
    session.words.clear()
    running = ask(worker)
    listener.wait(lambda: listener.pieces and 'threading.py' in worker.where())
    watchdog.look(worker)
    assert not watchdog.hung
    waits = ask(worker)
    now[0] += 61
    for _ in range(4):
        watchdog.look(worker)
    assert (watchdog.times, len(node.errors)) == (1, 1)
    assert 'no progress' in node.errors[0] and 'question' in node.errors[0]
    assert 'threading.py' in node.errors[0], 'where it hangs'
    assert done == ([action] if action in ('reset', 'exit') else [])
    if action == 'report':
        assert not listener.outcomes
    else:
        for question in (running, waits):
            assert listener.outcome(question).status == Status.FAILED
            assert 'hangs' in listener.outcome(question).message
    said = len(listener.pieces)
    session.words.set()  # the listener asserts that no question is told twice
    assert worker.wait_idle(TIMEOUT)
    watchdog.look(worker)
    assert not watchdog.hung and node.infos
    if action != 'report':
        assert len(listener.pieces) == said
    assert listener.outcome(ask(worker)).status == Status.OK
    assert worker.stop(TIMEOUT)


def test_progress_is_no_hanging_and_loading_may_take_any_time(session, listener):
    watchdog = Watchdog(node := Node('fail'), {})
    now = [0.0]
    worker = Worker(listener, clock=lambda: now[0])
    session.gate.clear()
    loading = worker.load(lambda: session._step('load') or session)
    assert session.entered.wait(TIMEOUT)
    now[0] += 1000
    watchdog.look(worker)
    assert worker.health().job == 'load' and not watchdog.hung
    session.gate.set()
    loading.result(TIMEOUT)
    worker.resume()
    worker.offer(Frame('image', 1))
    listener.wait(lambda: listener.seen)
    session.words.clear()
    ask(worker)
    listener.wait(lambda: len(listener.pieces) == 1)
    now[0] += 50
    session.words.set()
    listener.wait(lambda: len(listener.outcomes) == 1)
    assert worker.wait_idle(TIMEOUT)
    session.words.clear()
    asked = ask(worker)
    listener.wait(lambda: len(listener.pieces) == 4)
    now[0] += 50
    watchdog.look(worker)
    assert not watchdog.hung, '100 s in all, but 50 s since the last piece'
    now[0] += 11
    watchdog.look(worker)
    assert '61.0 s' in watchdog.hung and len(node.errors) == 1
    assert listener.outcome(asked).status == Status.FAILED
    session.words.set()
    assert worker.stop(TIMEOUT)


def test_a_deadline_is_told_while_a_frame_hangs(worker, session, listener):
    watchdog = Watchdog(Node('report', timeout=0.0), {})
    hold(worker, session, listener)
    late = ask(worker, deadline_s=0.05)
    listener.wait(lambda: watchdog.look(worker) or late in listener.outcomes)
    assert listener.outcomes[late].status == Status.EXPIRED


def test_another_worker_goes_on_with_all_but_the_memory(worker, session, listener):
    worker.offer(Frame('image', 1))
    listener.wait(lambda: listener.seen)
    hold(worker, session, listener)
    command = worker.reset()
    worker.offer(Frame('waits', 3))
    heir, fresh = worker.succeeded('it hangs'), Session()
    assert 'it hangs' in str(command.exception(TIMEOUT))
    heir.load(lambda: fresh).result(TIMEOUT)
    heir.resume()
    listener.wait(lambda: 'waits' in listener.seen)
    assert listener.outcome(ask(heir)).answer.stamp_ns == 3
    session.gate.set()  # the old thread ends its frame, and itself
    assert worker.stop(TIMEOUT)
    tally, = heir.health().cameras
    assert (tally.received, tally.seen, tally.failed, tally.waiting) == (3, 2, 1, 0)
    assert tally.causes == {'hung': 1} and tally.newest.stamp_ns == 3
    assert heir.health().last_failure == 'it hangs'
    assert listener.seen == ['image', 'waits']
    assert heir.stop(TIMEOUT)


def test_of_a_worker_that_is_left_at_work_nothing_is_heard_any_more(
        worker, session, listener, monkeypatch):
    monkeypatch.setattr(retired, 'PATIENCE', 0.05)
    hold(worker, session, listener)
    question, warnings = ask(worker), []
    node = SimpleNamespace(context=SimpleNamespace(ok=lambda: True),
                           get_logger=lambda: SimpleNamespace(warning=warnings.append))
    retired.Retired(node).stop(worker)
    assert len(warnings) == 1
    assert listener.outcome(question).status == Status.CANCELLED
    session.gate.set()
    assert worker.stop(TIMEOUT)
    assert not listener.seen, 'it is of a memory that is given up'


def test_where_no_other_memory_can_be_made_the_node_is_unconfigured_and_says_why(
        domain, tiny, monkeypatch):
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
    from infmllm_ros.node import node as module
    context = rclpy.context.Context()
    rclpy.init(context=context, domain_id=domain)
    node = module.InfmllmNode(
        context=context, namespace='test_no_other_memory', parameter_overrides=[
            rclpy.Parameter(name, value=value) for name, value in {
                'model': tiny, 'budget_tokens': 256, 'max_question_tokens': 96}.items()])

    def lack(session):
        raise LACK

    try:
        node.trigger_configure()
        node.trigger_activate()
        assert node._state == 'active'
        monkeypatch.setattr(module, 'renew', lack)
        node._replace_worker('it hangs')
        assert node._state == 'unconfigured' and node._worker is None
        assert 'CUDA out of memory' in node._error
        node.trigger_configure()
        node.trigger_activate()
        assert (node._state, node._error) == ('active', '')
    finally:
        node.close(TIMEOUT)
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.fixture(scope='module')
def bundled():
    """Open the bundled model, as the node does."""
    return open_session(Settings(
        model=str(MODEL), budget_tokens=MODEL_BUDGET, max_question_tokens=32, max_answer_tokens=8,
        policy_fields=dict(MODEL_POLICY)), lambda _: None)


@pytest.mark.parametrize('place', ['vision', 'prefill', 'decode'])
@pytest.mark.parametrize('mode', ['drop', 'shrink'])
def test_out_of_memory_costs_a_frame_or_an_answer_and_the_next_one_is_right(
        bundled, place, mode, monkeypatch):
    bundled.reset()
    bundled.set_budget(MODEL_BUDGET)
    listener = Listener()
    worker = Worker(listener, thread=False)
    worker.relief.mode = mode
    worker.load(lambda: bundled)
    worker.run_pending()
    worker.resume()
    episode = Episode('drive', 3, keys=0)
    steps = list(islice(episode, 4))
    told = episode.tell('target', 'blue cup').text

    def show(step):
        worker.offer(Frame(step.frame, step.ordinal))
        worker.run_pending()

    show(steps[0])
    worker.tell(told)
    show(steps[1])
    question = next(q.text for q in episode.questions(('told',)) if q.name == 'told:target')
    part, name = ((bundled.adapter, 'encode') if place == 'vision' else (bundled, 'feed'))
    feed = getattr(part, name)

    def lack(*args, **options):
        if place != 'decode' or len(args[0]) == 1:  # one token: the answer's own
            raise LACK
        return feed(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(part, name, lack)
        lost = ask(worker, question) if place == 'decode' else None
        show(steps[2]) if place != 'decode' else worker.run_pending()
    tally, = worker.health().cameras
    assert len(listener.reliefs) == worker.health().exhausted == 1
    assert 'out of memory' in listener.reliefs[0]
    assert 'on_out_of_memory' in listener.reliefs[0] or mode == 'shrink'
    if place == 'decode':
        assert listener.outcomes[lost].status == Status.FAILED
        assert listener.outcomes[lost].message == listener.reliefs[0]
    else:
        assert tally.causes == {'OutOfMemoryError': 1}
    assert bundled.stats().budget == (MODEL_BUDGET if mode == 'drop' else MODEL_BUDGET * 3 // 4)
    show(steps[3])
    good = ask(worker, question)
    worker.run_pending()
    assert listener.outcomes[good].status == Status.OK
    assert listener.outcomes[good].answer.text.strip() == 'blue cup'


def test_the_budget_is_never_lowered_below_its_floor(bundled):
    bundled.reset()
    bundled.set_budget(MODEL_BUDGET)
    relief, budgets = Relief('shrink', floor=0.6), []
    for _ in range(4):
        said = relief.give(bundled)
        budgets.append(bundled.stats().budget)
    assert budgets == [MODEL_BUDGET * 3 // 4, *[int(MODEL_BUDGET * 0.6)] * 3]
    assert 'shrink_floor' in said
    assert relief.times == 4


def test_a_renewed_memory_is_empty_and_leaves_the_old_one_alone(bundled):
    bundled.reset()
    bundled.set_budget(MODEL_BUDGET)
    frames = [step.frame for step in islice(Episode('drive', 3, keys=0), 2)]
    bundled.observe(frames[0], 1)
    new = renew(bundled)
    assert new.model is bundled.model and new.stats().frames_seen == 0
    new.observe(frames[0], 1)
    assert new.answer('what is ahead').text == bundled.answer('what is ahead').text
    assert new.plan == bundled.plan and new.settings == bundled.settings


class Ring:
    """Garbage that counting references does not find."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def uncollected():
    """Have nothing collected but by name."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures('uncollected')
def test_what_lacks_for_long_is_looked_for_among_everything_but_seldom():
    now, found = [100.0], []
    relief = Relief(clock=lambda: now[0])
    for now[0] in (100.0, 100.5, 101.0, 101.1, 110.0, 110.9, 111.0):
        old = weakref.ref(ring := Ring())
        gc.collect(1)  # with the next it is of the oldest generation
        gc.collect(1)
        new = weakref.ref(Ring())
        del ring
        relief.give(None)
        assert new() is None
        found.append(old() is None)
    assert found == [False, False, True, False, False, False, True]


@pytest.mark.usefixtures('uncollected')
@pytest.mark.parametrize('place', ['vision', 'prefill'])
def test_nothing_of_a_failed_pass_waits_for_the_garbage_collector(bundled, monkeypatch, place):
    model = bundled.model.model.model
    layer = {'vision': model.vision_tower, 'prefill': model.language_model}[place]
    layer = [part for name, part in layer.named_modules() if name.endswith('layers.1')][0]
    held = []

    def lack(hidden, *args, **options):
        held.append(weakref.ref(hidden))
        raise torch.OutOfMemoryError('CUDA out of memory')

    with monkeypatch.context() as patch:
        patch.setattr(layer, 'forward', lack)
        try:
            bundled.observe(next(iter(Episode('drive', 3, keys=0))).frame, 1)
        except torch.OutOfMemoryError as error:
            assert out_of_memory(error)
    assert [hidden() for hidden in held] == [None]
