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
Make a bag of a video, images or another bag: ``python -m infmllm_ros.replay.to_bag INPUT OUT``.

With ``--rendered`` it makes a bag of a world that the project renders, and a file of what to tell
and to ask in it, with the right answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
import shutil
import sys
import tempfile
from typing import Any

from infmllm_ros.bundled.scenes import TOPICS as WORLDS
from infmllm_ros.images import decode, ImageError
from infmllm_ros.replay.bagging import BagError, open_bag, STORAGES
from infmllm_ros.replay.interview import Interview
from infmllm_ros.replay.sources import (
    camera_topics,
    cdr,
    COMPRESSED,
    Frame,
    IMAGE,
    open_source,
    Rendered,
    Source,
    SourceError,
)
from infmllm_ros.replay.terminal import interrupts, Progress, Screen
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
import yaml

FRAME_ID = 'camera'  # of the messages that are made here


class Script:
    """
    What to tell and to ask in a rendered world, as a file of questions.

    Parameters
    ----------
    source : Rendered
        That is being played.
    """

    def __init__(self, source: Rendered):
        self._source = source
        self._interview = Interview(source.seed, source.count)
        self._tell: list[dict[str, Any]] = []
        self._questions: list[dict[str, Any]] = []

    def go_on(self) -> None:
        """Take note of a new frame."""
        episode = self._source.episode
        at = episode.ordinal / self._source.fps
        text, question = self._interview.go_on(episode)
        if text is not None:
            self._tell.append({'at': at, 'text': text})
        if question is not None:
            self._questions.append({
                'name': f'{question.kind}-{len(self._questions) + 1}', 'question': question.text,
                'at': at, 'expected': self._interview.right_answer(question, episode.ordinal)})

    def save(self, path: Path) -> None:
        """Write the file."""
        path.write_text(yaml.safe_dump({'tell': self._tell, 'questions': self._questions},
                                       sort_keys=False), encoding='utf-8')


def write_bag(source: Source, out: Path, *, storage: str = 'mcap', compressed: bool = False,
              topic: str = '', on_frame: Callable[[int], None] | None = None) -> list[str]:
    """
    Write all frames of a source into a new bag, which appears when it is whole.

    Parameters
    ----------
    source : Source
        Its messages are kept as they are, and so is the time of each frame.
    out : Path
        Folder that is not there yet.
    storage : str
        'mcap' or 'sqlite3'.
    compressed : bool
        Make jpegs of raw images.
    topic : str
        Of one camera; by default that of the bag, else 'image', and 'CAMERA/image' with several.
        Jpegs go to TOPIC/compressed.
    on_frame : callable, optional
        Called with the number of frames after each.

    Returns
    -------
    list of str
        What was left out, a line each.

    Raises
    ------
    BagError
        Something is there already, the bag cannot be written, or a topic for several cameras.
    """
    if out.exists():
        raise BagError(f'{out}: is there already: remove it, or name another')
    if topic and len(source.cameras) > 1:
        raise BagError(f'topic {topic}: there are {len(source.cameras)} cameras, each needs its '
                       'own: leave it out')
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the place it is for: a rename does not copy, and is there whole or not at all.
    work = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
    bad = []
    try:
        bag = open_bag(work / out.name, storage)
        try:
            for number, frame in enumerate(source, 1):
                try:
                    kind, raw = _message(frame, compressed)
                except ImageError as error:
                    bad.append(f'image {number} is left out: {error}')
                else:
                    bag.write(_topic(frame, topic, kind, len(source.cameras)), frame.time_ns,
                              kind, raw)
                if on_frame is not None:
                    on_frame(number)
        finally:
            bag.close()
        (work / out.name).rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return bad + [source.problem] * bool(source.problem)


def _message(frame: Frame, compressed: bool) -> tuple[str, bytes]:
    """Return type and serialized message of a frame."""
    if frame.raw is not None and (not compressed or frame.msgtype == COMPRESSED):
        return frame.msgtype, frame.raw
    stamp_ns, frame_id, pixels = frame.time_ns, FRAME_ID, frame.image
    if pixels is None:
        try:
            message = deserialize_message(frame.raw, Image)
        except Exception as error:  # rclpy lets out what its middleware raises
            raise ImageError(f'not a message of {IMAGE} ({error})') from error
        stamp_ns, frame_id = cdr.stamp_of(frame.raw), message.header.frame_id
        pixels = decode(message)
    if compressed:
        return COMPRESSED, cdr.compressed(stamp_ns, frame_id, 'jpeg', cdr.jpeg(pixels))
    return IMAGE, cdr.image(stamp_ns, frame_id, pixels)


