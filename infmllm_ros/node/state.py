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

"""What the node is doing and runs with, on a topic that keeps it for those who come late."""

from __future__ import annotations

from typing import Any

from infmllm_msgs.msg import NodeState
from infmllm_ros.node.qos import Endpoints


class StateTopic:
    """
    Publishes ``state`` whenever it is another than last time.

    Parameters
    ----------
    node : rclpy.node.Node
        Whose state it is.
    ends : Endpoints
        Makes the publisher.
    """

    def __init__(self, node: Any, ends: Endpoints):
        """Offer the topic."""
        self._node = node
        self._publisher = ends.latched(NodeState, 'state')
        self._told: dict[str, Any] = {}

    def tell(self, state: str, **fields: Any) -> None:
        """Publish the state and other fields of the message, if one of them has changed."""
        fields.update({'state': state, 'cameras': list(self._node.get_parameter('cameras').value)})
        for name in ('model', 'policy'):
            fields[name] = self._node.get_parameter(name).value
        if fields != self._told and self._node.context.ok():
            self._told = fields
            self._publisher.publish(NodeState(
                stamp=self._node.get_clock().now().to_msg(), **fields))
