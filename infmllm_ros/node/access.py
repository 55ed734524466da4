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
What the node may do in a secured ROS graph: its SROS2 policy, from a node that runs.

    python -m infmllm_ros.node.access /infmllm > config/sros2_policy.xml

Run it beside an active node that uses all there is: navigation, several transports, watches.
"""

from __future__ import annotations

import sys
import time
from typing import Any
from xml.etree import ElementTree

import rclpy

NAME = 'infmllm'
ACTION = '/_action/'
GLOBAL = {'/diagnostics', '/parameter_events', '/rosout'}
# What nodes have only where a parameter or the middleware asks for it.
OPTIONAL = {
    ('topic', 'subscribe'): {'image/compressed', 'path', 'odom', '/tf', '/tf_static', '/clock'},
    ('topic', 'publish'): {'maneuver', 'watch_event', 'watch/*'}}
_TAGS = {'topic': ('publish', 'subscribe'), 'service': ('reply', 'request'),
         'action': ('execute', 'call')}

Access = dict[tuple[str, str], set[str]]


def access(observer: Any, name: str, namespace: str) -> Access:
    """
    List what a node has in the graph that another sees.

    Parameters
    ----------
    observer : rclpy.node.Node
    name, namespace : str
        Of the node that is looked at.

    Returns
    -------
    dict
        (kind, right) to names: relative in the namespace, absolute elsewhere.
    """
    looks = {('topic', 'publish'): observer.get_publisher_names_and_types_by_node,
             ('topic', 'subscribe'): observer.get_subscriber_names_and_types_by_node,
             ('service', 'reply'): observer.get_service_names_and_types_by_node,
             ('service', 'request'): observer.get_client_names_and_types_by_node}
    found: Access = {('action', 'execute'): set(), **{key: set() for key in looks}}
    inside = namespace.rstrip('/') + '/'
    for key, look in looks.items():
        for full, _ in look(name, namespace):
            short = full if full in GLOBAL else full.removeprefix(inside)
            if ACTION in short:
                found['action', 'execute'].add(short.partition(ACTION)[0])
            else:
                found[key].add(short)
    return found


def render(found: Access) -> str:
    """Write a policy of SROS2 (version 0.2.0) for a node in the root namespace."""
    policy = ElementTree.Element('policy', version='0.2.0')
    enclave = ElementTree.SubElement(
        ElementTree.SubElement(policy, 'enclaves'), 'enclave', path=f'/{NAME}')
    profile = ElementTree.SubElement(
        ElementTree.SubElement(enclave, 'profiles'), 'profile', ns='/', node=NAME)
    for kind, rights in _TAGS.items():
        for right in rights:
            names = found.get((kind, right), set()) | OPTIONAL.get((kind, right), set())
            if names:
                group = ElementTree.SubElement(profile, f'{kind}s', {right: 'ALLOW'})
                for name in sorted(names):
                    ElementTree.SubElement(group, kind).text = name
    ElementTree.indent(policy)
    return ('<?xml version="1.0" encoding="UTF-8"?>\n<!-- Made by python -m '
            'infmllm_ros.node.access beside a running node: what it may do, and no more. -->\n'
            + ElementTree.tostring(policy, 'unicode') + '\n')


def main() -> None:
    """Print the policy of the node named on the command line."""
    namespace, _, name = sys.argv[1].rpartition('/')
    rclpy.init()
    observer = rclpy.create_node('infmllm_access')
    end = time.monotonic() + 10.0
    while (name, namespace or '/') not in observer.get_node_names_and_namespaces():
        if time.monotonic() > end:
            sys.exit(f'no node {sys.argv[1]!r} within 10 s: start it first')
        time.sleep(0.1)
    time.sleep(2.0)  # its endpoints are discovered one by one
    print(render(access(observer, name, namespace or '/')), end='')
    rclpy.shutdown()


if __name__ == '__main__':
    main()
