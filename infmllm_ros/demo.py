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
See it run: ``python -m infmllm_ros.demo [VIDEO or BAG]``.

Starts the node in another process, plays camera frames to it over DDS, asks questions while they
run, shows the answers as they stream with the state of the memory, and at the end says what held.
On the rendered drive, whose truth is known, it also says which answers were right.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from infmllm_msgs.msg import Answer
from infmllm_ros.bundled import MODEL_BUDGET, MODEL_PARAMETERS
from infmllm_ros.replay.audience import Audience, MIB, stamp_of
from infmllm_ros.replay.interview import Interview
from infmllm_ros.replay.player import DEPTH, Played, Player
from infmllm_ros.replay.sources import (
    camera_topics,
    COMPRESSED,
    open_source,
    Rendered,
    Source,
    SourceError,
)
from infmllm_ros.replay.terminal import interrupts, printable, Screen
from infmllm_ros.replay.transport import make_room
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

QUESTIONS = ('What is ahead?', 'What is on the left?', 'What came first?')
NAMESPACE = 'demo'  # apart from a robot's own topics
ENOUGH = .9  # share of the answers on the rendered drive that must be right
START_S = 300.0  # [s] patience for the node to load its model
ANSWER_S = 120.0  # [s] patience for the answers after the last frame
SETTLE_S = 10.0  # [s] patience for the last statistics
END_S = 30.0  # [s] patience for the node to end; on a quiet machine it takes one
GROWTH_MIB = 16.0  # what the process may grow after warm-up; a leak of one frame a second is more


class DemoError(Exception):
    """The demo cannot go on; one line."""


def settle_environment() -> None:
    """Keep this process and the node to themselves, and give them room for raw images."""
    environment = os.environ
    environment.setdefault('ROS_DOMAIN_ID', str(os.getpid() % 100 + 1))
    environment.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    if environment.get('ROS_DISTRO') == 'humble':  # it knows only this one, later ones warn of it
        environment.setdefault('ROS_LOCALHOST_ONLY', '1')
    make_room()


