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

"""Small pictures of the frames that the memory holds, for people. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Iterable
import io

from infmllm_ros.engine import Frame, Holding
import numpy as np
from PIL import Image

_PREFIX = 'thumbnail.'  # of the names under which they are saved
QUALITY = 80  # of the jpeg: some 2 kB at 64 pixels


class Album:
    """
    Thumbnails of frames, in bounded memory. For one thread at a time.

    They are keyed by the engine's frames, stamp included, so that those of a memory that was
    reset are not taken for those of the new one.

    Parameters
    ----------
    size : int
        [pixels] Longest side of a thumbnail.
    most : int
        How many there may be; 0 = none.
    """

    def __init__(self, size: int, most: int):
        """Start empty."""
        self.size, self.most = size, most
        self._jpegs: dict[Frame, bytes] = {}

    def __len__(self) -> int:
        """Tell how many there are."""
        return len(self._jpegs)

    def __contains__(self, frame: Frame) -> bool:
        """Tell whether there is one of a frame."""
        return frame in self._jpegs

    @property
    def full(self) -> bool:
        """Whether one more would be too many: time to `tidy`."""
        return len(self._jpegs) >= self.most

    def get(self, frame: Frame) -> bytes | None:
        """Give a frame's thumbnail as a jpeg; None if there is none."""
        return self._jpegs.get(frame)

    def add(self, frame: Frame, image: np.ndarray) -> None:
        """Keep a thumbnail of an image, uint8 [H, W, 3] RGB."""
        if not self.most:
            return
        self._jpegs[frame] = thumbnail(image, self.size)

    def tidy(self, held: Iterable[Holding], room: int = 0) -> None:
        """
        Drop those of which the memory holds nothing, and what is too many beside `room` more.

        Of too many, those go of which the fewest tokens are left, the oldest of them first.
        """
        left = {h.frame: h.tokens for h in held if h.frame in self._jpegs}
        excess = max(0, len(left) + room - self.most)
        gone = set(sorted(left, key=lambda frame: (left[frame], frame.ordinal))[:excess])
        self._jpegs = {frame: self._jpegs[frame] for frame in left if frame not in gone}

    def notes(self) -> dict[str, bytes]:
        """Give all as notes to be saved with the memory."""
        return {f'{_PREFIX}{frame.ordinal}': jpeg for frame, jpeg in self._jpegs.items()}

    def recall(self, notes: dict[str, bytes], frames: dict[int, Frame]) -> None:
        """Take those of saved notes, in the place of all; `frames` are the memory's by ordinal."""
        numbers = {int(name.removeprefix(_PREFIX)): jpeg for name, jpeg in notes.items()
                   if name.startswith(_PREFIX)}
        self._jpegs = {frames[number]: numbers[number] for number in sorted(numbers)
                       if number in frames}


def thumbnail(image: np.ndarray, size: int) -> bytes:
    """Make a jpeg of an image, uint8 [H, W, 3] RGB; its longest side is `size` pixels at most."""
    step = max(1, max(image.shape[:2]) // (2 * size))  # cheap first; then smoothly
    small = Image.fromarray(np.ascontiguousarray(image[::step, ::step]))
    small.thumbnail((size, size), Image.Resampling.BOX)
    data = io.BytesIO()
    small.save(data, 'jpeg', quality=QUALITY)
    return data.getvalue()
