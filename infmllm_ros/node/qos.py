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

"""Quality of service: overrides by parameter, and who does not match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from infmllm_ros.node import waiting
from infmllm_ros.node.diagnostics import OK, status, WARN
from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
    QoSCompatibility,
    QoSProfile,
)
from rclpy.qos_overriding_options import QoSOverridingOptions, QoSPolicyKind

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )


def overrides() -> QoSOverridingOptions:
    """Let parameters ``qos_overrides.<topic>.<kind>.<policy>`` change a topic's quality."""
    return QoSOverridingOptions([QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH,
                                 QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY])


def with_events(make: Callable[[Any], Any], events: Any) -> Any:
    """Make an endpoint with event callbacks, or without where the middleware knows none."""
    try:
        return make(events)
    except UnsupportedEventTypeError:
        return make(None)


class Endpoints:
    """
    Makes publishers and subscriptions whose mismatches are told.

    Parameters
    ----------
    node : rclpy.lifecycle.LifecycleNode
        Whose they are.
    """

    def __init__(self, node: Any):
        """Start without one."""
        self._node = node
        # endpoint to its kind, and to what does not match
        self._mismatches: dict[Any, tuple[str, str]] = {}

    def publisher(self, kind: type, topic: str, depth: int) -> Any:
        """Make a lifecycle publisher: reliable, unless a parameter says otherwise."""
        made = with_events(lambda events: self._node.create_lifecycle_publisher(
            kind, topic, depth, qos_overriding_options=overrides(), event_callbacks=events),
            PublisherEventCallbacks(
                incompatible_qos=lambda event: self._mismatch(made, 'publisher', event)))
        return made

    def latched(self, kind: type, topic: str) -> Any:
        """Make a publisher whose last message awaits those who come late, in any state."""
        made = with_events(lambda events: self._node.create_publisher(
            kind, topic, QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
            qos_overriding_options=overrides(), event_callbacks=events),
            PublisherEventCallbacks(
                incompatible_qos=lambda event: self._mismatch(made, 'publisher', event)))
        return made

    def subscription(self, kind: type, topic: str, callback: Any, qos: int | QoSProfile) -> Any:
        """Make a subscription: reliable for a depth alone, unless a parameter says otherwise."""
        made = with_events(lambda events: self._node.create_subscription(
            kind, topic, callback, qos, qos_overriding_options=overrides(),
            event_callbacks=events),
            SubscriptionEventCallbacks(
                incompatible_qos=lambda event: self._mismatch(made, 'subscription', event)))
        return made

    def publish(self, publisher: Any, message: Any) -> None:
        """Publish; once the process is about to end, what fails is of no interest."""
        try:
            publisher.publish(message)
        except Exception:
            if self._node.context.ok():
                raise

    def flush(self, seconds: float) -> bool:
        """Wait until reliable subscribers have what was published; False if it takes longer."""
        def arrive(timeout: float) -> bool:
            return all(publisher.wait_for_all_acked(Duration(seconds=timeout))
                       for publisher in self._node.publishers)

        try:
            return waiting.succeeds(arrive, self._node.context.ok, seconds)
        except RuntimeError:  # a middleware that cannot tell
            return False

    def unsubscribe(self, subscription: Any) -> None:
        """End a subscription."""
        self._mismatches.pop(subscription, None)
        self._node.destroy_subscription(subscription)

    def problem(self, endpoint: Any) -> str:
        """Say what does not match an endpoint now; empty when all do."""
        kind, text = self._mismatches.get(endpoint, ('', ''))
        if text and not self._mismatched(endpoint, kind):
            del self._mismatches[endpoint]
            return ''
        return text

    def _mismatch(self, endpoint: Any, kind: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        topic = endpoint.topic_name
        other = 'subscriber' if kind == 'publisher' else 'publisher'
        text = (f'{topic}: a {other} there does not match the {policy} here, and nothing gets '
                f'through: change it there, or set qos_overrides.{topic}.{kind}.{policy} here')
        if endpoint not in self._mismatches:
            self._node.get_logger().warning(text)
        self._mismatches[endpoint] = kind, text

    def status(self) -> DiagnosticStatus:
        """Report the mismatches that are still there."""
        texts = [text for endpoint in list(self._mismatches) if (text := self.problem(endpoint))]
        return status('quality of service', WARN if texts else OK,
                      '; '.join(texts) or 'all endpoints match', mismatches=len(texts))

    def _mismatched(self, endpoint: Any, kind: str) -> bool:
        """Tell whether some other end of the topic does not match."""
        node = self._node
        publishers = node.get_publishers_info_by_topic(endpoint.topic_name)
        subscriptions = node.get_subscriptions_info_by_topic(endpoint.topic_name)

        # as the graph tells it, for the own end too: unset durations are written out there
        def own(ends: list[Any]) -> list[Any]:
            return [end for end in ends if (end.node_name, end.node_namespace) == (
                node.get_name(), node.get_namespace())]

        if kind == 'publisher':
            publishers = own(publishers)
        else:
            subscriptions = own(subscriptions)
        return any(
            qos_check_compatible(one.qos_profile, other.qos_profile)[0] == QoSCompatibility.ERROR
            for one in publishers for other in subscriptions)
