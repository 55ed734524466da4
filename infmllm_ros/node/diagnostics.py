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

"""What the node says about itself on ``/diagnostics``: levels, reasons and remedies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import time
from typing import Any, TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from infmllm_ros.engine import Stats
from infmllm_ros.node.cameras import Tally
from infmllm_ros.node.health import Health
from infmllm_ros.node.watchdog import Watchdog

if TYPE_CHECKING:
    from infmllm_ros.node.camera import CameraInput
    from infmllm_ros.node.navigation import NavigationInput

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
RECENT = 10.0  # [s] how long a failure counts as recent
HEARTBEATS = 2**16  # a sequence number wraps before this, as 16 bits do
BUSY = 30.0  # [s] a job longer than this is worth a warning

_WAITING = {
    'unconfigured': 'not configured: call the lifecycle transition configure, or start the node '
                    'with autostart',
    'configuring': 'loading the model',
    'inactive': 'inactive, the memory is kept: call the lifecycle transition activate',
}


def status(name: str, level: bytes, message: str, **values: Any) -> DiagnosticStatus:
    """Make one status; `values` are written as text."""
    return DiagnosticStatus(
        level=level, name=name, message=message,
        values=[KeyValue(key=k.replace('_', ' '), value=str(v)) for k, v in values.items()])


def node_status(state: str, model: str, error: str, progress: str,
                beat: int) -> DiagnosticStatus:
    """
    Report the lifecycle: why the last configure failed, if it did; how far loading is.

    `beat` counts these messages: from 65535 it goes on with 0.
    """
    values = {'state': state, 'model': model, 'heartbeat': beat % HEARTBEATS}
    if error:
        return status('node', ERROR, error, **values)
    waiting = _WAITING.get(state, '')
    if state == 'configuring' and progress:
        waiting += f': {progress}'
    return status('node', WARN if waiting else OK, waiting or state, **values)


def titles_of(what: str, names: Sequence[str]) -> dict[str, str]:
    """Name the statuses of cameras: a camera that is the only one is not named."""
    return {name: f'{what} {name}' if len(names) > 1 else what for name in names}


def camera_statuses(names: Sequence[str], cameras: Mapping[str, CameraInput],
                    health: Health | None, timeout: float) -> list[DiagnosticStatus]:
    """Report each camera; `timeout` is how many seconds without an image are worth a warning."""
    titles = titles_of('image input', names)
    tallies = {tally.name: tally for tally in health.cameras} if health else {}
    return [_camera_status(titles[name], cameras[name], tallies[name], timeout)
            if name in cameras and name in tallies else
            status(titles[name], OK, 'not subscribed while the node is not active')
            for name in names]


def _camera_status(name: str, camera: CameraInput, tally: Tally,
                   timeout: float) -> DiagnosticStatus:
    """Say why no image comes, or why one was dropped lately, if so."""
    values = {'topic': camera.topic, 'rate_Hz': f'{camera.rate:.1f}', 'age_s': f'{camera.age:.1f}',
              'received': tally.received, 'seen': tally.seen, 'dropped': tally.dropped,
              'similar': tally.similar, 'skipped': tally.skipped, 'bad': tally.bad,
              'failed': tally.failed, 'waiting': tally.waiting, 'causes_of_failure': ', '.join(
                  f'{cause} {count}' for cause, count in sorted(tally.causes.items())) or 'none'}
    silent = camera.watch(timeout)
    if silent:
        return status(name, ERROR if camera.mismatch else WARN, silent, **values)
    reason, when = camera.bad_image
    if time.monotonic() - when < RECENT:
        return status(name, WARN, f'image dropped: {reason}', **values)
    return status(name, OK, 'images come', **values)


def navigation_status(navigation: NavigationInput | None) -> list[DiagnosticStatus]:
    """Report the navigation context, where it is wanted: why there is none, if so."""
    if navigation is None:
        return []
    reason = navigation.reason
    return [status('navigation', WARN if reason else OK, reason or 'path and odometry are usable')]


def memory_status(stats: Stats | None, policy: str, problem: str) -> DiagnosticStatus:
    """Report the memory's use of its budget, and why it was not restored or saved, if so."""
    if stats is None:
        return status('memory', OK, 'no model loaded')
    return status(
        'memory', ERROR if problem else OK,
        problem or f'{stats.tokens} of {stats.budget} tokens', policy=policy,
        tokens=stats.tokens, budget_tokens=stats.budget, usage=f'{stats.usage:.3f}',
        kv_MiB=f'{stats.kv_bytes / 2**20:.1f}', frames_seen=stats.frames_seen,
        frames_skipped=stats.frames_skipped, frames_retained=stats.frames_retained,
        evictions=stats.evictions)


def worker_status(health: Health | None, watchdog: Watchdog) -> DiagnosticStatus:
    """Report what the worker does, and whether it hangs."""
    if health is None:
        return status('worker', OK, 'not started')
    values = {'job': health.job or 'none', 'busy_s': f'{health.busy_s:.1f}',
              'questions_waiting': health.waiting, 'failures': health.failures,
              'last_failure': health.last_failure, 'out_of_memory': health.exhausted,
              'hung': watchdog.times}
    if watchdog.hung:
        return status('worker', ERROR, f'{watchdog.hung}: clean the node up and configure it '
                      'again, or restart the process', **values)
    if health.since_failure_s < RECENT:
        return status('worker', ERROR, f'failed: {health.last_failure}', **values)
    if health.busy_s > BUSY and health.job != 'load':
        return status('worker', WARN, f'busy with one {health.job} for {health.busy_s:.0f} s: a '
                      'smaller model or fewer max_answer_tokens would be quicker', **values)
    return status('worker', OK, health.job or 'idle', **values)


def array(stamp: Any, node_name: str, statuses: list[DiagnosticStatus]) -> DiagnosticArray:
    """Join statuses into the message; each name gets the node's before it."""
    message = DiagnosticArray(status=statuses)
    message.header.stamp = stamp
    for one in statuses:
        one.name = f'{node_name}: {one.name}'
        one.hardware_id = node_name
    return message
