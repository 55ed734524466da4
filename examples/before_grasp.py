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
Ask before something is done: ``python examples/before_grasp.py [QUESTION] [--go CHOICE ...]``.

Lets a grasp go only if an answer comes in time, about a frame that is new, and says so clearly;
whatever else happens, it does not. Exit status: 0 go, 1 an answer that does not say so, 2 no
usable answer in time.
"""

import argparse
import sys
import time
import uuid

from infmllm_msgs.msg import Answer, Query
import rclpy
from rclpy.node import Node
from rclpy.time import Time
from rclpy.utilities import remove_ros_args

GO, NO, SILENCE = 0, 1, 2
SLACK = 0.5  # [s] beyond the deadline, for the way of the answer


def ask(node: Node, query: Query) -> Answer | None:
    """Ask and wait for the answer until the query's deadline; None if there is none."""
    end = time.monotonic() + query.deadline + SLACK
    answers = []
    node.create_subscription(Answer, 'answer', answers.append, 10)
    requests = node.create_publisher(Query, 'query_request', 10)
    sent = False
    while time.monotonic() < end:
        both = requests.get_subscription_count() and node.count_publishers('answer')
        if both and not sent:
            requests.publish(query)
            sent = True
        rclpy.spin_once(node, timeout_sec=0.05)
        for answer in answers:
            if answer.id == query.id:
                return answer
    return None


def judge(answer: Answer | None, go: list[str], least: float, age: float,
          max_age: float = 2.0) -> tuple[int, str]:
    """
    Decide by an answer.

    Parameters
    ----------
    answer : Answer or None
    go : list of str
        The choices that let it go.
    least : float
        [0..1] how probable such a choice must be.
    age : float
        [s] of the newest frame that the answer saw, by this clock; negative: of the future.
    max_age : float
        [s] how old or how far in the future it may be.

    Returns
    -------
    int, str
        Exit status, and why.
    """
    if answer is None:
        return SILENCE, 'no answer in time'
    if answer.status != Answer.OK:
        return SILENCE, f'no answer: {answer.message}'
    if abs(age) > max_age:
        return SILENCE, f'the answer is about a frame that is {age:.1f} s old: is the camera on?'
    probability = answer.probabilities[answer.choice]
    said = f'"{answer.text}", {probability:.0%}'
    return (GO, said) if answer.text in go and probability >= least else (NO, said)


def main() -> int:
    """Ask what the command line says."""
    parser = argparse.ArgumentParser(description='Ask before a grasp.')
    parser.add_argument('question', nargs='?', default='what is the gripper doing')
    parser.add_argument('--choices', nargs='+', default=['open', 'closed', 'holding', 'none'])
    parser.add_argument('--go', nargs='+', default=['open'], help='the choices that let it go')
    parser.add_argument('--least', type=float, default=0.8, help='probability of such a choice')
    parser.add_argument('--deadline', type=float, default=5.0, help='[s]')
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    node = rclpy.create_node('before_grasp')
    try:
        answer = ask(node, Query(
            id=str(uuid.uuid4()), question=arguments.question, choices=arguments.choices,
            deadline=arguments.deadline, memory=Query.MEMORY_ROLLBACK))
        now = node.get_clock().now()
        age = (now - Time.from_msg(answer.header.stamp)).nanoseconds / 1e9 if answer else 0.0
        status, why = judge(answer, arguments.go, arguments.least, age)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    print(f'{"go" if status == GO else "do not grasp"}: {why}')
    return status


if __name__ == '__main__':
    sys.exit(main())
