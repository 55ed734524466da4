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

"""Frames on their way into the memory: one, or a backlog of them in few, long passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any, TYPE_CHECKING

from . import retention
from .answer import Frame
from .chunk import Chunk, join
from .errors import FrameError, ModelError, NotFiniteError
from .finite import failure
from .lookout import Lookout
from .policies import Role

if TYPE_CHECKING:
    from .session import StreamingSession


def observe(session: StreamingSession, image: Any, stamp_ns: int, camera: str) -> None:
    """Take one frame; see :meth:`StreamingSession.observe`."""
    start = perf_counter()
    chunk = _encode(session, image, int(stamp_ns), camera)
    encoded = perf_counter()
    retention.admit(session, len(chunk))
    _enter(session, [chunk], [int(stamp_ns)], [camera], encoded - start)


def measure(session: StreamingSession, image: Any, stamp_ns: int, camera: str) -> int:
    """Count the tokens that a frame takes, without a look at it."""
    _check_sight(session)
    return len(session.adapter.lay_out(image, *_texts(session, int(stamp_ns), camera)))


def glimpse(session: StreamingSession, image: Any, stamp_ns: int, camera: str) -> Frame:
    """
    Prefill a frame and note it nowhere but in the cache, which its caller rolls back.

    Nothing is evicted for it. Returns the frame: the one in the memory, if that is shown again.
    """
    chunk = _encode(session, image, int(stamp_ns), camera)
    new = Frame(session.frames_seen, int(stamp_ns), camera)
    frame = next((known for known in reversed(session.frames.values())
                  if (known.stamp_ns, known.camera) == (new.stamp_ns, camera)), new)
    session.feed(chunk, Role.FRAME, frames=[frame] * len(chunk))
    return frame


def observe_many(session: StreamingSession, images: Sequence[Any], stamps_ns: Sequence[int],
                 cameras: str | Sequence[str]) -> None:
    """Take a backlog of frames; see :meth:`StreamingSession.observe_many`."""
    _check_sight(session)
    total = len(images)
    cameras = [cameras] * total if isinstance(cameras, str) else cameras
    if not total == len(stamps_ns) == len(cameras):
        raise FrameError(f'{total} images, {len(stamps_ns)} stamps and {len(cameras)} cameras: '
                         'give one stamp an image, and one camera an image or for all')
    stamps = [int(stamp) for stamp in stamps_ns]
    # all are checked and counted before the first is looked at: what is wrong enters nothing
    chunks = []
    labels = [session.settings.labels.get(camera, '') for camera in cameras]
    for number, (image, stamp, label) in enumerate(zip(images, stamps, labels, strict=True)):
        try:
            chunks.append(session.adapter.lay_out(
                image, _seconds(session, stamp, stamps[0]), label))
        except FrameError as error:
            raise FrameError(f'frame {number} of 0 to {total - 1}: {error}') from error
    sizes = [len(chunk) for chunk in chunks]
    retention.admit(session, sum(sizes))
    refused: list[NotFiniteError] = []
    parts = list(passes(sizes, session.settings.chunk))
    lookout = Lookout(session, chunks, images, parts)
    for number, part in enumerate(parts):
        start = perf_counter()
        seen = lookout.frames(number)
        refused += _enter_sound(session, seen, stamps[part], cameras[part], perf_counter() - start,
                                partial(lookout.look_ahead, number + 1))
    if len(refused) > 1:
        raise failure(f'{len(refused)} of {total} frames', session.cache) from refused[0]
    for error in refused:
        raise error


def passes(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Cut frames of so many tokens into runs of at most `most`; a longer frame goes alone."""
    first, total = 0, 0
    for number, size in enumerate(sizes):
        if number > first and total + size > most:
            yield slice(first, number)
            first, total = number, 0
        total += size
    if sizes:
        yield slice(first, len(sizes))


def _enter_sound(session: StreamingSession, chunks: Sequence[Chunk], stamps_ns: Sequence[int],
                 cameras: Sequence[str], vision_s: float, meanwhile: Callable[[], None],
                 ) -> list[NotFiniteError]:
    """Prefill frames, one by one where one of them spoils the pass; give what was refused."""
    try:
        _enter(session, chunks, stamps_ns, cameras, vision_s, meanwhile)
    except NotFiniteError as error:
        if len(chunks) == 1:
            return [error]
        return [refused for chunk, stamp, camera in zip(chunks, stamps_ns, cameras, strict=True)
                for refused in _enter_sound(
                    session, [chunk], [stamp], [camera], vision_s / len(chunks), meanwhile)]
    return []


def _enter(session: StreamingSession, chunks: Sequence[Chunk], stamps_ns: Sequence[int],
           cameras: Sequence[str], vision_s: float,
           meanwhile: Callable[[], None] = lambda: None) -> None:
    """
    Prefill the frames of one pass, without those that repeat others, and evict.

    `meanwhile` is called while the language model is at work on a GPU.
    """
    known = dict(session.filter.last)
    entering: list[Chunk] = []
    frames: list[Frame] = []
    for chunk, stamp, camera in zip(chunks, stamps_ns, cameras, strict=True):
        if not session.filter.repeats(chunk, camera):
            session.filter.take(chunk, camera)
            entering.append(chunk)
            frames.append(Frame(session.frames_seen + len(frames), stamp, camera))
    session.timings['vision_s'] = vision_s / len(chunks)
    if frames:
        try:
            retention.take(session, join(entering), Role.FRAME, frames=[
                frame for frame, chunk in zip(frames, entering, strict=True) for _ in chunk.ids],
                meanwhile=meanwhile)
        except BaseException:
            session.filter.last = known
            raise
        session.timings['prefill_s'] /= len(frames)
        if session._first_stamp is None:
            session._first_stamp = frames[0].stamp_ns
        session.newest = frames[-1]
        session.frames.update((frame.ordinal, frame) for frame in frames)
        session.frames_seen += len(frames)
        retention.prune(session)
    session.frames_skipped += len(chunks) - len(frames)


def _encode(session: StreamingSession, image: Any, stamp_ns: int, camera: str) -> Chunk:
    """Turn an image into the tokens of a frame."""
    _check_sight(session)
    return session.adapter.encode(
        session.model.model, image, *_texts(session, stamp_ns, camera), session.graphs)


def _texts(session: StreamingSession, stamp_ns: int, camera: str) -> tuple[float, str]:
    """Give what a frame's own text says: seconds since the first frame, and the label."""
    return _seconds(session, stamp_ns, stamp_ns), session.settings.labels.get(camera, '')


def _check_sight(session: StreamingSession) -> None:
    if not session.adapter.sees:
        raise ModelError(f'{session.model.spec.name} is text-only: it cannot observe images')


def _seconds(session: StreamingSession, stamp_ns: int, first_ns: int) -> float:
    """Time since the first frame of the stream, which is at `first_ns` if there was none yet."""
    first = first_ns if session._first_stamp is None else session._first_stamp
    return max(0, stamp_ns - first) / 1e9
