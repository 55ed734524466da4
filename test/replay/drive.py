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

"""Material for the report: a real session watches a rendered drive, and its records are kept."""

from __future__ import annotations

from collections import Counter
import io
from pathlib import Path
import time
import zipfile

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.engine import holdings, load_model, make_policy, StreamingSession
from infmllm_ros.replay import records
from infmllm_ros.replay.interview import Interview
from infmllm_ros.replay.sources import Rendered
from infmllm_ros.watches import ChangeDetector
from PIL import Image

START = 1_700_000_000_000_000_000  # [ns]
WATCH, CHOICES = 'what colour is the light', ['red', 'yellow', 'green', 'none']
EVERY = 10  # [frames] between two turns of the watch


class Drive:
    """
    A run over a rendered drive, written as a replay writes it.

    Parameters
    ----------
    folder : Path
        Where run.jsonl and thumbnails.zip go.
    frames : int
    cameras : sequence of str
        The drive is seen by the first, others see drives of their own.
    ended : bool
        Whether the last line is written.
    """

    def __init__(self, folder: Path, frames: int = 200, cameras: tuple[str, ...] = ('',),
                 ended: bool = True) -> None:
        self.journal = records.Journal(folder / records.FILE)
        self.album = zipfile.ZipFile(folder / 'thumbnails.zip', 'w', zipfile.ZIP_STORED)
        self.session = StreamingSession(
            load_model(str(MODEL)), make_policy('saddle', budget=MODEL_BUDGET, **MODEL_POLICY),
            max_question=32)
        self.images, self.kept, self.count, self.right = {}, set(), 0, []
        self.fates, self.light, self.detector = Counter(), -1, ChangeDetector()
        began = time.perf_counter()
        self.journal.write(records.Run(
            'drive.mcap', 'offline', 'bundled', 'saddle', MODEL_BUDGET, list(cameras),
            {'budget_tokens': MODEL_BUDGET, 'saddle.window': 'marker', 'saddle.bias': .002},
            'questions.yaml', measured={'started': '2026-11-21T15:40:16Z', 'device': 'cpu',
                                        'versions': {'infmllm_ros': '0.1.0'}}))
        self.drive(frames, cameras)
        if ended:
            seconds = time.perf_counter() - began
            judged = [right for right in self.right if right is not None]
            self.journal.write(records.End(
                dict(self.fates), len(self.right), len(judged), sum(judged), measured={
                    'seconds': seconds, 'frames_per_second': frames / seconds,
                    'speed': frames / Rendered.fps / seconds}))
        self.journal.close()
        self.album.close()

    def drive(self, frames: int, cameras: tuple[str, ...]) -> None:
        """Hand in all frames; tell and ask on the way."""
        source, plan = Rendered(), Interview()
        others = [iter(Rendered(seed)) for seed, _ in enumerate(cameras[1:], 1)]
        for number, frame in zip(range(0, frames, len(cameras)), source):
            stamp = START + frame.time_ns
            for place, camera in enumerate(cameras):
                image = next(others[place - 1]).image if place else frame.image
                self.observe(image, stamp + place * 1_000_000, camera, frames)
            text, question = plan.go_on(source.episode)
            if text is not None:
                self.session.tell(text)
                self.journal.write(records.Told(stamp, text))
            if question is not None:
                right = plan.right_answer(question, number // len(cameras))
                self.ask(question.text, stamp, question.name, right)
            if number % EVERY == 0:
                self.watch(stamp)

    def observe(self, image, stamp: int, camera: str, frames: int) -> None:
        """Show a frame, and write what is left of the memory after it."""
        fate = 'similar' if self.count % 50 == 49 else 'seen'
        self.fates[fate] += 1
        self.journal.write(records.Frame(self.count, stamp, camera, fate))
        self.count += 1
        self.images[camera, stamp] = image
        if self.count % max(1, frames // 60) == 0:
            self.keep(camera, stamp)
        if fate != 'seen':
            return
        self.session.observe(image, stamp, camera)
        stats = self.session.stats()
        self.journal.write(records.Stats(
            stamp, stats.tokens, stats.budget, stats.tokens_seen, stats.tokens_evicted,
            stats.frames_seen, stats.frames_retained, stats.kv_bytes, measured={
                **{f'{name}_ms': 1e3 * getattr(stats, f'{name}_s')
                   for name in ('vision', 'prefill', 'evict')}, 'process_bytes': resident()}))
        if self.count % max(1, frames // 200) == 0:
            self.journal.write(records.Memory(stamp, [
                [h.frame.stamp_ns, h.frame.camera, h.tokens] for h in holdings(self.session)]))

    def ask(self, text: str, stamp: int, name: str, expected: str | None, choices: tuple = (),
            watch: bool = False) -> records.Answer:
        """Ask, and write the answer."""
        said = self.session.answer(text, choices=choices or None, max_tokens=8)
        evidence = [[e.stamp_ns, e.camera, round(e.weight, 6)] for e in said.evidence]
        for shown, camera, _ in evidence:
            self.keep(camera, shown)
        right = None if expected is None else said.text == expected
        if not watch:
            self.right.append(right)
        answer = records.Answer(
            f'{name}-{self.count}', name, watch, stamp, said.stamp_ns or 0, said.camera, text, '',
            said.text, 'OK', '', said.finish, said.tokens, False, list(choices),
            -1 if said.choice is None else said.choice,
            [round(p, 6) for p in said.probabilities], expected, right, evidence,
            measured={'time_to_first_token': said.ttft_s, 'latency': said.latency_s})
        self.journal.write(answer)
        return answer

    def watch(self, stamp: int) -> None:
        """Ask what is watched, and write a change."""
        answer = self.ask(WATCH, stamp, 'light', None, tuple(CHOICES), True)
        if self.detector(answer.probabilities) is None:
            return
        previous, self.light = self.light, answer.choice
        self.journal.write(records.Event(
            stamp, 'light', previous, self.light, CHOICES[previous] if previous >= 0 else '',
            CHOICES[self.light], answer.probabilities[self.light]))

    def keep(self, camera: str, stamp: int) -> None:
        """Put a frame's thumbnail beside the records, once."""
        if (camera, stamp) in self.kept:
            return
        self.kept.add((camera, stamp))
        data = io.BytesIO()
        Image.fromarray(self.images[camera, stamp]).save(
            data, 'jpeg', quality=80)
        self.album.writestr(f'{camera or "_"}/{stamp}.jpg', data.getvalue())


def resident() -> int:
    """Return the process's resident set [B]."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096
