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

"""
What the parts of the node need of a node, without DDS: a clock, parameters, topics and a log.

On it, watches, navigation, desk and memory run as they are; time is that of a source of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from rclpy.clock import ClockType
from rclpy.serialization import deserialize_message
from rclpy.time import Time

NAMESPACE = '/'


class Clock:
    """The time of the source, as the clock of a node tells it under /clock."""

    ros_time_is_active = True

    def __init__(self) -> None:
        """Start at 0, which is: no time yet."""
        self.now_ns = 0

    def now(self) -> Time:
        """Tell the time."""
        return Time(nanoseconds=self.now_ns, clock_type=ClockType.ROS_TIME)

    def create_jump_callback(self, *_: Any, **__: Any) -> None:
        """Do nothing: this clock does not jump back."""


class Publisher:
    """Hands messages on, with the time."""

    def __init__(self, stage: Stage, topic: str):
        """Be on a topic, by its full name."""
        self._stage, self.topic_name = stage, topic

    def publish(self, message: Any) -> None:
        """Hand a message on."""
        self._stage.on_message(self.topic_name, message)

    def get_subscription_count(self) -> int:
        """Say whether there is somebody for whom it is worth to make a message."""
        return int(self.topic_name in self._stage.wanted)


class Timer:
    """Calls back every so often, in the time of the source."""

    def __init__(self, period_s: float, callback: Callable[[], None], now_ns: int):
        """Be due a period from now."""
        self.period_ns, self._callback = max(1, round(period_s * 1e9)), callback
        self.due_ns = now_ns + self.period_ns

    def fire(self) -> None:
        """Call back, and be due again."""
        self.due_ns += self.period_ns
        self._callback()


class Stage:
    """
    Stands in for a node.

    Parameters
    ----------
    parameters : mapping
        All of them, by name.
    on_message : callable
        Takes (full topic name, message) of all that is published.
    remap : mapping of str to str
        Other names for topics.
    on_line : callable
        Takes (severity, text) of what is logged: 'debug', 'info', 'warning', 'error', 'fatal'.

    Attributes
    ----------
    clock : Clock
    wanted : set of str
        Topics, by their full names, that somebody listens to.
    """

    def __init__(self, parameters: Mapping[str, Any], on_message: Callable[[str, Any], None],
                 on_line: Callable[[str, str], None], remap: Mapping[str, str]):
        """Be at time 0."""
        self._remap: dict[str, str] = {}
        self._remap = {self.resolve_topic_name(a): self.resolve_topic_name(b)
                       for a, b in remap.items()}
        self._parameters, self.on_message = parameters, on_message
        self.clock, self.wanted = Clock(), set[str]()
        self._timers: list[Timer] = []
        self._subscriptions: list[Any] = []
        self.context = SimpleNamespace(ok=lambda: True)
        self.executor = None
        self._logger = SimpleNamespace(**{
            severity: lambda text, severity=severity, **_: on_line(severity, text)
            for severity in ('debug', 'info', 'warning', 'error', 'fatal')})

    def advance(self, now_ns: int) -> None:
        """Let time go on to a moment, with the timers that are due until then."""
        while True:
            timer = min(self._timers, key=lambda timer: timer.due_ns, default=None)
            if timer is None or timer.due_ns > now_ns:
                break
            self.clock.now_ns = max(self.clock.now_ns, timer.due_ns)
            timer.fire()
        self.clock.now_ns = max(self.clock.now_ns, now_ns)

    def deliver(self, topic: str, raw: bytes) -> None:
        """Hand a serialized message to those who subscribed to its topic."""
        for one in list(self._subscriptions):
            if one.topic_name == topic:
                one.callback(deserialize_message(raw, one.msg_type))

    # As a node has it.

    def get_parameter(self, name: str) -> Any:
        """Look a parameter up."""
        return SimpleNamespace(name=name, value=self._parameters[name])

    def get_clock(self) -> Clock:
        """Give the clock."""
        return self.clock

    def get_logger(self) -> Any:
        """Give the log."""
        return self._logger

    def resolve_topic_name(self, topic: str) -> str:
        """Write a topic's full name."""
        full = topic if topic.startswith('/') else NAMESPACE + topic
        return self._remap.get(full, full)

    def create_publisher(self, kind: type, topic: str, *_: Any, **__: Any) -> Publisher:
        """Make a publisher."""
        return Publisher(self, self.resolve_topic_name(topic))

    create_lifecycle_publisher = create_publisher

    def create_subscription(self, kind: type, topic: str, callback: Callable[[Any], None],
                            *_: Any, **__: Any) -> Any:
        """Subscribe."""
        made = SimpleNamespace(topic_name=self.resolve_topic_name(topic), msg_type=kind,
                               callback=callback)
        self._subscriptions.append(made)
        return made

    def create_service(self, *_: Any, **__: Any) -> None:
        """Do nothing: nobody can call it."""

    def create_timer(self, period_s: float, callback: Callable[[], None], *_: Any,
                     **__: Any) -> Timer:
        """Have a function called every so many seconds of the source, whatever clock is named."""
        timer = Timer(period_s, callback, self.clock.now_ns)
        self._timers.append(timer)
        return timer

    def destroy_timer(self, timer: Timer) -> None:
        """Stop a timer."""
        self._timers.remove(timer)

    def destroy_subscription(self, subscription: Any) -> None:
        """Unsubscribe."""
        self._subscriptions = [one for one in self._subscriptions if one is not subscription]

    def destroy_publisher(self, publisher: Publisher) -> None:
        """Do nothing."""
