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
Run the node for long, with faults at random, and tell what was lost: nothing may be.

A camera of 30 Hz shows a rendered drive to the node with the bundled model, in a process of its
own. Every few seconds something goes wrong: the model hangs, or runs out of memory, images are
damaged, the camera stops or bursts, questions come by the dozen, the node is deactivated or its
memory reset. After each fault a fact is told and asked for, and the answer must be right.

    python -m benchmarks.soak [--minutes 60] [--seed 0] [--page docs/reliability.md]

The result is written to benchmarks/soak.json, and from it the section Soak of the page.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
import json
import os
from pathlib import Path
import random
import signal
import sys
import tempfile
import textwrap
import threading
import time
from typing import Any

from infmllm_msgs.msg import Query
from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.node.mailbox import FATES
import numpy as np
from std_msgs.msg import String
import torch

from .pages import write_between, write_json
from .timing import processor

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_suffix('.json')
SIZE, RATE, BURST = 64, 30.0, 200.0  # [pixels], [Hz], [Hz]
HANG = 4.0  # [s] watchdog_timeout
WARM = 900.0  # [s] that do not count for memory and latency: topics keep 1,000 messages each
PATIENCE = 60.0  # [s] for anything that should happen
BAD = ({'encoding': 'nonsense'}, {'step': 10}, {'width': 0}, {'height': 2**31},
       {'data': bytes(10)})
HOSTILE = ('', 'x' * 10**5, '\x1b[2J\u202e', 'word ' * 99)
ACTS = ('order', 'order', 'hang', 'images', 'silence', 'burst', 'crowd', 'cancel', 'reset',
        'pause')
ORDERS = ('lack vision', 'lack prefill', 'lack decode', 'nan vision', 'bug prefill', 'bug decode')


