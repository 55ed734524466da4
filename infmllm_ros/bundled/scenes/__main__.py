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
Draw a sheet of frames with their truth and a question each, for a person to look at.

``python -m infmllm_ros.bundled.scenes OUT.png [--seed N]`` needs Pillow.
"""

import argparse
import itertools
import textwrap

from infmllm_ros.bundled.scenes import Episode, NONE, Step, TOPICS
from PIL import Image, ImageDraw

ZOOM, CAPTION, COLUMNS = 4, 72, 6


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(prog='python -m infmllm_ros.bundled.scenes',
                                     description='Draw a sheet of scenes.')
    parser.add_argument('out', help='the image to write, .png')
    parser.add_argument('--seed', type=int, default=0, help='of the first episode (0)')
    parser.add_argument('--size', type=int, default=64, help='side of a frame in pixels (64)')
    parser.add_argument('--kind', choices=tuple(TOPICS), help='one kind of scene only')
    parser.add_argument('--frames', type=int, default=18, help='frames of each kind (18)')
    parser.add_argument('--every', type=int, default=4, help='show every n-th frame (4)')
    args = parser.parse_args()
    tiles = []
    for kind in (args.kind,) if args.kind else TOPICS:
        episode = Episode(kind, args.seed, args.size, told_rate=.1)
        for step in itertools.islice(episode, 0, args.frames * args.every, args.every):
            tiles.append(_tile(episode, step, 64 * ZOOM))
    width, height = tiles[0].size
    sheet = Image.new('RGB', (width * COLUMNS, height * -(-len(tiles) // COLUMNS)))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % COLUMNS * width, i // COLUMNS * height))
    sheet.save(args.out)


def _tile(episode: Episode, step: Step, side: int) -> Image.Image:
    """Return one frame, enlarged, with what is true in it below."""
    tile = Image.new('RGB', (side + 6, side + CAPTION), 'white')
    tile.paste(Image.fromarray(step.frame).resize((side, side), Image.Resampling.NEAREST), (3, 0))
    seen = ', '.join(f'{name} {value}' for name, value in step.truth.items() if value != NONE)
    question = episode.ask()
    lines = textwrap.wrap(f'{step.ordinal}: {seen}', 48)
    if question:
        lines += textwrap.wrap(f'({question.kind}) {question.text}? {question.answer}', 44)
    draw = ImageDraw.Draw(tile)
    for i, line in enumerate(lines):
        draw.text((4, side + 1 + 14 * i), line, fill='black')
    return tile


if __name__ == '__main__':
    main()
