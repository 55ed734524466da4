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
Load the node with a large camera that is faster than the model, and print what it costs.

A process publishes raw images; the node runs here with a random model that is made as slow as
wanted by its number of layers, and is asked a question each second unless one waits. The table
has the time that the image callback takes by itself, and the age of the frame in each answer
when the answer arrives, beside the time of the inference that made it: of looking at the frame,
reading the question and decoding.

    python -m benchmarks.camera_load [--seconds 20] [--rate 30] [--size 1280x720] [--layers 16]
"""

from __future__ import annotations

import argparse
import array
from collections import defaultdict
from collections.abc import Callable
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from infmllm_msgs.msg import Answer, Query
from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.node.__main__ import spin
from infmllm_ros.node.answering import Answering
from infmllm_ros.node.camera import CameraInput
from infmllm_ros.node.convert import nanoseconds
from infmllm_ros.node.looking import Looking
from infmllm_ros.node.node import InfmllmNode
from infmllm_ros.replay.transport import make_room
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
import torch

from .timing import processor

CALLBACK_MS, SLACK_MS = 5.0, 100.0  # what is promised
WARM = 2  # answers that are not counted
ANSWER_TOKENS = 4
# Wide enough that its time goes by in matrix products, as a real model's does, not in Python.
WIDE = {'hidden_size': 512, 'intermediate_size': 2048, 'num_attention_heads': 8,
        'num_key_value_heads': 8}


def play(rate: float, width: int, height: int) -> None:
    """Publish images until the process is told to end."""
    rclpy.init()
    node = rclpy.create_node('camera')
    publisher = node.create_publisher(Image, 'image', 1)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    data = array.array('B')
    data.frombytes(pixels.tobytes())
    message = Image(height=height, width=width, encoding='rgb8', step=3 * width, data=data)

    def shoot() -> None:
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
    node.create_timer(1 / rate, shoot)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass


def timed(times: dict[str, list], owner: type, method: str) -> None:
    """Note [ms] wall and processor time of each call of a method."""
    inner: Callable[..., Any] = getattr(owner, method)

    def outer(*args: Any, **options: Any) -> Any:
        wall, own = time.perf_counter(), time.thread_time()
        try:
            return inner(*args, **options)
        finally:
            times[method].append((1e3 * (time.perf_counter() - wall),
                                  1e3 * (time.thread_time() - own)))
    setattr(owner, method, outer)


def watch(seconds: float, model: str) -> tuple[dict[str, list], list[float], Any]:
    """Run the node; return times by method, ages [ms] of the answers' frames, and its health."""
    times: dict[str, list] = defaultdict(list)
    timed(times, CameraInput, '_on_image')
    timed(times, Looking, 'observe')
    timed(times, Answering, 'answer')
    values = {'model': model, 'autostart': True, 'budget_tokens': 512, 'threads': 1,
              'max_question_tokens': 64, 'max_answer_tokens': ANSWER_TOKENS}
    node = InfmllmNode(parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])
    asker = rclpy.create_node('asker')
    ages: list[float] = []
    asker.create_subscription(Answer, 'answer', lambda answer: ages.append(
        (asker.get_clock().now().nanoseconds - nanoseconds(answer.header.stamp)) / 1e6), 10)
    queries = asker.create_publisher(Query, 'query_request', 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(asker)
    begun: list[float] = []

    def ask() -> None:
        if not times['observe'] or node._worker.health().waiting:
            return
        begun.append(begun[0] if begun else time.monotonic())
        if time.monotonic() - begun[0] > seconds:
            rclpy.shutdown()
        else:
            queries.publish(Query(question='What is ahead?'))
    asker.create_timer(1.0, ask)
    spin(executor)
    health = node._worker.health()
    node.close(10.0)
    return times, ages, health


def row(name: str, values: Any, limit: str) -> str:
    """Write a line of the table: median, 99th percentile, largest [ms]."""
    return (f'| {name} | {np.median(values):.2f} | {np.percentile(values, 99):.2f} | '
            f'{np.max(values):.2f} | {limit} |')


def report(times: dict[str, list], ages: list[float], health: Any) -> bool:
    """Print the table; say whether what is promised holds."""
    callback, own = np.array(times['_on_image']).T
    look = np.array(times['observe'])[:, 0]
    count = min(len(ages), len(times['answer']))
    answer = np.array(times['answer'])[WARM:count, 0]
    age = np.array(ages)[WARM:count]
    print(f'{len(callback):,} images came, {health.total("seen")} were looked at, '
          f'{health.total("dropped")} replaced by newer ones; {count - WARM} answers\n')
    print('| ms | median | 99 % | largest | limit |\n|---|---|---|---|---|')
    print(row('image callback, processor time', own, f'{CALLBACK_MS:g}'))
    print(row('image callback, wall time', callback, ''))
    print(row('one look at a frame', look, ''))
    print(row('one inference: look, question, answer', answer, ''))
    print(row('age of the frame in an answer', age, ''))
    print(row('age beyond its own inference', age - answer, f'{SLACK_MS:g}'))
    return bool(own.max() < CALLBACK_MS and (age - answer).max() < SLACK_MS)


def main() -> int:
    """Play, watch, report; 0 if what is promised holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--rate', type=float, default=30.0, help='[Hz] of the camera')
    parser.add_argument('--size', default='1280x720')
    parser.add_argument('--layers', type=int, default=16, help='of the random model')
    parser.add_argument('--model', help='a checkpoint instead of it')
    parser.add_argument('--camera', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    width, height = map(int, args.size.split('x'))
    if args.camera:
        play(args.rate, width, height)
        return 0
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    make_room()
    rclpy.init()
    camera = subprocess.Popen([sys.executable, '-m', 'benchmarks.camera_load', '--camera',
                               '--rate', str(args.rate), '--size', args.size])
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = args.model or make_tiny(
                'smolvlm', folder, num_hidden_layers=args.layers, **WIDE)
            result = watch(args.seconds, model)
    finally:
        camera.terminate()
        camera.wait()
    print(f'{processor()}, torch {torch.__version__}; '
          f'{args.size} rgb8 at {args.rate:g} Hz, '
          f'{args.model or f"random model of {args.layers} layers"}')
    holds = report(*result)
    print('\nholds' if holds else '\ndoes not hold')
    return not holds


if __name__ == '__main__':
    sys.exit(main())
