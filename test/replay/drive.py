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

"""Material for the report: an offline replay of rendered drives, of one camera or several."""

from contextlib import closing
from dataclasses import replace
import json
from pathlib import Path

from infmllm_ros.replay.plan_file import read_plan
from infmllm_ros.replay.records import End
from infmllm_ros.replay.sources import IMAGE, Rendered, Source
import pytest

CHOICES = ['red', 'yellow', 'green', 'none']
WATCH = [{'name': 'light', 'question': 'what colour is the light', 'choices': CHOICES,
          'every': 5}]
QUESTIONS = {
    'tell': [{'at': .5, 'text': 'remember the password is river'}],
    'questions': [
        {'name': 'ahead', 'question': 'what is ahead', 'at': [2, 4],
         'expected': ['car', 'truck', 'person', 'barrier', 'none']},  # any that it knows
        {'question': 'what is the password', 'at': 3, 'expected': 'no such word'},
        {'question': 'what came first', 'at': 'end'}]}


class Drives(Source):
    """A rendered drive for each camera, one after the other within a moment."""

    name, fps = 'drive.mcap', Rendered.fps

    def __init__(self, frames: int, cameras: tuple[str, ...]) -> None:
        self.msgtypes, self.count = dict.fromkeys(cameras, IMAGE), frames

    def __iter__(self):
        several = len(self.cameras)
        drives = [Rendered(seed, count=self.count // several) for seed in range(several)]
        for moment in zip(*drives):
            for place, (camera, frame) in enumerate(zip(self.cameras, moment)):
                yield replace(frame, camera=camera, time_ns=frame.time_ns + place * 1_000_000)


def replay(folder: Path, frames: int, cameras: tuple[str, ...] = ('',)) -> End:
    """Replay into a folder; skips where the messages are missing."""
    pytest.importorskip('infmllm_msgs', reason='needs the interface package infmllm_msgs')
    for name, what in (('watches.yaml', WATCH), ('questions.yaml', QUESTIONS)):
        (folder / name).write_text(json.dumps(what))  # JSON is YAML
    from infmllm_ros.replay.offline import Offline
    from infmllm_ros.replay.output import replay_into
    with closing(Offline(Drives(frames, cameras), read_plan(folder / 'questions.yaml'),
                         {'watches': str(folder / 'watches.yaml')})) as run:
        return replay_into(folder, run, storage=None, page=False)
