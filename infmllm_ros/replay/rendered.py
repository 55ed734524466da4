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

"""A short street scene, drawn with NumPy: cars come closer, a traffic light changes."""
from __future__ import annotations

import numpy as np

FPS = 10
FRAMES = 220  # 22 s
WIDTH, HEIGHT = 320, 240
HORIZON = 96  # [rows]

# First frame, side of the road (-1 left, 1 right), colour.
CARS = ((0, 1, (200, 40, 40)), (50, -1, (40, 80, 210)), (100, 1, (230, 200, 40)),
        (150, -1, (240, 240, 240)))
NEAR = 60  # [frames] from the horizon to the camera
LIGHT = (('red', 70), ('green', 80), ('yellow', 20), ('red', 50))  # colour, [frames]
LAMPS = {'red': (255, 30, 30), 'yellow': (255, 210, 30), 'green': (40, 230, 80)}


def light_at(index: int) -> str:
    """Return the colour of the traffic light in a frame."""
    for colour, frames in LIGHT:
        index -= frames
        if index < 0:
            return colour
    return LIGHT[-1][0]


def draw(index: int) -> np.ndarray:
    """Return frame `index`, uint8 ``[240, 320, 3]`` RGB."""
    image = _street(index)
    for first, side, colour in sorted(CARS, reverse=True):  # the earliest is nearest: drawn last
        if 0 <= index - first < NEAR:
            _car(image, (index - first) / NEAR, side, colour)
    _traffic_light(image, light_at(index))
    return image


def _street(index: int) -> np.ndarray:
    """Return sky, grass and a road whose dashes come towards the camera."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    depth = (row - HORIZON) / (HEIGHT - HORIZON)  # 0 at the horizon, 1 at the bottom
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = np.stack([110 + row // 2, 160 + row // 3, 230 - row // 6], axis=-1)
    image[row >= HORIZON] = (70, 130, 60)
    across = np.abs(column - WIDTH / 2)
    image[(depth >= 0) & (across < 12 + 130 * depth)] = (85, 85, 90)
    distance = 6 / np.maximum(depth, 0.02)
    dash = (distance + index * 0.6) % 6 < 3
    image[(depth > 0.02) & (across < 1 + 5 * depth) & dash] = (240, 240, 230)
    return image


def _box(image: np.ndarray, x: float, y: float, width: float, height: float,
         colour: tuple[int, int, int]) -> None:
    """Fill a box whose upper left corner is (x, y) [pixels]."""
    top, left = max(0, round(y)), max(0, round(x))
    image[top:max(0, round(y + height)), left:max(0, round(x + width))] = colour


def _car(image: np.ndarray, near: float, side: int, colour: tuple[int, int, int]) -> None:
    """Draw a car seen from the front; `near` runs from 0 (horizon) to 1 (passing)."""
    depth = near ** 2  # what comes closer grows faster
    size = 8 + 90 * depth
    x, y = WIDTH / 2 + side * (8 + 80 * depth), HORIZON + (HEIGHT - HORIZON) * depth
    _box(image, x - size / 2, y - size * 0.7, size, size * 0.7, colour)
    _box(image, x - size * 0.35, y - size * 0.62, size * 0.7, size * 0.22, (30, 40, 50))
    for wheel in (-0.45, 0.25):
        _box(image, x + wheel * size, y - size * 0.12, size * 0.2, size * 0.17, (20, 20, 20))


def _traffic_light(image: np.ndarray, lit: str) -> None:
    _box(image, 283, 70, 5, 90, (60, 60, 60))
    _box(image, 274, 20, 23, 60, (30, 30, 30))
    for place, colour in enumerate(('red', 'yellow', 'green')):
        lamp = LAMPS[colour] if lit == colour else tuple(v // 5 for v in LAMPS[colour])
        _box(image, 278, 24 + 18 * place, 15, 15, lamp)
