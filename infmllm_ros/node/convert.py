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

"""From what the engine hands out to messages."""

from __future__ import annotations

from collections.abc import Sequence
import os
from typing import Any

from builtin_interfaces.msg import Time
from infmllm_msgs.msg import Answer, AnswerChunk, CacheStats, CameraStats, Evidence, Query
from infmllm_ros.node.health import Health
from infmllm_ros.node.mailbox import Frame
from infmllm_ros.node.questions import Outcome, Question
from std_msgs.msg import Header

MAX_ID = 200  # [characters] longest id of a question
_MEMORY = {Query.MEMORY_KEEP: True, Query.MEMORY_ROLLBACK: False}


def time_message(stamp_ns: int) -> Time:
    """Convert nanoseconds."""
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def nanoseconds(stamp: Any) -> int:
    """Convert a time message."""
    return stamp.sec * 10**9 + stamp.nanosec


def header(frame: Frame | None) -> Header:
    """Make the header of what was learnt from a frame; a zero one before the first."""
    if frame is None:
        return Header()
    return Header(stamp=time_message(frame.stamp_ns), frame_id=frame.frame_id)


def remember(memory: int, default: bool) -> bool | None:
    """Read a query's `memory` field; None when it is not one of the constants."""
    return default if memory == Query.MEMORY_DEFAULT else _MEMORY.get(memory)


def chunk_message(question: Question, text: str, last: bool) -> AnswerChunk:
    """Make the message of the next piece of an answer."""
    return AnswerChunk(header=header(question.seen), id=question.id[:MAX_ID],
                       index=question.pieces, text=text, last=last)


def answer_message(question: Question, outcome: Outcome, max_chars: int) -> Answer:
    """Make the message of the end of a question; a question longer than allowed is cut."""
    text = question.text
    message = Answer(
        header=header(question.seen), id=question.id[:MAX_ID],
        question=text if len(text) <= max_chars else text[:max_chars] + '...',
        context=question.context, status=int(outcome.status), message=outcome.message,
        latency=question.latency, choice=-1,
        choices=list(question.choices) if sum(map(len, question.choices)) <= max_chars else [],
        camera=question.seen.camera if question.seen else '')
    answer = outcome.answer
    if answer is not None:
        message.text = answer.text
        message.finish_reason = answer.finish
        message.tokens = answer.tokens
        message.valid = answer.valid
        message.time_to_first_token = answer.ttft_s
        message.choice = -1 if answer.choice is None else answer.choice
        message.probabilities = list(answer.probabilities)
        message.evidence = [
            Evidence(stamp=time_message(e.stamp_ns), camera=e.camera, frame=e.frame,
                     weight=e.weight) for e in answer.evidence]
    return message


def stats_message(health: Health, policy: str, age_ms: float,
                  queries: tuple[int, Sequence[int]]) -> CacheStats:
    """
    Make the statistics message.

    `age_ms` is how old the newest frame was when observed; `queries` are those that came, and
    those of them that ended, by status.
    """
    stats = health.stats
    return CacheStats(
        header=header(health.newest), policy=policy, budget=stats.budget, capacity=stats.capacity,
        tokens=stats.tokens, usage=stats.usage, tokens_seen=stats.tokens_seen,
        tokens_evicted=stats.tokens_evicted, frames_received=health.total('received'),
        frames_seen=stats.frames_seen, frames_dropped=health.total('dropped'),
        frames_skipped=stats.frames_skipped, images_bad=health.total('bad'),
        frames_failed=health.total('failed'),
        frames_retained=stats.frames_retained, evictions=stats.evictions, answers=stats.answers,
        queries_pending=health.waiting, queries_received=queries[0],
        queries_answered=queries[1],
        kv_bytes=stats.kv_bytes, process_bytes=process_bytes(), vision_ms=1e3 * stats.vision_s,
        prefill_ms=1e3 * stats.prefill_s, evict_ms=1e3 * stats.evict_s,
        decode_ms=1e3 * stats.decode_s, frame_age_ms=age_ms if health.newest else 0.0,
        cameras=[CameraStats(
            name=c.name, header=header(c.newest), frames_received=c.received, frames_seen=c.seen,
            frames_skipped=c.skipped, frames_dropped=c.dropped, frames_similar=c.similar,
            images_bad=c.bad, frames_failed=c.failed, frames_pending=c.waiting)
            for c in health.cameras])


def process_bytes() -> int:
    """Tell the resident memory of this process in bytes; 0 where the system does not say."""
    try:
        with open('/proc/self/statm') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except OSError:
        return 0