class Soak:
    """One run: a robot beside a node, and what became of all that was sent."""

    def __init__(self, robot: Any, process: Any, orders: Path, seed: int):
        """Render the drive; begin the camera."""
        self.robot, self.process, self.orders = robot, process, orders
        self.random = random.Random(seed)
        episode = Episode('drive', seed, SIZE, keys=0)
        self.steps = list(islice(episode, 300))
        self.frames = [step.frame.tobytes() for step in self.steps]
        self.fact = episode.tell('target', 'blue cup').text
        self.question = next(
            q.text for q in episode.questions(('told',)) if q.name == 'told:target')
        self.sent, self.shown, self.faults = [], 0, Counter()
        self.right, self.asked, self.wrong = 0, 0, []
        self.latencies: list[tuple[float, float]] = []
        self.rate, self.bad, self.running = RATE, {}, True
        self.camera = threading.Thread(target=self.film, daemon=True)
        self.camera.start()

    def film(self) -> None:
        """Publish images until told to stop."""
        due = time.monotonic()
        while self.running:
            if self.rate:
                image = {'height': SIZE, 'width': SIZE, 'step': 3 * SIZE,
                         'data': self.frames[self.shown % len(self.frames)], **self.bad}
                self.robot.image(**image)
                self.shown += 1
            due = max(due + 1 / (self.rate or RATE), time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))

    def ask(self, question: str, **fields: Any) -> str:
        """Ask, under an id of its own."""
        self.sent.append(f'soak-{len(self.sent)}')
        self.robot.send(question, id=self.sent[-1], **fields)
        return self.sent[-1]

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition holds; its value."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            if time.monotonic() > end or self.process.process.poll() is not None:
                raise RuntimeError(f'{what} does not come about')
            time.sleep(0.01)
        return value

    def reply(self, asked: str) -> Any:
        """Wait for the reply to a question."""
        return self.wait(lambda: next((a for a in reversed(self.robot.got['answer'])
                                       if a.id == asked), None), f'the reply to {asked}')

    def stats(self) -> Any:
        """Give the newest statistics."""
        return self.robot.got['cache_stats'][-1]

    # Faults.

    def order(self) -> str:
        """Have the model fail at some place for a moment."""
        order = self.random.choice(ORDERS)
        self.orders.write_text(order)
        self.ask(self.question)
        time.sleep(self.random.uniform(0.1, 1.0))
        self.orders.write_text('')
        return order

    def hang(self) -> str:
        """Have the model hang until the watchdog has told who asked."""
        place = self.random.choice(('prefill', 'decode'))
        self.orders.write_text(f'hang {place}')
        asked = [self.ask(self.question) for _ in range(3)]
        for one in asked:
            self.reply(one)
        self.orders.write_text('')
        return f'hang {place}'

    def images(self) -> str:
        """Send damaged images for a moment."""
        self.bad = self.random.choice(BAD)
        time.sleep(self.random.uniform(0.1, 1.0))
        self.bad = {}
        return 'damaged images'

    def silence(self) -> str:
        """Stop the camera for a while."""
        self.rate = 0.0
        time.sleep(self.random.uniform(1.0, 3.0))
        self.rate = RATE
        return 'camera stops'

    def burst(self) -> str:
        """Send images too fast."""
        self.rate = BURST
        time.sleep(1.0)
        self.rate = RATE
        return 'burst of images'

    def crowd(self) -> str:
        """Ask much more than may wait, and things that cannot be answered."""
        for _ in range(50):
            self.ask(self.random.choice((self.question, *HOSTILE)),
                     deadline=self.random.choice((0.0, 0.001, 5.0)))
        return 'crowd of questions'

    def cancel(self) -> str:
        """Cancel an answer, and those that wait."""
        self.ask(self.question)
        self.robot.trigger('cancel')
        return 'cancel'

    def reset(self) -> str:
        """Have the memory forgotten."""
        self.robot.trigger('reset')
        return 'reset'

    def pause(self) -> str:
        """Deactivate the node in the middle of an answer."""
        asked = self.ask(self.question)
        self.wait(lambda: self.stats().queries_received >= len(self.sent), 'the question arrives')
        self.robot.change('deactivate')
        self.reply(asked)
        self.robot.change('activate')
        return 'deactivate'

    def check(self) -> None:
        """Tell a fact and ask for it, when the node sees again."""
        seen = self.stats().cameras[0].frames_seen
        self.wait(lambda: self.stats().cameras[0].frames_seen > seen, 'a new frame')
        told = self.stats().tokens_seen
        self.robot.tells.publish(String(data=self.fact))
        self.wait(lambda: self.stats().tokens_seen > told + 10, 'the fact is read')
        start, answer = time.monotonic(), self.reply(self.ask(self.question))
        while answer.status == answer.BUSY:  # after a crowd: ask again later, as it says
            time.sleep(0.1)
            start, answer = time.monotonic(), self.reply(self.ask(self.question))
        self.latencies.append((start, answer.latency))
        self.asked += 1
        self.right += answer.text.strip() == 'blue cup'
        if answer.text.strip() != 'blue cup':
            self.wrong.append(f'{answer.status}: {answer.text} {answer.message}')

    def run(self, seconds: float, names: Sequence[str]) -> dict[str, Any]:
        """Go through faults, by the names of the methods, for so long; return the result."""
        acts = [getattr(self, name) for name in names]
        begun = time.monotonic()
        memory: list[tuple[float, int, int]] = []
        while time.monotonic() - begun < seconds:
            self.faults[self.random.choice(acts)()] += 1
            self.check()
            memory.append((time.monotonic() - begun, anonymous(self.process.process.pid),
                           self.stats().process_bytes))
            time.sleep(self.random.expovariate(1.0))
        self.finish()
        return self.result(begun, time.monotonic() - begun, memory)

    def finish(self) -> None:
        """Stop the camera, and wait for what is under way."""
        self.running = False
        self.camera.join()
        self.wait(lambda: self.stats().cameras[0].frames_pending == 0
                  and sum(self.stats().queries_answered) == len(self.sent), 'all is answered')

    def result(self, begun: float, seconds: float, memory: list[tuple[float, int, int]],
               ) -> dict[str, Any]:
        """Sum up."""
        replies = Counter(answer.id for answer in self.robot.got['answer'])
        camera, stats = self.stats().cameras[0], self.stats()
        counts = {'seen': camera.frames_seen, 'skipped': camera.frames_skipped,
                  'dropped': camera.frames_dropped, 'similar': camera.frames_similar,
                  'bad': camera.images_bad, 'failed': camera.frames_failed}
        assert set(counts) == set(FATES)
        own = [(when, size) for when, size, _ in memory]
        slope, error, last = trend(own)
        halves = np.array_split([latency for when, latency in self.latencies
                                 if when - begun > min(WARM, seconds / 4)], 2)
        return {
            'minutes': seconds / 60, 'faults': dict(sorted(self.faults.items())),
            'frames': {'sent': self.shown, 'received': camera.frames_received, **counts},
            'questions': {'sent': len(self.sent), 'received': stats.queries_received,
                          'answered': [int(n) for n in stats.queries_answered],
                          'without reply': sum(not replies[one] for one in self.sent),
                          'with more than one': sum(replies[one] > 1 for one in self.sent)},
            'checks': {'asked': self.asked, 'right': self.right, 'wrong': self.wrong[:20]},
            'memory': {'slope_mib_h': slope, 'error_mib_h': error, 'last_mib': last,
                       'every_minute_mib': minutely(own),
                       'resident_every_minute_mib': minutely(
                           [(when, size) for when, _, size in memory])},
            'latency_s': [float(np.median(half)) for half in halves],
            'tracebacks': self.process.log.count('Traceback'),
            'machine': processor(), 'torch': torch.__version__}


