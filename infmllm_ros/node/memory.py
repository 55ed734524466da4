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

"""The memory as a file and as a picture: services, autosave, and images for people."""

from __future__ import annotations

import array
from collections.abc import Callable
from concurrent.futures import Future
import glob
from math import inf
import os
from pathlib import Path
import shutil
import time
from typing import Any

from infmllm_msgs.srv import MemoryFile
from infmllm_ros.engine import Answer, Frame, holdings, MemoryFileError, StreamingSession
from infmllm_ros.node import picture, waiting
from infmllm_ros.node.album import Album
from infmllm_ros.node.convert import header, time_message
from infmllm_ros.node.mailbox import Frame as Observed
from infmllm_ros.node.option import ParameterError
from infmllm_ros.node.qos import Endpoints
from infmllm_ros.node.worker import Worker
import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
import rclpy.task
from safetensors import SafetensorError
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

STALE = 600.0  # [s] a file that was not written to for so long is nobody's any more
_FRAME_ID = 'frame_id'  # the note in a saved memory that has that of its newest frame


async def ended(job: Future, executor: Any) -> BaseException | None:
    """Wait for a job of the worker without holding the executor up; returns its error, if any."""
    done = rclpy.task.Future(executor=executor)

    def wake(_: Future) -> None:
        done.set_result(None)
        executor.wake()

    job.add_done_callback(wake)
    await done
    return job.exception()


def home() -> Path:
    """Name the folder for saved memories that is taken when none is named."""
    return Path(os.environ.get('ROS_HOME') or Path.home() / '.ros') / 'infmllm'


def place(folder: Path, path: str, anywhere: bool) -> Path:
    """
    Find the file that a path means, links followed.

    Raises
    ------
    MemoryFileError
        If it is not inside the folder, and may not be `anywhere`.
    """
    folder = Path(os.path.realpath(folder))
    try:
        file = Path(os.path.realpath(folder / path))
    except ValueError as error:  # a null character
        raise MemoryFileError(f'path {path!r} is none ({error}): name a file') from error
    if file == folder or file.is_dir():
        raise MemoryFileError(f'path {path!r} is a folder: name a file in it')
    if not (anywhere or file.is_relative_to(folder)):
        raise MemoryFileError(f'path {path!r} is outside {folder}, the memory.folder: name a file '
                              'inside, or set memory.anywhere')
    return file


def sweep(file: Path) -> None:
    """Delete what processes that were killed have left half written beside a file."""
    for part in file.parent.glob(f'{glob.escape(file.name)}*.part'):
        if time.time() - part.stat().st_mtime > STALE:
            shutil.rmtree(part, ignore_errors=True)


