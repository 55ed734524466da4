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

"""The action ``ask``: a goal is a question, its feedback the pieces, its result the answer."""

from __future__ import annotations

from collections.abc import Callable

from infmllm_msgs.action import Ask
from infmllm_msgs.msg import Answer, AnswerChunk, Query
from infmllm_ros.node.desk import DEPTH
from infmllm_ros.node.questions import Question
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
import rclpy.task


class AskAction:
    """
    Serves the action ``ask``.

    Parameters
    ----------
    node : Node
        Whose action it is.
    accepts : callable
        Whether goals are taken now; others are rejected.
    ask : callable
        Hands in a query; calls its second argument with the question made of it, before anything
        happens to it, unless the query is not taken.
    cancel : callable
        Stops one question.
    """

    def __init__(self, node: Node, accepts: Callable[[], bool],
                 ask: Callable[[Query, Callable[[Question], None]], None],
                 cancel: Callable[[Question], None]):
        """Offer the action."""
        self._node, self._ask, self._cancel = node, ask, cancel
        self._goals: dict[Question, tuple[ServerGoalHandle, rclpy.task.Future]] = {}
        # An execute callback that awaits holds its group: it must not hold up other goals.
        self._server = ActionServer(
            node, Ask, 'ask', self._execute, callback_group=ReentrantCallbackGroup(),
            feedback_pub_qos_profile=QoSProfile(depth=DEPTH),
            goal_callback=lambda _: GoalResponse.ACCEPT if accepts() else GoalResponse.REJECT,
            cancel_callback=self._on_cancel)

    async def _execute(self, goal: ServerGoalHandle) -> Ask.Result:
        done = rclpy.task.Future(executor=self._node.executor)

        def expect(question: Question) -> None:
            self._goals[question] = goal, done

        self._ask(goal.request.query, expect)
        question = self._question(goal)
        if question is None:
            goal.abort()
            return Ask.Result(answer=Answer(
                id=goal.request.query.id, status=Answer.CANCELLED, choice=-1,
                message='the node was deactivated'))
        if goal.is_cancel_requested:  # it came before there was a question
            self._cancel(question)
        answer = await done
        del self._goals[question]
        if answer.status == Answer.OK:
            goal.succeed()
        elif answer.status == Answer.CANCELLED and goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return Ask.Result(answer=answer)

    def _question(self, goal: ServerGoalHandle) -> Question | None:
        return next((q for q, (one, _) in self._goals.items() if one is goal), None)

    def _on_cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        question = self._question(goal)
        if question is not None:
            self._cancel(question)
        return CancelResponse.ACCEPT

    # In any thread; questions that came otherwise are ignored.

    def piece(self, question: Question, chunk: AnswerChunk) -> None:
        """Pass on a piece of an answer."""
        goal, _ = self._goals.get(question, (None, None))  # it may be told its end meanwhile
        if goal is not None:
            goal.publish_feedback(Ask.Feedback(chunk=chunk))

    def answered(self, question: Question, answer: Answer) -> None:
        """Pass on the end of a question."""
        _, done = self._goals.get(question, (None, None))
        if done is not None:
            done.set_result(answer)
            self._node.executor.wake()
