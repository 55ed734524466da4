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

"""A node in a process of its own, and a robot beside it that talks to it over DDS."""

from __future__ import annotations

import array
from collections import defaultdict
from collections.abc import Callable
import multiprocessing
import os
from pathlib import Path
import runpy
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from infmllm_msgs.msg import Answer, AnswerChunk, CacheStats, Query
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
import rclpy.subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

os.environ.setdefault('HF_HUB_OFFLINE', '1')
TIMEOUT = 180.0  # [s] for anything that should happen, on a busy machine; else it comes in a few
OUTPUTS = {'answer': Answer, 'answer_text': String, 'answer_stream': AnswerChunk,
           'cache_stats': CacheStats, '/diagnostics': DiagnosticArray}
PROGRAM = ('-m', 'infmllm_ros.node')
SERVICES = {'reset': Trigger, 'cancel': Trigger, 'infmllm/set_parameters': SetParameters,
            'infmllm/change_state': ChangeState, 'infmllm/get_state': GetState}
TELLS_TIMES = hasattr(rclpy.subscription, 'MessageInfo')  # not Humble


def wait_for(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
    """Wait until a condition holds and return its value."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f'not within {timeout} s: {what}')


def be_node(arguments: list[str], env: dict[str, str], log: str) -> None:
    """Be the process `python -m infmllm_ros.node`, whose modules are already imported."""
    os.environ.update(env)
    with open(log, 'wb') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [PROGRAM[1], *arguments]
    runpy.run_module(PROGRAM[1], run_name='__main__', alter_sys=True)


class Forked:
    """
    A node forked off a process that has torch and transformers imported: that takes seconds.

    It can be asked what a `subprocess.Popen` can.
    """

    _server = multiprocessing.get_context('forkserver')
    _server.set_forkserver_preload(['infmllm_ros.node.node'])

    def __init__(self, *what: Any):
        self._process = self._server.Process(target=be_node, args=what, daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        """Give the exit code, if it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit code."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(PROGRAM, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class NodeProcess:
    """The node under test: a process of its own, or, given a program, one as a user starts it."""

    def __init__(self, folder: Path, domain: int, parameters: dict[str, Any],
                 arguments: tuple[str, ...] = (), program: tuple[str, ...] = ()):
        """Start the process."""
        flags = [word for name, value in parameters.items()
                 for word in ('-p', f'{name}:={value}')]
        env = dict(os.environ, ROS_DOMAIN_ID=str(domain), ROS_LOG_DIR=str(folder),
                   ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST', OMP_NUM_THREADS='1',
                   PYTHONUNBUFFERED='1', HF_HUB_OFFLINE='1')
        self.log_file = folder / 'node.log'
        flags = ['--ros-args', *flags, *arguments]
        if not program:
            self.log_file.touch()
            self.process = Forked(flags, env, str(self.log_file))
            return
        with self.log_file.open('wb') as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *flags], env=env, stdout=log, stderr=subprocess.STDOUT)

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self.log_file.read_text(errors='replace')

    def lines(self, text: str) -> list[str]:
        """All log lines with a text in them."""
        return [line for line in self.log.splitlines() if text in line]

    def wait_for_log(self, text: str) -> str:
        """Wait for a log line with a text in it."""
        def found() -> list[str]:
            assert self.process.poll() is None, f'the node has ended:\n{self.log}'
            return self.lines(text)

        return wait_for(found, f'log line "{text}" of {self.log_file}')[0]

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Robot:
    """Everything around the node: a camera, a user, a lifecycle manager."""

    def __init__(self, domain: int, namespace: str):
        """Join the domain."""
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('robot', namespace=namespace, context=self.context)
        self.got: dict[str, list[Any]] = defaultdict(list)
        self._sent: dict[str, list[int]] = defaultdict(list)  # [ns] when, of each of them
        for topic, kind in OUTPUTS.items():
            self.hear(topic, kind)
        self.images = self.node.create_publisher(Image, 'image', 1)
        self.jpegs = self.node.create_publisher(CompressedImage, 'image/compressed', 1)
        self.queries = self.node.create_publisher(String, 'query', 10)
        self.requests = self.node.create_publisher(Query, 'query_request', 10)
        self.tells = self.node.create_publisher(String, 'tell', 10)
        self._clients: dict[str, Any] = {}
        self._met: set[str] = set()  # those of the clients that the node has discovered
        for name, kind in SERVICES.items():
            self.add_client(kind, name)
        self._stamp = 0
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except Exception:
            if self.context.ok():  # else it has met the end of the context
                raise

    def hear(self, topic: str, kind: Any) -> None:
        """Subscribe: what comes is in `got`."""
        def take(message: Any, info: Any) -> None:
            self._sent[topic].append(info['source_timestamp'])
            self.got[topic].append(message)

        self.node.create_subscription(kind, topic, take if TELLS_TIMES else lambda message: take(
            message, {'source_timestamp': time.time_ns()}), 1000)

    def inside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call in the thread that spins: an endpoint destroyed beside it may end it."""
        task = self._executor.create_task(function, *arguments)
        wait_for(task.done, f'{function.__name__} is done')
        return task.result()

    def fresh(self, topic: str, since: int = 0) -> Callable[[], list[Any]]:
        """
        Give what lists the messages that were sent after a time [ns], by default after now.

        Those that come after now may be older: on a busy machine many wait to be heard.
        """
        since = since or time.time_ns()
        got, sent = self.got[topic], self._sent[topic]
        return lambda: [message for message, at in zip(got, sent) if at > since]

    def close(self) -> None:
        """Leave the domain."""
        rclpy.shutdown(context=self.context)
        self._thread.join(TIMEOUT)

    # The camera.

    def image(self, publisher: Any = None, **fields: Any) -> int:
        """Publish an image with the next stamp, 100 ms after the last; returns the stamp in ns."""
        self._stamp += 10**8
        pixels = np.random.default_rng(self._stamp).integers(0, 256, (48, 64, 3), np.uint8)
        data = array.array('B')
        data.frombytes(pixels.tobytes())
        message = Image(height=48, width=64, encoding='rgb8', step=192, data=data)
        for name, value in fields.items():
            setattr(message, name, value)
        self.stamp(message)
        (publisher or self.images).publish(message)
        return self._stamp

    def stamp(self, message: Any) -> None:
        """Fill in a header."""
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self._stamp, 10**9)
        message.header.frame_id = f'camera_{self._stamp // 10**8}'

    def stats(self) -> CacheStats:
        """
        Wait for statistics of now: those before may lack the answer that has come since.

        The first that are sent after now may have been made before, the second not.
        """
        news = self.fresh('cache_stats')
        return wait_for(lambda: news()[1:], 'new statistics')[0]

    def newest(self) -> int:
        """Tell the stamp of the newest frame that the node says to have seen; -1: none yet."""
        stats = self.got['cache_stats']
        return ns(stats[-1].header.stamp) if stats else -1

    def show(self, **fields: Any) -> int:
        """Publish an image and wait until the model has seen it; returns its stamp."""
        wait_for(self.images.get_subscription_count, 'the node subscribes to images')
        for _ in range(10):  # the first are lost while the node has not discovered the camera
            stamp = self.image(**fields)
            try:
                wait_for(lambda s=stamp: self.newest() == s, 'the frame is seen', TIMEOUT / 10)
                return stamp
            except AssertionError:
                pass
        raise AssertionError('the node sees no image')

    # The user.

    def ask(self, question: str, **fields: Any) -> Answer:
        """Ask on `query_request` and wait for the answer."""
        return self.answer(self.send(question, **fields))

    def send(self, question: str, **fields: Any) -> str:
        """Ask on `query_request`; returns the id."""
        wait_for(self.requests.get_subscription_count, 'the node subscribes to questions')
        query = Query(**{'question': question, 'id': f'test-{time.monotonic_ns()}', **fields})
        self.requests.publish(query)
        return query.id[:200]  # as much as comes back

    def answer(self, asked: str) -> Answer:
        """Wait for the answer to a question."""
        return wait_for(lambda: [a for a in self.got['answer'] if a.id == asked],
                        f'an answer to {asked}')[0]

    def long_answer(self, nodes: int = 1) -> str:
        """Have a long answer under way, in one node or more; returns its id."""
        asked = self.send('Tell me all.')
        wait_for(lambda: [c.index for c in self.chunks(asked)].count(5) == nodes, 'some pieces')
        assert not any(c.last for c in self.chunks(asked)), 'the answer has ended already'
        return asked

    def chunks(self, asked: str) -> list[AnswerChunk]:
        """List the pieces of an answer that have come."""
        return [c for c in self.got['answer_stream'] if c.id == asked]

    # Services.

    def add_client(self, kind: Any, name: str) -> None:
        """Make a client for `call`."""
        self._clients[name] = self.node.create_client(kind, name)

    def meet(self) -> None:
        """
        Wait until node and robot have discovered each other.

        A response is lost when the node has not discovered the client yet. The client asked
        here is made last, so when its response comes those of the others will come too, and all
        that was made before is known to the node.
        """
        known = set(self._clients)
        client = self.node.create_client(GetState, 'infmllm/get_state')
        try:
            wait_for(client.service_is_ready, 'the node is there')
            for _ in range(20):
                future = client.call_async(GetState.Request())
                try:
                    wait_for(future.done, 'response', TIMEOUT / 20)
                    self._met = known
                    return
                except AssertionError:
                    client.remove_pending_request(future)
        finally:
            self.inside(self.node.destroy_client, client)
        raise AssertionError('the node does not respond')

    def call(self, name: str, request: Any) -> Any:
        """Call a service and wait for its response."""
        if name not in self._met:
            self.meet()
        client = self._clients[name]
        wait_for(client.service_is_ready, f'service {name}')
        future = client.call_async(request)
        wait_for(future.done, f'response of {name}')
        return future.result()

    def trigger(self, name: str) -> Trigger.Response:
        """Call `reset` or `cancel`."""
        return self.call(name, Trigger.Request())

    def change(self, transition: str) -> bool:
        """Request a lifecycle transition."""
        number = getattr(Transition, f'TRANSITION_{transition.upper()}')
        return self.call('infmllm/change_state', ChangeState.Request(
            transition=Transition(id=number))).success

    def state(self) -> str:
        """Ask for the lifecycle state."""
        return self.call('infmllm/get_state', GetState.Request()).current_state.label

    def set_parameter(self, name: str, value: Any) -> Any:
        """Set a parameter; returns the result."""
        kinds = {bool: (1, 'bool_value'), int: (2, 'integer_value'), float: (3, 'double_value'),
                 str: (4, 'string_value')}
        number, attribute = kinds[type(value)]
        parameter = Parameter(name=name, value=ParameterValue(type=number, **{attribute: value}))
        return self.call('infmllm/set_parameters', SetParameters.Request(
            parameters=[parameter])).results[0]

    def diagnostic(self, item: str, condition: Callable[[Any], bool], node: str = 'infmllm',
                   meanwhile: Callable[[], Any] = lambda: None, since: int = 0) -> Any:
        """
        Wait for a status of a node that fulfils a condition, doing something meanwhile.

        It is one that was sent after a time [ns], by default after now.
        """
        name = f'{self.node.get_namespace().strip("/")}/{node}: {item}'
        news = self.fresh('/diagnostics', since)

        def found() -> list[Any]:
            meanwhile()
            return [s for a in news() for s in a.status if s.name == name and condition(s)]

        return wait_for(found, f'diagnostic {item}')[0]


def ns(stamp: Any) -> int:
    """Convert a stamp."""
    return stamp.sec * 10**9 + stamp.nanosec
