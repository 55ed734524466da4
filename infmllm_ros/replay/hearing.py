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

"""From the node's messages to the records of a replay."""

from __future__ import annotations

from typing import Any

from infmllm_msgs.msg import Answer, CacheStats, WatchEvent
from infmllm_ros.node.convert import nanoseconds
from infmllm_ros.node.questions import Status
from infmllm_ros.replay import records

LOST = 'LOST'  # status of a question whose answer did not come
DIGITS = 6  # of probabilities and weights


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
