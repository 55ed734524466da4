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

"""From a plan to the node's messages, and from those to records; each question ends once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from infmllm_msgs.msg import Answer, CacheStats, Query, WatchEvent
from infmllm_ros.node.convert import nanoseconds
from infmllm_ros.node.questions import Status
from infmllm_ros.replay import records
from infmllm_ros.replay.plan import Entry, Turn

LOST = 'LOST'  # status of a question whose answer did not come
DIGITS = 6  # of probabilities and weights
_MEMORY = {None: Query.MEMORY_DEFAULT, True: Query.MEMORY_KEEP, False: Query.MEMORY_ROLLBACK}


def query(entry: Entry, id: str) -> Query:  # noqa: A002
    """Make the message that asks a question of a plan."""
    return Query(
        id=id, question=entry.question, choices=list(entry.choices), schema=entry.schema,
        max_tokens=entry.max_tokens, deadline=entry.deadline, camera=entry.camera,
        memory=_MEMORY[entry.remember])


def stats_record(message: CacheStats) -> records.Stats:
    """Convert the state of the memory, as the node published it."""
    same = {name: getattr(message, name) for name in (
        'tokens', 'budget', 'tokens_seen', 'tokens_evicted', 'frames_seen', 'frames_retained',
        'kv_bytes')}
    measured = {name: getattr(message, name) for name in (
        'vision_ms', 'prefill_ms', 'evict_ms', 'process_bytes', 'frames_dropped',
        'frame_age_ms')}
    return records.Stats(nanoseconds(message.header.stamp), **same, measured=measured)


def event_record(message: WatchEvent) -> records.Event:
    """Convert a change that a watch has seen."""
    return records.Event(
        nanoseconds(message.header.stamp), message.name, message.previous, message.choice,
        message.previous_text, message.text, round(message.probability, DIGITS))


def answer_record(message: Answer, asked_ns: int, **about: Any) -> records.Answer:
    """
    Convert the end of a question.

    Parameters
    ----------
    message : Answer
    asked_ns : int
        [ns] of the source, when it was asked.
    about
        Those fields that the message does not tell: id, name, watch, camera, expected, right.
    """
    same = {name: getattr(message, name) for name in (
        'question', 'context', 'text', 'message', 'finish_reason', 'tokens', 'valid', 'choice')}
    return records.Answer(
        asked_ns=asked_ns, stamp_ns=nanoseconds(message.header.stamp), **same, **about,
        status=Status(message.status).name, choices=list(message.choices),
        probabilities=[round(p, DIGITS) for p in message.probabilities],
        evidence=[[nanoseconds(e.stamp), e.camera, round(e.weight, DIGITS)]
                  for e in message.evidence],
        measured={'time_to_first_token': message.time_to_first_token,
                  'latency': message.latency})


class Ledger:
    """
    What was asked, and what came of it.

    Attributes
    ----------
    open : dict
        By the id of each question without an answer: its turn, and when it was asked [ns].
    counts : Counter
        Of the questions with a record: 'answers', 'judged' and 'right'.
    """

    def __init__(self) -> None:
        self.open: dict[str, tuple[Turn, int]] = {}
        self.counts = Counter[str]()
        self._watched = Counter[str]()

    def answer(self, message: Answer, now_ns: int, watch: bool) -> records.Answer | None:
        """Write an answer down; None if it is to a question that was not asked here."""
        if watch:
            self._watched[message.id] += 1
            return answer_record(
                message, now_ns, id=f'{message.id}#{self._watched[message.id]}', name=message.id,
                watch=True, camera=message.camera, expected=None, right=None)
        if message.id not in self.open:
            return None
        turn, asked_ns = self.open.pop(message.id)
        entry = turn.entry
        right = entry.judge(message.text if message.status == Answer.OK else '')
        self.counts.update(answers=1, judged=int(right is not None), right=int(right is True))
        return answer_record(
            message, asked_ns, id=turn.id, name=entry.name, watch=False, camera=entry.camera,
            expected=' | '.join(entry.expected) or None, right=right)

    def lose(self, key: str) -> records.Answer:
        """Write down that no answer came to a question."""
        entry = self.open[key][0].entry
        message = Answer(id=key, question=entry.question, choices=list(entry.choices), choice=-1,
                         status=Answer.FAILED, message='no answer came: see the log of the node')
        return replace(self.answer(message, 0, watch=False), status=LOST)

    def end(self, frames: dict[str, int], problem: str, seconds: float,
            source_seconds: float) -> records.End:
        """
        Sum up the run.

        Parameters
        ----------
        frames : dict of str to int
            How many of each fate.
        problem : str
            Why it ended before its source did; '' if it did not.
        seconds, source_seconds : float
            [s] That it took, and that went by in the source.
        """
        return records.End(
            frames, self.counts['answers'], self.counts['judged'], self.counts['right'], problem,
            measured={'seconds': seconds, 'frames_per_second': sum(frames.values()) / seconds,
                      'speed': source_seconds / seconds})