def anonymous(process: int) -> int:
    """
    Read how much memory a process has of its own [bytes].

    Resident memory counts pages of files too (libraries, weights), which the kernel takes away
    and brings back as it likes.
    """
    status = Path(f'/proc/{process}/status').read_text()
    return 1024 * int(status.partition('RssAnon:')[2].split()[0])


def minutely(memory: list[tuple[float, int]]) -> list[float]:
    """Pick the memory of about each minute [MiB]."""
    by_minute = {int(when // 60): size for when, size in memory}
    return [round(size / 2**20, 2) for size in by_minute.values()]


def trend(memory: list[tuple[float, int]]) -> tuple[float, float, float]:
    """Fit a line to the memory after WARM: slope and standard error [MiB/h], last value [MiB]."""
    times, sizes = np.array([m for m in memory if m[0] > min(WARM, memory[-1][0] / 4)], float).T
    hours, mib = times / 3600, sizes / 2**20
    (slope, _), covariance = np.polyfit(hours, mib, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0])), float(mib[-1])


def table(result: dict[str, Any]) -> str:
    """Write the section of the page."""
    frames, asked, checks = result['frames'], result['questions'], result['checks']
    memory, latency = result['memory'], result['latency_s']
    half_an_hour = memory['every_minute_mib'][-31:]
    growth = half_an_hour[-1] - half_an_hour[0]
    fates = ' + '.join(f'{frames[fate]:,} {fate}' for fate in FATES)
    named = ('ok', 'cancelled', 'no frame', 'bad query', 'busy', 'failed', 'replaced', 'expired')
    ends = ' + '.join(f'{n:,} {name}' for n, name in zip(asked['answered'], named) if n)
    faults = ', '.join(f'{name} {count}' for name, count in result['faults'].items())
    about = textwrap.fill(
        f'`python -m benchmarks.soak --minutes {result["minutes"]:.0f} --seed {result["seed"]}`, '
        f'one core of {result["machine"]} shared with other work, torch {result["torch"]}. '
        f'Faults: {faults}.', 118, break_on_hyphens=False)
    return f"""\
{about}

| | |
|---|---|
| minutes | {result['minutes']:.1f} |
| faults | {sum(result['faults'].values()):,} |
| exit status of the node at the end, by SIGINT | {result['status']} |
| tracebacks in its log | {result['tracebacks']} |
| frames sent | {frames['sent']:,} |
| frames received | {frames['received']:,} = {fates} |
| questions sent | {asked['sent']:,} |
| questions received | {asked['received']:,} = {ends} |
| questions without a reply, with more than one | {asked['without reply']}, \
{asked['with more than one']} |
| fact told and asked for after a fault | {checks['right']} of {checks['asked']} right |
| memory of its own, at the end | {memory['last_mib']:.1f} MiB |
| its slope after {WARM / 60:.0f} minutes | {memory['slope_mib_h']:+.2f} ± \
{memory['error_mib_h']:.2f} MiB/h |
| its growth in the last half hour | {growth:+.2f} MiB |
| latency of those answers, median | first half {1e3 * latency[0]:.0f} ms, second half \
{1e3 * latency[1]:.0f} ms |
"""