def _topic(frame: Frame, topic: str, kind: str, cameras: int) -> str:
    """Return the topic of a frame's message, as image_transport names it."""
    if frame.topic and not topic and kind == frame.msgtype:
        return frame.topic
    name = topic or frame.topic or (f'{frame.camera}/image' if cameras > 1 else 'image')
    return '/' + name.strip('/') + '/compressed' * (kind == COMPRESSED)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m infmllm_ros.replay.to_bag', usage='%(prog)s [options] INPUT OUT\n       '
        '%(prog)s [options] --rendered KIND OUT', description='Make a ROS 2 bag.',
        epilog='Exit status: 0; 2 on wrong input, nothing is written; 3 if some of the input is '
        'not in the bag; 130 when interrupted, nothing is left.')
    parser.add_argument('paths', nargs='+', help='INPUT: video, folder of images, or bag; OUT: '
                        'folder of the new bag')
    parser.add_argument('--storage', choices=STORAGES, default='mcap', help='default: mcap')
    parser.add_argument('--compressed', action='store_true', help='make jpegs of raw images')
    parser.add_argument('--topic', default='', help="of one camera (default: the input's, else "
                        'image; jpegs go to TOPIC/compressed)')
    parser.add_argument('--cameras', nargs='+', default=[], metavar='NAME=TOPIC',
                        help='which image topics of a bag, or which sub-folders')
    parser.add_argument('--fps', type=float, help='of images without stamps (default: 10)')
    parser.add_argument('--rendered', choices=sorted(WORLDS), help='a world of the bundled model')
    parser.add_argument('--frames', type=int, default=600, help='of it (default: 600)')
    parser.add_argument('--seed', type=int, default=0, help='which one (default: 0)')
    parser.add_argument('--questions', type=Path, metavar='FILE', help='where to write what to '
                        'tell and to ask in it, with the right answers')
    arguments = parser.parse_args(argv)
    if len(arguments.paths) != (1 if arguments.rendered else 2):
        parser.error('name INPUT and OUT, or --rendered and OUT')
    if arguments.questions and not arguments.rendered:
        parser.error(f'--questions {arguments.questions}: the right answers are known with '
                     '--rendered only')
    if arguments.questions and not arguments.questions.parent.is_dir():
        parser.error(f'--questions {arguments.questions}: there is no such folder: make it first')
    if arguments.frames < 1:
        parser.error(f'--frames {arguments.frames}: give at least 1')
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Make a bag; the exit status is as --help says."""
    arguments = _arguments(argv)
    out = Path(arguments.paths[-1]).expanduser()
    screen, done = Screen(sys.stdout), 0
    try:
        if arguments.rendered:
            source = Rendered(arguments.seed, arguments.rendered, arguments.frames)
        else:
            source = open_source(arguments.paths[0], camera_topics(arguments.cameras),
                                 arguments.fps)
        progress = Progress(screen, source.count)
        script = Script(source) if arguments.rendered else None

        def on_frame(number: int) -> None:
            nonlocal done
            check()
            done = number
            progress.show(number)
            if script is not None:
                script.go_on()
        with interrupts() as check:
            missing = write_bag(source, out, storage=arguments.storage, topic=arguments.topic,
                                compressed=arguments.compressed, on_frame=on_frame)
        if arguments.questions:
            script.save(arguments.questions)
    except (SourceError, BagError, OSError) as error:
        screen.close()
        print(f'to_bag: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        screen.close()
        print('to_bag: interrupted, nothing is left', file=sys.stderr)
        return 130
    screen.close()
    for line in missing:
        print(f'to_bag: {line}', file=sys.stderr)
    screen.line(f'{out}: {done:,} frames of {source.name}')
    return 3 if missing else 0


if __name__ == '__main__':
    sys.exit(main())
