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

"""Asking over DDS, of the bundled model: the action, who gives way, deadlines, schemas."""

import json
import shutil

from infmllm_ros.bundled import MODEL, MODEL_BUDGET
import pytest
from safetensors.torch import load_file, save_file

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
from action_msgs.msg import GoalStatus  # noqa: E402, I100
from infmllm_msgs.action import Ask  # noqa: E402
from infmllm_msgs.msg import Answer, Query  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from ros_robot import wait_for  # noqa: E402

MOST = 3000  # tokens of an answer: long enough to do things meanwhile


@pytest.fixture(scope='module')
def talkative(tmp_path_factory):
    """Make the bundled model one that never ends an answer by itself."""
    folder = tmp_path_factory.mktemp('talkative') / 'model'
    shutil.copytree(MODEL, folder)
    weights = load_file(folder / 'model.safetensors')
    words = json.loads((folder / 'tokenizer.json').read_text())['model']['vocab']
    [name] = [name for name in weights if name.endswith('embed_tokens.weight')]  # the head's, too
    weights[name] = weights[name].clone()
    weights[name][[i for word, i in words.items() if word.startswith('<')]] = 0
    weights[name][len(words):] = 0
    save_file(weights, folder / 'model.safetensors', {'format': 'pt'})
    return str(folder)


class Goal:
    """One goal of the action and what came of it."""

    def __init__(self, client, question, **fields):
        self.chunks = []
        sent = client.send_goal_async(
            Ask.Goal(query=Query(question=question, **fields)),
            lambda message: self.chunks.append(message.feedback.chunk))
        wait_for(sent.done, 'the goal is accepted or rejected')
        self.handle = sent.result()
        self.ended = self.handle.get_result_async() if self.handle.accepted else None

    def speaks(self):
        """Wait for a few pieces."""
        wait_for(lambda: len(self.chunks) > 4, 'some pieces')
        return self

    def cancel(self):
        """Cancel it; whether the node agrees."""
        asked = self.handle.cancel_goal_async()
        wait_for(asked.done, 'response to cancel')
        return bool(asked.result().goals_canceling)

    def result(self):
        """Wait for the status of the goal and the answer."""
        wait_for(self.ended.done, 'the result')
        return self.ended.result().status, self.ended.result().result.answer


@pytest.fixture(scope='module')
def client(start, robot, talkative):
    """Start a node that has seen a frame, and a client of its action."""
    client = ActionClient(robot.node, Ask, 'ask', feedback_sub_qos_profile=QoSProfile(depth=1000))
    node = start({
        'model': talkative, 'autostart': 'true', 'budget_tokens': MODEL_BUDGET,
        'stats_period': 0.05, 'max_question_tokens': 64, 'max_answer_tokens': MOST,
        'query_queue_size': 2})
    node.wait_for_log('active: images from')
    robot.meet()
    wait_for(client.server_is_ready, 'the action is there')
    robot.show()
    return client


def pending(robot):
    return robot.stats().queries_pending


def test_a_goal_streams_its_answer_and_returns_the_whole(client, robot):
    goal = Goal(client, 'what do you see', max_tokens=8)
    status, answer = goal.result()
    assert (status, answer.status) == (GoalStatus.STATUS_SUCCEEDED, Answer.OK)
    assert (answer.tokens, answer.finish_reason) == (8, 'length')
    wait_for(lambda: ''.join(c.text for c in goal.chunks) == answer.text, 'all pieces')
    assert [c.index for c in goal.chunks] == list(range(len(goal.chunks)))
    assert robot.answer(answer.id) == answer        # on the topic, too
    assert robot.ask('what do you see', max_tokens=8).text == answer.text


def test_a_cancelled_goal_ends_between_two_tokens_and_says_what_it_had_said(client, robot):
    goal, waits = Goal(client, 'what do you see').speaks(), Goal(client, 'where', max_tokens=2)
    assert goal.cancel()
    status, answer = goal.result()
    assert (status, answer.status) == (GoalStatus.STATUS_CANCELED, Answer.CANCELLED)
    assert answer.finish_reason == 'cancelled' and 4 < answer.tokens < MOST
    wait_for(lambda: ''.join(c.text for c in goal.chunks) == answer.text, 'all pieces')
    assert waits.result()[0] == GoalStatus.STATUS_SUCCEEDED     # only the one was cancelled


