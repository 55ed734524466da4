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

"""Follows a running node: what it says goes into records and a bag, question by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from infmllm_msgs.msg import Answer, CacheStats, Query, WatchEvent
from infmllm_ros.replay import hearing, records
from infmllm_ros.replay.plan import Turn
from rclpy.qos import DurabilityPolicy, QoSProfile

DEPTH = 1000  # [messages] that may come between two looks
LOOK = 1.0  # [s] between two looks for new topics: a watch may be added
# Not for a bag: what all nodes have, and a picture that is drawn only if somebody looks.
UNHEARD = ('/rosout', '/parameter_events', 'memory_image')


class Follower:
    """
    Hears one node, from its topics, and asks it questions.

    Parameters
    ----------
    node : rclpy.node.Node
        In the namespace of the node that is followed.
    write : callable
        Takes the records.
    publish : callable
        Takes (topic, time [ns], message) of all that is heard.
    now : callable
        Tells the time of the source [ns].
    patience : float
        [s] How long an answer may take, beyond the question's own deadline.

    Attributes
    ----------
    name : str
        Full name of the node that is followed; '' = it has not been found.
    stats : CacheStats or None
        The newest.
    heard : float
        [s] When they came.
    status : DiagnosticStatus or None
        What the node last said of itself.
    status_heard : float
        [s] When.
    ledger : Ledger
        Of the questions.
    """

    def __init__(self, node: Any, write: Callable[[records.Record], None],
                 publish: Callable[[str, int, Any], None], now: Callable[[], int],
                 patience: float):
        self._node, self._write, self._publish, self._now = node, write, publish, now
        self._patience = patience
        self.name = ''
        self.stats: CacheStats | None = None
        self.heard = time.monotonic()
        self.status: DiagnosticStatus | None = None
        self.status_heard = 0.0
        self.stats_topic = node.resolve_topic_name('cache_stats')
        self.ledger = hearing.Ledger()
        self._on = False
        self._latched: dict[str, Any] = {}  # the newest of each topic, before it began
        self._answers = node.resolve_topic_name('answer')
        self._until: dict[str, float] = {}  # [s] when a question is given up
        self._run = f'{time.time_ns():x}'  # an answer to another run's question is not taken
        self._topics: set[str] = set()
        self._looked = 0.0
        self.questions = node.create_publisher(Query, 'query_request', DEPTH)

    @property
    def state(self) -> str:
        """State of the node's lifecycle, as it last said; '' = it has not."""
        values = self.status.values if self.status else ()
        return next((value.value for value in values if value.key == 'state'), '')

    def begin(self) -> None:
        """Write down what is heard from now on, and what was said before for those who join."""
        self._on = True
        for topic, message in self._latched.items():
            self._publish(topic, self._now(), message)

    def look(self) -> None:
        """Find the node, subscribe to what it publishes, give up what is overdue."""
        now = time.monotonic()
        self._give_up([key for key in self.ledger.open if now > self._until[key]])
        if now - self._looked < LOOK:
            return
        self._looked = now
        for end in self._node.get_publishers_info_by_topic(self.stats_topic):
            self.name = f'{end.node_namespace.rstrip("/")}/{end.node_name}'
            self._subscribe(end.node_name, end.node_namespace)

    def ask(self, turn: Turn, asked_ns: int) -> None:
        """Put a question to the node, at a time of the source."""
        key = f'{self._run}/{turn.id}'
        self.ledger.open[key] = turn, asked_ns
        self._until[key] = time.monotonic() + turn.entry.deadline + self._patience
        self.questions.publish(hearing.query(turn.entry, key))

    def give_up(self) -> None:
        """Write down every question that is still open as lost."""
        self._give_up(list(self.ledger.open))

    def _give_up(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._write(self.ledger.lose(key))

    def _subscribe(self, name: str, namespace: str) -> None:
        unheard = {self._node.resolve_topic_name(topic) for topic in UNHEARD}
        try:
            topics = self._node.get_publisher_names_and_types_by_node(name, namespace)
        except Exception:  # it went away meanwhile
            return
        for topic, types in topics:
            quality = next((end.qos_profile for end in self._node.get_publishers_info_by_topic(
                topic) if (end.node_name, end.node_namespace) == (name, namespace)), None)
            if topic in self._topics | unheard or quality is None:
                continue
            self._topics.add(topic)
            try:
                package, folder, kind = types[0].split('/')
                message = getattr(import_module(f'{package}.{folder}'), kind)
            except (ImportError, AttributeError):
                continue  # of some other package, which is not here
            self._node.create_subscription(
                message, topic, partial(
                    self._hear, topic, quality.durability == DurabilityPolicy.TRANSIENT_LOCAL),
                QoSProfile(depth=DEPTH, reliability=quality.reliability,
                           durability=quality.durability))

    def _hear(self, topic: str, latched: bool, message: Any) -> None:
        if isinstance(message, DiagnosticArray):
            message.status = [status for status in message.status
                              if status.name.startswith(f'{self.name.lstrip("/")}: ')]
            if not message.status:
                return  # another node's
            for status in message.status:
                if status.name.endswith(': node'):
                    self.status, self.status_heard = status, time.monotonic()
        if isinstance(message, CacheStats):
            self.stats, self.heard = message, time.monotonic()
        if not self._on:
            if latched:
                self._latched[topic] = message
            return
        self._publish(topic, self._now(), message)
        if isinstance(message, CacheStats):
            self._write(hearing.stats_record(message))
        elif isinstance(message, WatchEvent):
            self._write(hearing.event_record(message))
        elif isinstance(message, Answer):
            record = self.ledger.answer(message, self._now(), topic != self._answers)
            if record is not None:
                self._write(record)
