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

"""Before the first frame of a live replay: a node that is there, active, and hears the frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
import time
from typing import Any

from infmllm_ros.replay.live.following import Follower
from infmllm_ros.replay.sources import Source
from rcl_interfaces.srv import GetParameters

START = 30.0  # [s] for a node to be there and active; to load its model it may take longer
RETRY = 2.0  # [s] until a service that gave no response is asked again


class LiveError(ValueError):
    """No node to play to; one line: what is wrong, what to do."""


class Meeting:
    """
    Finds the node, or says in one line why nothing can be played to it.

    Parameters
    ----------
    node : rclpy.node.Node
        In the namespace of the node that is looked for.
    follower : Follower
        Of that one.
    spin : callable
        Hears until a condition holds, at most so many seconds; returns the condition's value.
    """

    def __init__(self, node: Any, follower: Follower,
                 spin: Callable[[Callable[[], Any], float], Any]):
        self._node, self._follower, self._spin = node, follower, spin

    def active(self) -> None:
        """
        Wait until the node is active; it may take its time to load its model.

        Raises
        ------
        LiveError
            There is none, or it is not active and does not load.
        """
        follower = self._follower
        if not self._spin(lambda: follower.name, START):
            raise LiveError(f'nobody publishes {follower.stats_topic} within {START:.0f} s: start '
                            'the node, or name its namespace with --namespace')
        end = time.monotonic() + START
        while not self._spin(lambda: follower.stats, 1.0):
            if follower.state == 'configuring':
                end = time.monotonic() + START
            elif time.monotonic() > end:
                raise LiveError(f'{follower.name} is not active: ' + (
                    follower.status.message if follower.status else
                    'it publishes no statistics and no diagnostics, see its log'))

    def topic(self, source: Source) -> str:
        """
        Name the image topic of a source with one camera, '' if it has several.

        Raises
        ------
        LiveError
            The node does not have the cameras of the source.
        """
        names = [camera.name for camera in self._follower.stats.cameras]
        if len(names) == len(source.cameras) == 1:
            return 'image'
        for camera in source.cameras:
            if camera not in names:
                raise LiveError(
                    f'camera {camera!r} of {source.name} is none of {self._follower.name}, which '
                    f'has {", ".join(map(repr, names))}: say --cameras NAME=TOPIC')
        return f'{source.cameras[0]}/image' if len(source.cameras) == 1 else ''

    def parameters(self, *names: str) -> list[Any]:
        """
        Read parameters of the node.

        That it responds says also that it has discovered all publishers that were made before:
        the first frames might be lost else.

        Raises
        ------
        LiveError
            It does not respond.
        """
        service = str(PurePosixPath(self._follower.name, 'get_parameters'))
        client = self._node.create_client(GetParameters, service)
        end = time.monotonic() + START
        while time.monotonic() < end:
            future = client.call_async(GetParameters.Request(names=names))
            if self._spin(future.done, RETRY):
                return list(future.result().values)
            client.remove_pending_request(future)
        raise LiveError(f'{self._follower.name} does not respond within {START:.0f} s: see its '
                        'log')

    def heard(self, *publishers: Any) -> None:
        """
        Wait until the node hears the publishers.

        Raises
        ------
        LiveError
            It does not hear one; with the reason.
        """
        for publisher in publishers:
            if not self._spin(publisher.get_subscription_count, START):
                raise LiveError(self._unheard(publisher))

    def _unheard(self, publisher: Any) -> str:
        topic, kind = publisher.topic_name, publisher.msg_type.__name__
        ends = self._node.get_subscriptions_info_by_topic(topic)
        if not ends:
            return (f'nobody subscribes to {topic} ({kind}): see the parameters cameras and '
                    f'image_transport of {self._follower.name}, and its remappings')
        quality = ends[0].qos_profile
        return (f'{topic}: {ends[0].topic_type} there of quality {quality.reliability.name}, '
                f'{quality.durability.name} does not match {kind} of RELIABLE, VOLATILE here: see '
                'the parameters qos_overrides')
