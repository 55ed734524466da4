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

"""The lifecycle node: a thin shell whose callbacks only store."""

from __future__ import annotations

import time
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from infmllm_msgs.msg import CacheStats
from infmllm_ros import images
from infmllm_ros.node import convert, diagnostics, parameters, waiting
from infmllm_ros.node.asking import AskAction
from infmllm_ros.node.camera import CameraInput
from infmllm_ros.node.desk import Desk, one_line
from infmllm_ros.node.loading import open_session, renew
from infmllm_ros.node.log import PrintableLog, Seldom
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.memory import ended, Memory
from infmllm_ros.node.navigation import NavigationInput
from infmllm_ros.node.parameters import Settings
from infmllm_ros.node.qos import Endpoints
from infmllm_ros.node.questions import Outcome, Question
from infmllm_ros.node.reasons import Pacer, Timekeeper
from infmllm_ros.node.retired import PATIENCE, Retired
from infmllm_ros.node.state import StateTopic
from infmllm_ros.node.watchdog import EXIT, PERIOD, RESET, STATUS, Watchdog
from infmllm_ros.node.watches import Watches
from infmllm_ros.node.worker import Worker
from rcl_interfaces.msg import SetParametersResult
import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class InfmllmNode(PrintableLog, LifecycleNode):
    """
    Watches a camera with a multimodal LLM and answers questions about what it has seen.

    configure checks the parameters and loads the model; activate subscribes to the camera;
    deactivate stops the running answer and keeps the memory; cleanup frees the model. All of the
    model's work is done by a `Worker`.
    """

    def __init__(self, **kwargs: Any):
        """
        Declare the parameters and the interface.

        Raises
        ------
        ParameterError
            A parameter has the wrong type or is out of its range.
        """
        super().__init__('infmllm', **kwargs)
        parameters.declare(self)
        self._names = tuple(self._value('cameras'))
        for line in parameters.misspelt(getattr(self, '_parameter_overrides', ()), self._names):
            self.get_logger().warning(line)
        self._state = 'unconfigured'
        self._error = ''  # why there is no model
        self._progress = ''  # of loading
        self._settings: Settings | None = None
        self._worker: Worker | None = None
        self._watches: Watches | None = None
        self._retired = Retired(self)
        self._cameras: dict[str, CameraInput] = {}
        self._navigation: NavigationInput | None = None
        self._stats_timer: Any = None
        self._seldom = Seldom()
        self._beats = 0  # messages on /diagnostics
        self.exit_code = 0
        self._age_ms = 0.0  # of the newest frame when it had been observed
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # timers run without sim time

        self._time, self._pacer = Timekeeper(self, self._forget), Pacer(self)
        self._ends = ends = Endpoints(self)
        self._states = StateTopic(self, ends)
        self._desk = Desk(self, ends, self._time, self,
                          lambda what: self._worker if self._is_active(what) else None)
        self._stats = ends.publisher(CacheStats, 'cache_stats', 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._memory = Memory(self, ends, lambda: self._worker, self._steady)
        self._goals = AskAction(self, lambda: self._is_active('goal'), self._desk.ask,
                                self._cancel_one)
        # A callback that awaits holds its group: `reset` must not hold up all the others.
        self.create_service(Trigger, 'reset', self._on_reset,
                            callback_group=ReentrantCallbackGroup())
        self.create_service(Trigger, 'cancel', self._on_cancel)
        self._watchdog = Watchdog(self, {RESET: self._replace_worker, EXIT: self._exit})
        self.create_timer(1.0, self._on_diagnostics, clock=self._steady)
        self._tell_state()
        self.create_timer(PERIOD, lambda: self._watchdog.look(self._worker), clock=self._steady)
        if self._value('autostart'):
            self._starter = self.create_timer(0.0, self._on_start, clock=self._steady)
        else:
            self.get_logger().info('unconfigured: waiting for the lifecycle transition configure')

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Refuse what the table does not allow, with a reason that says what to do."""
        for parameter in parameter_list:
            reason = parameters.refusal(
                parameter.name, parameter.value, self._worker, self._names)
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        result = super().set_parameters_atomically(parameter_list)
        self._apply_live()
        for parameter in parameter_list:
            if result.successful and self._worker and parameter.name == 'budget_tokens':
                self._desk.report(self._worker.set_budget(parameter.value), 'budget not changed')
        return result

    def _apply_live(self) -> None:
        if self._worker is not None:
            parameters.apply(self, self._worker, self._watches)

    # Lifecycle.

    def _on_start(self) -> None:
        self.destroy_timer(self._starter)
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, load the model; one error line says why it cannot."""
        self._error = self._progress = ''
        self._enter('configuring')
        try:
            parameters.check(self)
            settings = self._settings = parameters.snapshot(self)
            watches = self._watches = Watches(self, settings, self._ends.publish, self._ahead)
            settings = watches.guide(settings)
            self._worker = Worker(self, cameras=self._names, watches=watches)
            self._apply_live()
            waiting.finish(self._worker.load(
                lambda: watches.try_out(open_session(settings, self._loading))),
                self.context.ok, self._on_diagnostics)
            self._memory.configure(settings.memory_fields, self._on_diagnostics)
        except Exception as error:
            self._give_up('configure failed', error)
            return FAILURE
        self._enter('inactive')
        return super().on_configure(state)

    def _loading(self, progress: str) -> None:
        self._progress = progress
        self.get_logger().info(progress)

    def _give_up(self, what: str, error: Exception) -> None:
        if not isinstance(error, waiting.ShuttingDown):
            self._error = one_line(error)
            self.get_logger().error(f'{what}: {self._error}')
            self.get_logger().debug(traceback.format_exc())
        self._unload()

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the camera and take questions."""
        try:
            settings = self._settings
            for name in self._names:
                self._cameras[name] = CameraInput(
                    self, self._ends, name, f'{name}/image' if len(self._names) > 1 else 'image',
                    parameters.of_camera(self, name, 'image_transport'), self._on_frame)
            if settings.nav_fields['enabled']:
                self._navigation = NavigationInput(
                    self, self._ends, settings.nav_fields, self._steady)
            self._memory.activate()
            self._stats_timer = self.create_timer(
                settings.stats_period, self._on_stats, clock=self._steady)
        except Exception as error:  # rclpy would swallow it
            self.get_logger().error(f'activate failed: {one_line(error)}')
            self._close_inputs()
            return FAILURE
        result = super().on_activate(state)
        self._watches.restart()
        self._worker.resume()
        self._enter('active')
        topics = ', '.join(camera.topic for camera in self._cameras.values())
        self.get_logger().info(f'active: images from {topics}, questions from '
                               f'{self.resolve_topic_name("query")}')
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, stop the running answer and drop the waiting ones; the memory stays."""
        self._enter('inactive')
        self._close_inputs()
        self._worker.pause()
        self._retired.wait(self._worker, self._worker.wait_idle)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and its memory."""
        self._unload()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop everything."""
        self._unload()
        self._enter('finalized')
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        self._unload()
        return SUCCESS

    def _on_frame(self, frame: Frame) -> None:
        self._worker.offer(self._time.frame(frame))

    def _forget(self) -> None:
        if self._worker is not None:
            self._desk.report(self._worker.reset(), 'memory not cleared')

    def _close_inputs(self) -> None:
        self._memory.close()
        parts = [*self._cameras.values(), *([self._navigation] if self._navigation else [])]
        self._cameras, self._navigation = {}, None
        for part in parts:
            part.close()
        if self._stats_timer is not None:
            self.destroy_timer(self._stats_timer)
            self._stats_timer = None

    def _replace_worker(self, reason: str) -> None:
        """Go on with another thread and a new memory, beside a job that hangs."""
        hung, self._worker = self._worker, self._retired.replace(self._worker, reason)
        if self._worker is hung:
            return
        self._apply_live()
        try:
            waiting.finish(self._worker.load(lambda: renew(hung.session)), self.context.ok,
                           self._on_diagnostics, PATIENCE)
            self._memory.configure(
                self._settings.memory_fields, self._on_diagnostics, PATIENCE)
        except Exception as error:
            if self._state == 'active':
                self.trigger_deactivate()
            self.trigger_cleanup()  # nothing works any more: whoever looks at the state sees it
            self._give_up('no other memory can be made', error)
        else:
            if self._state == 'active':
                self._worker.resume()
            self.get_logger().warning('another thread goes on with a new memory')

    def _exit(self, reason: str) -> None:
        """End the process, so that a supervisor starts it again."""
        self._ends.flush(PATIENCE)  # else those who asked might never hear that it failed
        self.exit_code = STATUS
        rclpy.try_shutdown(context=self.context)

    def _unload(self) -> None:
        self._close_inputs()
        self._state = 'unconfigured'
        if self._worker is not None:
            self._retired.stop(self._worker)
            self._worker = None
        if self._watches is not None:
            self._watches.close()
        self._tell_state()

    def _enter(self, state: str) -> None:
        self._state = state
        self._tell_state()

    def _tell_state(self) -> None:
        worker = self._worker
        stats = worker.health().stats if worker else None
        self._states.tell(self._state, problem=self._error, budget=stats.budget if stats else 0,
                          watches=self._watches.on if worker else [])

    def close(self, timeout: float) -> bool:
        """End the worker; False when it is still at work after `timeout` seconds."""
        self._close_inputs()
        return self._retired.close(self._worker, timeout)

    # Questions and services.

    def _is_active(self, what: str) -> bool:
        if self._state != 'active':
            self.get_logger().warning(
                f'{what} ignored: the node is {self._state}, but must be active: call its '
                'lifecycle transitions or start it with autostart', throttle_duration_sec=1.0)
        return self._state == 'active'

    async def _on_reset(self, request: Trigger.Request,
                        response: Trigger.Response) -> Trigger.Response:
        if self._worker is None:
            response.message = 'no memory to clear: the node is unconfigured'
            return response
        error = await ended(self._worker.reset(), self.executor)
        response.success = error is None
        response.message = one_line(error) if error else 'all but the system prompt is forgotten'
        return response

    def _cancel_one(self, question: Question) -> None:
        if self._worker is not None:
            self._worker.cancel('stopped by its client', question)

    def _on_cancel(self, request: Trigger.Request,
                   response: Trigger.Response) -> Trigger.Response:
        count = self._worker.cancel('stopped on request') if self._worker else 0
        response.success = True
        response.message = f'questions cancelled: {count}'
        return response

    # What the worker tells, in its thread.

    def decode(self, message: Any) -> Any:
        """Decode an image message."""
        return images.decode(message, max_pixels=self._value('max_image_pixels'))

    def observed(self, frame: Frame, image: Any, session: Any, again: bool = False) -> None:
        """Note how old a frame is when the model has seen it, and what it looked like."""
        if not again:
            self._age_ms = 1e3 * self._time.age(frame.stamp_ns)
            self._watches.observed(frame)
        self._memory.observed(image, session)

    def preface(self, question: Question) -> str:
        """Tell where the path leads, and which of several cameras is meant."""
        return self._ahead() + parameters.about_camera(self, question.camera)

    def _ahead(self) -> str:
        return self._navigation.context() if self._navigation else ''

    def bad_image(self, frame: Frame, reason: str) -> None:
        """Report an image that was dropped."""
        camera = self._cameras.get(frame.camera)
        if camera is not None:
            camera.bad_image = (reason, time.monotonic())
        self.get_logger().warning(f'image dropped: {reason}', throttle_duration_sec=5.0)

    def piece(self, question: Question, text: str) -> None:
        """Publish a piece of an answer."""
        self._goals.piece(question, self._desk.piece(question, text))

    def answered(self, question: Question, outcome: Outcome) -> None:
        """Publish the end of a question, in any thread."""
        self._goals.answered(question, self._desk.answered(question, outcome))
        if outcome.answer is not None:
            self._memory.answered(question.text, outcome.answer)

    def failed(self, job: str, error: Exception) -> None:
        """Report a job that raised; the worker goes on."""
        if self._seldom((job, type(error))):
            self.get_logger().error(f'{job} failed: {one_line(error)}')
        self.get_logger().debug(traceback.format_exc())

    def relieved(self, relief: str) -> None:
        """Report what was done after memory ran out."""
        if self._seldom(relief):
            self.get_logger().warning(relief)

    # Timers.

    def _on_stats(self) -> None:
        self._ends.publish(self._stats, convert.stats_message(
            self._worker.health(), self._settings.policy, self._age_ms,
            self._desk.counts()))

    def _on_diagnostics(self) -> None:
        self._tell_state()
        health = self._worker.health() if self._worker else None
        self._beats += 1
        self._ends.publish(self._diagnostics, diagnostics.array(
            self.get_clock().now().to_msg(), self.get_fully_qualified_name().lstrip('/'), [
                diagnostics.node_status(self._state, self._value('model'), self._error,
                                        self._progress, self._beats),
                *diagnostics.camera_statuses(self._names, self._cameras, health,
                                             self._value('image_timeout')),
                diagnostics.memory_status(health.stats if health else None,
                                          self._value('policy'), self._memory.problem),
                *diagnostics.navigation_status(self._navigation),
                self._time.status(health.newest if health else None),
                *self._pacer.statuses(self._names, health if self._cameras else None),
                self._ends.status(),
                *(self._watches.status() if self._worker else []),
                diagnostics.worker_status(health, self._watchdog)]))