def start_node(parameters: dict[str, Any], folder: str, screen: Screen,
               ) -> tuple[subprocess.Popen, threading.Thread]:
    """Start the node in another process; a thread shows its lines as they come."""
    file = Path(folder) / 'demo.yaml'
    file.write_text(json.dumps({'/**': {'ros__parameters': parameters}}))  # JSON is YAML
    process = subprocess.Popen(
        [sys.executable, '-m', 'infmllm_ros.node', '--ros-args', '-r', f'__ns:=/{NAMESPACE}',
         '--params-file', str(file)],
        env={**os.environ, 'RCUTILS_CONSOLE_OUTPUT_FORMAT': '[{severity}] {message}'},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')

    def relay() -> None:
        for said in process.stdout:
            line = printable(said.rstrip())
            colour = 'red' if line.startswith(('[ERROR]', '[FATAL]')) else \
                'yellow' if line.startswith('[WARN]') else 'dim'
            screen.line(screen.paint(f'  node: {line.removeprefix("[INFO] ")}', colour))
    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    return process, thread


def end_node(process: subprocess.Popen, lines: threading.Thread, screen: Screen) -> int:
    """End the node and return its exit status; 0 if it ended in time by itself."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        screen.line(screen.paint(f'  the node did not end within {END_S:.0f} s: killed', 'red'))
    lines.join(END_S)  # the last of them
    return process.wait()


def await_node(spin: Callable[[], None], process: subprocess.Popen, audience: Audience,
               player: Player) -> None:
    """Return when the node is active and hears both frames and questions."""
    end = time.monotonic() + START_S
    while not (audience.stats and player.heard
               and audience.query.get_subscription_count()):
        spin()
        if process.poll() is not None:
            raise DemoError(f'the node ended with exit status {process.returncode}')
        if audience.failed:
            raise DemoError('the node cannot start, it says why above')
        if time.monotonic() > end:
            raise DemoError(f'the node was not active within {START_S:.0f} s')


def spread(questions: list[str], total: int, audience: Audience) -> Callable[[int], None]:
    """Return what asks the questions, evenly spread over the frames; at frame `total`, all."""
    left = list(questions)
    places = [total * (i + 1) // (len(left) + 1) for i in range(len(left))]

    def ask(frame: int) -> None:
        while left and frame >= places[len(questions) - len(left)]:
            audience.ask(left.pop(0))
    return ask


def interview(source: Rendered, audience: Audience) -> Callable[[int], None]:
    """Return what tells and asks as the rendered drive goes on."""
    plan = Interview(source.seed)

    def go_on(frame: int) -> None:
        if frame > source.count:
            return
        text, question = plan.go_on(source.episode)
        if text is not None:
            audience.tell(text)
        if question is not None:
            audience.ask(question.text, lambda seen: plan.right_answer(question, seen - 1))
    return go_on


def show(spin: Callable[[], None], process: subprocess.Popen, audience: Audience,
         player: Player, ask: Callable[[int], None]) -> Played:
    """Play all frames and ask meanwhile; return when all is answered."""
    def on_frame(frame: int, stamp_ns: int) -> None:
        audience.sending(frame, stamp_ns)
        ask(frame)

    result: list[Any] = []

    def play() -> None:
        try:
            result.append(player.play(on_frame))
        except Exception as error:
            result.append(error)
    thread = threading.Thread(target=play)
    thread.start()
    try:
        while thread.is_alive() and process.poll() is None:
            spin()
    finally:
        player.stop()
        thread.join()
    if isinstance(result[0], Exception):
        raise result[0]
    ask(sys.maxsize)  # what is left, if there were fewer frames than the file says
    end = time.monotonic() + ANSWER_S
    while audience.waiting and process.poll() is None and time.monotonic() < end:
        spin()
    end, seen = time.monotonic() + SETTLE_S, len(audience.stats)
    while process.poll() is None and time.monotonic() < end and not (
            len(audience.stats) > seen + 1
            and audience.stats[-1].frames_received >= audience.frames):
        spin()
    return result[0]


def verdict(played: Played, audience: Audience, status: int) -> list[tuple[str, str, bool]]:
    """Return what must hold: (what, measured, whether it does)."""
    asked, stats = audience.asked, audience.stats
    last = stats[-1]
    answered = sum(a.answer is not None and a.answer.status == Answer.OK for a in asked)
    stamped = sum(a.answer is not None and stamp_of(a.answer.header) in audience.sent
                  for a in asked)
    # Warm: frames, evictions and an answer have had their first time.
    warm = next((s for s in stats if s.answers and s.evictions), last)
    growth = (last.process_bytes - warm.process_bytes) / MIB
    most = max(s.tokens for s in stats)
    judged = [a.right for a in asked if a.judge is not None]
    right = [('answers', f'{sum(judged)} of {len(judged)} are right',
              sum(judged) >= ENOUGH * len(judged))] if judged else []
    return [
        ('frames arrived', f'{last.frames_received:,} of {played.frames:,} sent; '
         f'{last.frames_seen:,} looked at',
         last.frames_received == played.frames and last.frames_seen > 0),
        ('memory', f'at most {most:,} tokens of a budget of {last.budget:,}; '
         f'{last.tokens_seen:,} went by', most <= last.budget),
        ('KV buffers', f'{last.kv_bytes / MIB:.2f} MiB, all the time',
         len({s.kv_bytes for s in stats}) == 1),
        ('process', f'{warm.process_bytes / MIB:.1f} MiB when warm, '
         f'{last.process_bytes / MIB:.1f} MiB at the end', growth <= GROWTH_MIB),
        ('questions', f'{answered} of {len(asked)} answered, {stamped} with the stamp of a frame',
         answered == stamped == len(asked)),
        *right,
        ('node', f'ended with exit status {status}', status == 0),
    ]


def report(rows: list[tuple[str, str, bool]], screen: Screen) -> int:
    """Print the verdict; return the exit status."""
    screen.line()
    for what, measured, holds in rows:
        mark = screen.paint('ok  ', 'green') if holds else screen.paint('FAIL', 'red', 'bold')
        screen.line(f'  {mark}  {what:<15} {measured}')
    return 0 if all(holds for _, _, holds in rows) else 1


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m infmllm_ros.demo', description=(
        'Play a video or a bag into the node and ask it questions meanwhile.'))
    parser.add_argument('input', nargs='?', help='avi, mp4, .mcap, .db3, a bag folder or a folder '
                        'of images; default: a rendered drive')
    parser.add_argument('--bag-topic', help="which of a bag's image topics to play")
    parser.add_argument('--rate', type=float, default=1.0, help='speed (default: 1)')
    parser.add_argument('--seed', type=int, default=0, help='which drive (default: 0)')
    parser.add_argument('--model', help='checkpoint for the node; default: the bundled one, which '
                        'knows rendered scenes only')
    parser.add_argument('--budget', type=int, metavar='TOKENS', help='of the memory; default: '
                        f'{MODEL_BUDGET} for the bundled model, that of the node for another')
    parser.add_argument('--policy', default='saddle', help='which tokens stay (default: saddle)')
    parser.add_argument('--questions', nargs='+', metavar='TEXT', help='what to ask, evenly '
                        'spread; default: on the rendered drive, what it knows the answers of')
    return parser.parse_args(argv)


def _introduce(source: Source, arguments: argparse.Namespace, screen: Screen) -> None:
    length = f', {source.count:,} frames' if source.count else ''
    speed = f' at {source.fps:g} fps' if source.fps else ''
    rate = f', {arguments.rate:g} times as fast' if arguments.rate != 1 else ''
    screen.line(screen.paint('infmllm_ros demo', 'bold') + f'  {source.name}{length}{speed}{rate}')
    if not arguments.model and not isinstance(source, Rendered):
        screen.line(screen.paint('The bundled model knows rendered scenes only: what it says of '
                                 'this one means nothing. Everything else is real.', 'yellow'))
    screen.line(screen.paint(f'Topics are under /{NAMESPACE}, in ROS_DOMAIN_ID='
                             f'{os.environ["ROS_DOMAIN_ID"]} on this machine.', 'dim'))


def _run(source: Source, arguments: argparse.Namespace, screen: Screen,
         check: Callable[[], None]) -> int:
    """Run the demo inside an initialised ROS, until `check` raises; return the exit status."""
    model = {'model': arguments.model, 'max_answer_tokens': 48} if arguments.model \
        else MODEL_PARAMETERS
    budget = {'budget_tokens': arguments.budget} if arguments.budget is not None else {}
    node = rclpy.create_node('audience', namespace=NAMESPACE)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        executor.spin_once(timeout_sec=0.1)
        check()

    player = Player(node, source, rate=arguments.rate)
    audience = Audience(node, screen, source.count or 0, source.fps)
    if isinstance(source, Rendered) and not (arguments.model or arguments.questions):
        ask = interview(source, audience)
    else:
        ask = spread(arguments.questions or list(QUESTIONS), source.count or 300, audience)
    image = {'reliability': 'reliable', 'history': 'keep_last', 'depth': DEPTH}
    parameters = {
        'policy': arguments.policy, 'autostart': True, 'stats_period': 0.25,
        'image_transport': 'compressed' if COMPRESSED in source.msgtypes.values() else 'raw',
        # Frames are counted at the end: none may be lost between the processes.
        'qos_overrides': {p.topic_name: {'subscription': image}
                          for p in player.publishers.values()},
        **model, **budget}
    with tempfile.TemporaryDirectory() as folder:
        process, lines = start_node(parameters, folder, screen)
        try:
            await_node(spin, process, audience, player)
            played = show(spin, process, audience, player, ask)
            screen.close()
            screen.line(screen.paint(f'Played {played}', 'dim'))
            if source.problem:
                screen.line(screen.paint(source.problem, 'yellow'))
        finally:
            screen.close()
            status = end_node(process, lines, screen)
            node.destroy_node()
    return report(verdict(played, audience, status), screen)


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 if all held, 1 if not, 2 on a wrong input, 130 when interrupted."""
    arguments = _arguments(argv)
    screen = Screen(sys.stdout)
    try:
        source = open_source(arguments.input, camera_topics(
            filter(None, [arguments.bag_topic])), seed=arguments.seed)
        settle_environment()
        _introduce(source, arguments, screen)
        with interrupts() as check:
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
            return _run(source, arguments, screen, check)
    except (SourceError, DemoError) as error:
        print(f'demo: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        screen.line('stopped')
        return 130
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
