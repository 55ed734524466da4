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

"""Backlogs of frames to observe, and what a memory knows after one."""

import numpy as np
from zoo import picture

SIZES = [(64, 64), (90, 40), (30, 100), (112, 112)]
START = 1_700_000_000 * 10**9 + 7    # nanoseconds that float64 could not tell apart


def shots(count, seed=0):
    """Take pictures of several shapes by two cameras: images, stamps, cameras."""
    rng = np.random.default_rng(seed)
    stamps = START + rng.integers(1, 3 * 10**9, count).cumsum()
    return ([picture(seed + number, *SIZES[rng.integers(len(SIZES))]) for number in range(count)],
            stamps.tolist(), [('front', 'left')[rng.integers(2)] for _ in range(count)])


def one_by_one(target, images, stamps, cameras):
    """Observe a backlog as if there were none."""
    for image, stamp, camera in zip(images, stamps, cameras, strict=True):
        target.observe(image, stamp, camera)


def memory(target):
    """Tell all that a memory knows of its tokens, but for keys and values."""
    ledgers = [slots.meta[:, :, :slots.count].tolist() for slots in target.cache.slots]
    stats = target.stats()
    return (ledgers, target.frames, target.newest, stats.tokens, stats.tokens_seen,
            stats.frames_seen, stats.frames_retained, target._first_stamp)
