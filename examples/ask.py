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
Ask the node and print the answer as it comes: ``python examples/ask.py QUESTION``.

A client of the action ``ask``. Ctrl-C cancels the question at the node. Exit status: 0 answered,
1 not answered (the reason is on stderr).
"""

import sys

from infmllm_msgs.action import Ask
from infmllm_msgs.msg import Answer, Query
import rclpy
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

PATIENCE = 30.0  # [s] for a node to be there


def ask(node: Node, question: str) -> Answer | None:
    """Ask, print the pieces, and return the whole answer; None if the node does not take it."""
    client = ActionClient(node, Ask, 'ask', feedback_sub_qos_profile=QoSProfile(depth=1000))
    if not client.wait_for_server(PATIENCE):
        print(f'no node offers {node.get_namespace()} ask: is it active?', file=sys.stderr)
        return None
    printed = []

    def on_piece(message) -> None:
        printed.append(message.feedback.chunk.text)
        print(printed[-1], end='', flush=True)

    sent = client.send_goal_async(Ask.Goal(query=Query(question=question)), on_piece)
    rclpy.spin_until_future_complete(node, sent)
    goal = sent.result()
    if not goal.accepted:
        print('the node takes no questions: is it active?', file=sys.stderr)
        return None
    ended = goal.get_result_async()
    try:
        rclpy.spin_until_future_complete(node, ended)
    except KeyboardInterrupt:
        goal.cancel_goal_async()
        rclpy.spin_until_future_complete(node, ended)
    answer = ended.result().result.answer
    print(answer.text[len(''.join(printed)):])  # pieces that the result has overtaken
    return answer


def main() -> int:
    """Ask what the command line says."""
    words = remove_ros_args(sys.argv)[1:]
    if not words:
        print(__doc__.strip(), file=sys.stderr)
        return 1
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('ask_example')
    try:
        answer = ask(node, ' '.join(words))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    if answer is None:
        return 1
    if answer.status != Answer.OK:
        print(answer.message, file=sys.stderr)
        return 1
    for evidence in answer.evidence[:3]:
        stamp = evidence.stamp
        print(f'  rests on a frame of {stamp.sec}.{stamp.nanosec // 10**6:03} s: '
              f'{evidence.weight:.0%} of its attention')
    return 0


if __name__ == '__main__':
    sys.exit(main())