def test_a_goal_that_waits_can_be_cancelled(client, robot):
    running, waits = Goal(client, 'what do you see').speaks(), Goal(client, 'where')
    wait_for(lambda: pending(robot) == 1, 'one waits')
    assert waits.cancel()
    status, answer = waits.result()
    assert (status, answer.status, answer.text) == (
        GoalStatus.STATUS_CANCELED, Answer.CANCELLED, '')
    assert not running.ended.done()
    assert robot.trigger('cancel').message == 'questions cancelled: 1'
    status, answer = running.result()
    assert (status, answer.status) == (GoalStatus.STATUS_ABORTED, Answer.CANCELLED)


@pytest.mark.parametrize(('busy', 'most', 'statuses'), [
    ('queue', 4, ['CANCELLED', 'OK', 'OK']), ('newest', MOST, ['CANCELLED', 'REPLACED', 'OK']),
    ('interrupt', MOST, ['REPLACED', 'REPLACED', 'OK']),
    ('reject', MOST, ['CANCELLED', 'BUSY', 'BUSY'])])
def test_each_busy_policy_answers_every_question(client, robot, busy, most, statuses):
    assert robot.set_parameter('busy', busy).successful
    running = Goal(client, 'what do you see').speaks()
    asked = [robot.send('where', max_tokens=most), robot.send('which', max_tokens=4)]
    wait_for(lambda: pending(robot) + sum(a.id in asked for a in robot.got['answer']) == 2,
             'all have been answered or wait')
    running.cancel()
    answers = [running.result()[1], *map(robot.answer, asked)]
    assert [a.status for a in answers] == [getattr(Answer, name) for name in statuses]
    for answer in answers:
        assert bool(answer.message) == (answer.status != Answer.OK)
    assert robot.set_parameter('busy', 'queue').successful


def test_a_deadline_cuts_an_answer_short_and_refuses_one_that_waits(client, robot):
    running = Goal(client, 'what do you see').speaks()
    refused = robot.ask('where', deadline=0.05)
    assert (refused.status, refused.text) == (Answer.EXPIRED, '')
    assert not running.ended.done()
    running.cancel()
    running.result()
    status, answer = Goal(client, 'what do you see', deadline=2.0).result()
    assert (status, answer.status) == (GoalStatus.STATUS_ABORTED, Answer.EXPIRED)
    assert answer.finish_reason == 'deadline' and answer.tokens < MOST
    assert '2 s' in answer.message
    assert robot.ask('where', deadline=1e6, max_tokens=2).status == Answer.OK


def test_an_answer_that_does_not_fit_its_schema_is_kept_and_marked(client, robot):
    # the model writes words of its own only, no braces: nothing can be enforced
    answer = robot.ask('what do you see', max_tokens=4, schema='{"type": "object"}')
    assert (answer.status, answer.valid, answer.tokens) == (Answer.OK, False, 4)
    assert answer.text and 'no JSON' in answer.message
    answer = robot.ask('what do you see', max_tokens=4, schema='{"type": 3}')
    assert answer.status == Answer.BAD_QUERY and 'JSON Schema' in answer.message


def test_deactivate_aborts_the_goal_and_then_goals_are_rejected(client, robot):
    goal = Goal(client, 'what do you see').speaks()
    assert robot.change('deactivate')
    status, answer = goal.result()
    assert (status, answer.status) == (GoalStatus.STATUS_ABORTED, Answer.CANCELLED)
    assert not Goal(client, 'where').handle.accepted
    assert robot.change('activate')
    assert Goal(client, 'where', max_tokens=2).result()[0] == GoalStatus.STATUS_SUCCEEDED


def test_a_goal_with_a_wrong_field_is_aborted_with_the_reason(client, robot):
    status, answer = Goal(client, 'where', deadline=-1.0).result()
    assert (status, answer.status) == (GoalStatus.STATUS_ABORTED, Answer.BAD_QUERY)
    assert '-1.0 s' in answer.message
