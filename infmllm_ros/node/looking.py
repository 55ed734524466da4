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

"""From the mailboxes of the cameras into the memory. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from infmllm_ros.engine import Stats, StreamingSession
from infmllm_ros.node.cameras import Camera, Cameras
from infmllm_ros.node.listener import Listener, Shown
from infmllm_ros.node.mailbox import BAD, FAILED, Frame, SEEN, SIMILAR, SKIPPED


class Looking:
    """
    Takes frames out of the mailboxes, and has the session observe them; for the model's thread.

    Parameters
    ----------
    listener : Listener
        Decodes frames, and hears of them.
    cameras : Cameras
    clock : callable
        Tells the time that frames are measured in [s].
    failed : callable
        Hears of a frame at which the model failed, where a question shall be answered all the
        same.

    Attributes
    ----------
    memory : tuple
        The frame that it ends with and its statistics after the last job, of one moment.
    fresh : bool
        Whether a frame was observed since this was set to False.
    closed : bool
        Whether no more frames are taken.
    """

    def __init__(self, listener: Listener, cameras: Cameras, clock: Callable[[], float],
                 failed: Callable[[str, Exception], None]):
        """Start before the first frame."""
        self.listener, self.cameras, self.clock = listener, cameras, clock
        self._failed = failed
        self.memory: tuple[Frame | None, Stats | None] = None, None
        self.fresh = self.closed = False

    @property
    def newest(self) -> Frame | None:
        """Name the last frame observed."""
        return self.memory[0]

    def note(self, session: StreamingSession, newest: Frame | None) -> None:
        """Take note of what the memory holds, and with what it ends."""
        self.memory = newest, session.stats()

    def observe(self, session: StreamingSession, camera: Camera, force: bool = False) -> None:
        """Look at a camera's waiting frame, if its gate admits it or in any case."""
        now = self.clock()
        frame = None if self.closed else camera.take(now)
        if frame is None:
            return
        settle = partial(camera.mailbox.settle, frame)
        try:
            try:
                image = self.listener.decode(frame.message)
            except ValueError as error:
                if settle(BAD):
                    self.listener.bad_image(frame, str(error))
                return
            if not camera.gate.admits(image, now, force):
                settle(SIMILAR)
                return
            _, before = self.memory
            try:
                session.observe(image, frame.stamp_ns, frame.camera)
            except BaseException:
                camera.gate.forget()
                raise
            stats = session.stats()
            if not settle(SKIPPED if stats.frames_skipped > before.frames_skipped else SEEN):
                return  # it took so long that it was given up
            self.memory, self.fresh, camera.newest = (frame, stats), True, frame
        except BaseException as error:
            settle(FAILED, type(error).__name__)
            raise
        self.listener.observed(frame, image, session)

    def look(self, session: StreamingSession, name: str) -> Shown:
        """Look at what the named camera, or any if '', shows now; see `show`."""
        for camera in self.cameras.about(name):
            try:
                self.observe(session, camera, force=True)
            except Exception as error:  # a frame that fails takes no question with it
                self._failed('frame', error)
        return self.show(name)

    def show(self, name: str) -> Shown:
        """Find the named camera's newest frame, to be shown again if others came after it."""
        newest = self.cameras.newest(name)
        if name and newest and newest is not self.newest and newest.message is not None:
            try:
                image = self.listener.decode(newest.message)
                return newest, (image, newest.stamp_ns, newest.camera)
            except Exception as error:  # as above
                self._failed('frame', error)
        return newest, None