class Memory:
    """
    Saves, restores and shows the memory of a node.

    Parameters
    ----------
    node : rclpy.lifecycle.LifecycleNode
        Whose memory it is.
    ends : Endpoints
        Makes its publishers.
    worker : callable
        Gives the worker that owns the model; None while there is none.
    clock : rclpy.clock.Clock
        Of the timers.
    """

    def __init__(self, node: Any, ends: Endpoints, worker: Callable[[], Worker | None],
                 clock: Any):
        """Offer the services and the topics."""
        self._node, self._worker, self._clock = node, worker, clock
        self._pictures = ends.publisher(Image, 'memory_image', 1)
        self._evidence = ends.publisher(CompressedImage, 'evidence_image', 20)
        group = ReentrantCallbackGroup()  # callbacks that await must not hold up all others
        node.create_service(MemoryFile, 'save_memory', self._on_save, callback_group=group)
        node.create_service(MemoryFile, 'load_memory', self._on_load, callback_group=group)
        self._timers: list[Any] = []
        self._pending: dict[str, Future] = {}
        self.problem = ''  # why the memory was not restored, or not saved by itself

    def configure(self, settings: dict[str, Any], tick: Callable[[], None],
                  patience: float = inf) -> None:
        """
        Take the parameters ``memory.*``, and put the saved memory in place if they say so.

        Parameters
        ----------
        settings : dict
            The parameters, by their names without ``memory.``.
        tick : callable
            Called once a second while the saved memory is read.
        patience : float
            [s] How long that may take.

        Raises
        ------
        ParameterError
            If the file that they name is outside the folder that they name.
        TimeoutError
            Reading takes longer.
        """
        self._settings, self.problem, self._last = settings, '', ('', None)
        self._album = Album(settings['thumbnail_size'], settings['thumbnails'])
        self._guarded: Path | None = None  # a file that was refused: not overwritten unasked
        try:
            file = self._place('')
        except MemoryFileError as error:
            raise ParameterError(f'memory.file: {error}') from None
        if file.parent.is_dir():
            sweep(file)
        if settings['restore'] and file.exists():
            self._restore(file, tick, patience)
        elif settings['restore']:
            self._node.get_logger().info(f'no saved memory at {file}: starting with an empty one')
        self._saved = self._worker().health().stats.tokens_seen

    def _restore(self, file: Path, tick: Callable[[], None], patience: float) -> None:
        job = self._worker().use('load memory', lambda session: self._load(session, file))
        try:
            tokens, _, seconds = waiting.finish(
                job, self._node.context.ok, tick, patience)
        except MemoryFileError as error:
            self._guarded = file
            self.problem = (f'memory not restored: {error}; it starts empty and does not save '
                            'itself over that file: call save_memory, or move the file away')
            self._node.get_logger().error(self.problem)
        else:
            self._node.get_logger().info(
                f'memory restored from {file}: {tokens} tokens in {seconds:.2f} s')

    def activate(self) -> None:
        """Start to draw, and to save."""
        settings = self._settings
        self._timers = [self._node.create_timer(period, callback, clock=self._clock)
                        for period, callback in (
                            (settings['picture_period'], self._on_picture),
                            (settings['autosave_period'], self._on_autosave)) if period]

    def close(self) -> None:
        """Draw and save no more."""
        for timer in self._timers:
            self._node.destroy_timer(timer)
        self._timers = []

    # In the worker's thread.

    def thumbnail(self, frame: Frame) -> bytes | None:
        """Give the thumbnail of a frame as a jpeg; None if there is none."""
        return self._album.get(frame)

    def observed(self, image: np.ndarray, session: StreamingSession) -> None:
        """Keep a thumbnail of the session's newest frame, unless there is one."""
        frame, album = session.newest, self._album
        if frame is None or frame in album or not album.most:
            return
        if album.full:
            album.tidy(holdings(session), room=1)
        album.add(frame, image)

    def answered(self, question: str, answer: Answer) -> None:
        """Show the frames that an answer rests on, the best one last, to those who want to see."""
        self._last = question, answer
        if not self._evidence.get_subscription_count():
            return
        for e in reversed(answer.evidence):
            jpeg = self._album.get(Frame(e.frame, e.stamp_ns, e.camera))
            if jpeg is not None:
                self._evidence.publish(CompressedImage(
                    header=Header(stamp=time_message(e.stamp_ns), frame_id=e.camera),
                    format='jpeg', data=array.array('B', jpeg)))

    def _draw(self, session: StreamingSession) -> None:
        held = holdings(session)
        self._album.tidy(held)
        pixels = picture.draw(session.stats(), held, self._album.get, *self._last)
        height, width, _ = pixels.shape
        data = array.array('B')
        data.frombytes(pixels.tobytes())
        self._pictures.publish(Image(
            header=header(self._worker().health().newest), height=height, width=width,
            encoding='rgb8', step=3 * width, data=data))

    def _save(self, session: StreamingSession, file: Path) -> tuple[int, int, float]:
        start, newest = time.monotonic(), self._worker().health().newest
        self._album.tidy(holdings(session))
        file.parent.mkdir(parents=True, exist_ok=True)
        session.save(file, {_FRAME_ID: (newest.frame_id if newest else '').encode(),
                            **self._album.notes()})
        stats = session.stats()
        self._saved = stats.tokens_seen
        self.problem, self._guarded = '', None
        return stats.tokens, stats.frames_retained, time.monotonic() - start

    def _load(self, session: StreamingSession, file: Path) -> tuple[int, int, float]:
        start = time.monotonic()
        notes, worker = session.restore(file), self._worker()
        if worker is None or worker.session is not session:  # whose album is another's, too
            raise RuntimeError('the worker that read it was given up meanwhile')
        self._album.recall(notes, session.frames)
        newest = session.newest
        worker.recall(newest and Observed(
            None, newest.stamp_ns, notes.get(_FRAME_ID, b'').decode(), newest.camera))
        stats = session.stats()
        return stats.tokens, stats.frames_retained, time.monotonic() - start

    # In the executor's thread.

    def _place(self, path: str) -> Path:
        settings = self._settings
        return place(Path(settings['folder'] or home()), path or settings['file'],
                     settings['anywhere'])

    async def _on_save(self, request: Any, response: Any) -> Any:
        return await self._serve('save', 'saved', self._save, request, response)

    async def _on_load(self, request: Any, response: Any) -> Any:
        return await self._serve('load', 'loaded', self._load, request, response)

    async def _serve(self, what: str, done: str, act: Callable, request: Any,
                     response: Any) -> Any:
        worker = self._worker()
        if worker is None:
            response.message = f'no memory to {what}: the node is unconfigured, configure it first'
            return response
        try:
            file = self._place(request.path)
        except MemoryFileError as error:
            response.message = str(error)
            return response
        job = worker.use(f'{what} memory', lambda session: act(session, file))
        error, response.path = await ended(job, self._node.executor), str(file)
        if error is not None:
            response.message = _reason(error)
            self._node.get_logger().warning(f'{what}_memory: {response.message}')
            return response
        response.success = True
        response.tokens, frames, response.seconds = job.result()
        response.message = f'{response.tokens} tokens of {frames} frames {done}'
        self._node.get_logger().info(f'{what}_memory: {response.message}, {file}')
        return response

    def _on_picture(self) -> None:
        if self._pictures.get_subscription_count():
            self._start('picture', self._draw)

    def _on_autosave(self) -> None:
        file, stats = self._place(''), self._worker().health().stats
        if stats.tokens_seen != self._saved and file != self._guarded:
            self._start('autosave', lambda session: self._save(session, file))

    def _start(self, name: str, act: Callable[[StreamingSession], Any]) -> None:
        """Have something done when the model is free, unless that still waits from last time."""
        last = self._pending.get(name)
        if last is None or last.done():
            self._pending[name] = job = self._worker().use(name, act)
            job.add_done_callback(lambda job: self._finished(name, job))

    def _finished(self, name: str, job: Future) -> None:
        """Say what went wrong; in the worker's thread."""
        error = job.exception()
        if error is not None and self._timers:  # else the node is about to stop
            self.problem = f'{name} failed: {_reason(error)}'
            self._node.get_logger().error(self.problem, throttle_duration_sec=10.0)


def _reason(error: BaseException) -> str:
    """Write an error on one line; one of the system needs its type and its remedy."""
    if isinstance(error, MemoryFileError):
        return str(error)
    text = f'{type(error).__name__}: {" ".join(str(error).split())}'
    if isinstance(error, (OSError, SafetensorError)):
        text += ': see that the folder can be written and the disk has room'
    return text