def take(about: str, minutes: float, path: Path, table: Callable[[dict[str, Any]], str],
         *how: Any) -> dict[str, Any]:
    """
    Read the command line, run, and print the section; the result.

    `path` is of the results, and names the section of the page; `minutes` are what is run unless
    told otherwise; `how` goes to :func:`soak`.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument('--minutes', type=float, default=minutes)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--page', type=Path, help=f'whose section {path.stem} is written')
    parser.add_argument('--again', action='store_true', help='no run: the page from the result')
    args = parser.parse_args()
    if not args.again:
        write_json(path, soak(args.minutes, args.seed, *how))
    result = json.loads(path.read_text())
    section = table(result)
    print(section)
    if args.page:
        write_between(args.page, path.stem, section)
    return result


def main() -> int:
    """Run, or only write the page from the last result; 0 if nothing was lost."""
    result = take(__doc__.splitlines()[1], 60.0, RESULT, table)
    asked, frames = result['questions'], result['frames']
    return int(bool(
        result['status'] or result['tracebacks'] or asked['without reply']
        or asked['with more than one'] or asked['received'] != sum(asked['answered'])
        or frames['received'] != sum(frames[fate] for fate in FATES)
        or result['checks']['right'] != result['checks']['asked']))


def soak(minutes: float, seed: int, names: Sequence[str] = ACTS, kind: type[Soak] = Soak,
         ) -> dict[str, Any]:
    """Start the node with the faults of the tests, and a robot; run, and end it."""
    sys.path.insert(0, str(ROOT / 'test'))
    domain = 1 + os.getpid() % 100
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    from ros_robot import NodeProcess, Robot
    with tempfile.TemporaryDirectory() as folder:
        orders = Path(folder) / 'fault'
        os.environ['INFMLLM_FAULT'] = str(orders)
        process = NodeProcess(Path(folder), domain, {
            'model': str(MODEL), 'autostart': 'true', 'budget_tokens': MODEL_BUDGET,
            'max_question_tokens': 32, 'max_answer_tokens': 8, 'stats_period': 0.05,
            'watchdog_timeout': HANG, 'on_out_of_memory': 'drop',
            **{f'saddle.{name}': value for name, value in MODEL_POLICY.items()}},
            ('-r', '__ns:=/soak'), (str(ROOT / 'test/node/faulty_node.py'),))
        robot = Robot(domain, '/soak')
        try:
            process.wait_for_log('active: images from')
            robot.meet()
            # as deep as the node's end: the burst must not be lost here
            robot.requests = robot.node.create_publisher(Query, 'query_request', 1000)
            robot.show()
            result = kind(robot, process, orders, seed).run(60 * minutes, names)
            result |= {'seed': seed, 'status': process.stop(signal.SIGINT)}
        except Exception:
            print(process.log[-4000:], file=sys.stderr)
            raise
        finally:
            process.close()
            robot.close()
    return result


if __name__ == '__main__':
    sys.exit(main())
