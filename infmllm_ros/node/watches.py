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

"""The watches of the node: their topics, their clock, and what became of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from infmllm_msgs.msg import Answer, WatchEvent
from infmllm_ros.engine import Answer as EngineAnswer
from infmllm_ros.engine import EngineError, StreamingSession
from infmllm_ros.node import convert, diagnostics
from infmllm_ros.node.listener import Shown
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.option import ParameterError
from infmllm_ros.node.parameters import about_camera, Settings
from infmllm_ros.node.questions import Outcome, Question, Status
from infmllm_ros.watches import (
    Change,
    ChangeDetector,
    read_watches,
    Schedule,
    Watch,
    WatchError,
)

LOOK = 0.05  # [s] the node's clock may run at any speed: how often to look at it while one waits


class Watches:
    """
    Asks what stands in a file of watches, each in its turn, and publishes the answers.

    Parameters
    ----------
    node : rclpy.node.Node
        Who publishes, and whose clock counts.
    settings : Settings
        The node's parameters; `watches` names the file, if there is one.
    publish : callable
        Takes a publisher and a message.
    ahead : callable, optional
        Writes the navigation context of the moment; may be empty.

    Raises
    ------
    ParameterError
        The file, or one of its watches, is wrong.
    """

    def __init__(self, node: Any, settings: Settings, publish: Callable[[Any, Any], None],
                 ahead: Callable[[], str] = str):
        """Read the file and make the topics."""
        watches = open_watches(settings)
        self.enabled = True
        self._node, self._publish, self._ahead = node, publish, ahead
        self._schedule = Schedule(watches)
        self._detectors = {watch.name: ChangeDetector(
            watch.threshold, watch.hysteresis, watch.hold) for watch in watches}
        self._publishers = {watch.name: node.create_publisher(
            Answer, f'watch/{watch.name}', 10) for watch in watches}
        self._events = node.create_publisher(WatchEvent, 'watch_event', 10) if watches else None
        self._answers = 0
        # Of the last answer; no watch is added while another thread looks through them.
        self._problems = {watch.name: '' for watch in watches}
        self._skipped = (0, -inf)  # how many in all, and when that last grew [s]

    @property
    def on(self) -> list[str]:
        """Names of those that are asked."""
        return list(self._detectors) if self.enabled else []

    def close(self) -> None:
        """Take the topics away."""
        for publisher in (*self._publishers.values(), self._events):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    def guide(self, settings: Settings) -> Settings:
        """
        Make the questions the guidance text of the policy, where `watches_guide` asks for it.

        Raises
        ------
        ParameterError
            The policy has no guidance text, or there are no watches.
        """
        if not settings.watches_guide:
            return settings
        policy = settings.policy_fields
        if 'probe' not in policy or policy.get('window', 'probe') != 'probe':
            raise ParameterError(
                f'parameter watches_guide is true, but policy {settings.policy} runs no guidance '
                'text: choose hermes, or saddle with saddle.window probe, or set it to false')
        if not self._schedule.turns:
            raise ParameterError('parameter watches_guide is true, but there are no watches: name '
                                 'their file in the parameter watches, or set it to false')
        probe = ' '.join(turn.watch.question for turn in self._schedule.turns)
        return replace(settings, policy_fields={**policy, 'probe': probe})

    def try_out(self, session: StreamingSession) -> StreamingSession:
        """
        Ask each watch once of an empty memory, so that one that cannot work is known early.

        Raises
        ------
        ParameterError
            The engine refuses one: too long a question, say.
        """
        for turn in self._schedule.turns:
            try:
                self._ask(session, turn.watch, about_camera(self._node, turn.watch.camera),
                          max_tokens=1)
            except EngineError as error:
                raise ParameterError(f'watch {turn.watch.name}: {error}') from None
            session.reset()
        return session

    def observed(self, frame: Frame) -> None:
        """Count a frame that the model has seen."""
        self._schedule.frame(frame.camera, self._now())

    def due_in(self) -> float:
        """Tell in how many seconds to look again; 0 = one is due, infinite = after a frame."""
        if not self.enabled:
            self._schedule.restart()
            return inf
        wait = self._schedule.due_in(self._now())
        return wait if wait == inf else min(wait, LOOK)

    def restart(self) -> None:
        """Forget what was due before a pause."""
        self._schedule.restart()

    def run(self, session: StreamingSession, show: Callable[[str], Shown],
            heard: Callable[[], bool] = lambda: True) -> None:
        """
        Ask the watch that is due, and publish its answer; neither stays in the memory.

        Parameters
        ----------
        session : StreamingSession
        show : callable
            Finds the newest frame of the named camera, '' for any, None when none was seen; and
            what to ask the session with, if that is not where the memory ends.
        heard : callable
            Whether the answer may still be told, when it has come.

        Raises
        ------
        Exception
            What the session raised; it has been published as an answer that FAILED.
        """
        watch = self._schedule.take(self._now())
        if watch is None:  # the clock was set back
            return
        seen, again = show(watch.camera)
        if seen is None:  # forgotten
            return
        ahead = self._ahead() if watch.navigation else ''
        question = Question(
            watch.question, watch.name, watch.choices, camera=watch.camera,
            context=ahead + about_camera(self._node, watch.camera), seen=seen)
        try:
            answer = self._ask(session, watch, question.context, frame=again)
            outcome = Outcome(Status.OK, answer.problem or '', answer)
        except Exception as error:
            outcome = Outcome(Status.FAILED, f'{type(error).__name__}: {error}')
            raise
        finally:
            told = heard()
            if told:
                self._answers += 1
                self._problems[watch.name] = outcome.message
                self._publish(self._publishers[watch.name],
                              convert.answer_message(question, outcome, sys.maxsize))
        if told and watch.choices:
            change = self._detectors[watch.name](answer.probabilities)
            if change is not None:
                self._publish(self._events, event_message(watch, question, change, answer))

    def _ask(self, session: StreamingSession, watch: Watch, context: str,
             **options: Any) -> EngineAnswer:
        return session.answer(
            context + watch.question,
            **{'choices': watch.choices or None, 'schema': watch.schema, 'remember': False,
               'max_tokens': watch.max_tokens or None, **options})

    def _now(self) -> float:
        return self._node.get_clock().now().nanoseconds / 1e9

    def status(self) -> list[DiagnosticStatus]:
        """Report what each watch last saw, and whether they are late; nothing without watches."""
        turns = self._schedule.turns
        if not turns:
            return []
        total, when = self._skipped
        if sum(turn.skipped for turn in turns) > total:
            total, when = self._skipped = sum(turn.skipped for turn in turns), time.monotonic()
        values = {'answers': self._answers, 'skipped': total}
        for turn in turns:
            watch, choice = turn.watch, self._detectors[turn.watch.name].choice
            last = watch.choices[choice] if choice >= 0 else 'no choice yet'
            values[f'watch_{watch.name}'] = f'{last}; skipped {turn.skipped}'
        level, message = diagnostics.OK, f'{len(turns)} on'
        problem = next((f'watch {name}: {problem}' for name, problem in self._problems.items()
                        if problem), '')
        if not self.enabled:
            message = 'off: set watches_enabled to true'
        elif problem:
            level, message = diagnostics.WARN, problem
        elif time.monotonic() - when < diagnostics.RECENT:
            worst = max(turns, key=lambda turn: turn.skipped)
            level, message = diagnostics.WARN, (
                f'late: watch {worst.watch.name} was skipped {worst.skipped} times so far: give '
                'it a longer period, or a higher every')
        return [diagnostics.status('watches', level, message, **values)]


def open_watches(settings: Settings) -> tuple[Watch, ...]:
    """
    Read the file of watches, if there is one.

    Raises
    ------
    ParameterError
        The file, or one of its watches, is wrong.
    """
    if not settings.watches:
        return ()
    try:
        watches = read_watches(settings.watches)
    except WatchError as error:
        raise ParameterError(str(error)) from None
    for watch in watches:
        if watch.camera not in ('', *settings.cameras):
            raise ParameterError(
                f'watch {watch.name}: camera is {watch.camera!r}, but the cameras are '
                f'{", ".join(map(repr, settings.cameras))}: name one of them, or leave it out for '
                'any')
        if watch.navigation and not settings.nav_fields['enabled']:
            raise ParameterError(
                f'watch {watch.name}: navigation is true, but nav.enabled is false: set that to '
                'true, or leave navigation out')
    return watches


def event_message(watch: Watch, question: Question, change: Change,
                  answer: EngineAnswer) -> WatchEvent:
    """Make the message of a change."""
    return WatchEvent(
        header=convert.header(question.seen), name=watch.name, previous=change.previous,
        choice=change.choice, text=watch.choices[change.choice],
        previous_text=watch.choices[change.previous] if change.previous >= 0 else '',
        probability=answer.probabilities[change.choice])
