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

"""What a session hands out: answers with their evidence, and statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import StreamingSession


@dataclass(frozen=True)
class Frame:
    """A camera frame that the memory has seen: its ordinal, stamp [ns] and camera."""

    ordinal: int
    stamp_ns: int
    camera: str


@dataclass(frozen=True)
class Evidence:
    """A retained frame that an answer attended to; `weight` is its share of the attention."""

    frame: int
    stamp_ns: int
    camera: str
    weight: float


@dataclass(frozen=True)
class Answer:
    """
    The answer to one question.

    Parameters
    ----------
    text : str
    finish : str
        'stop' (the model ended its turn), 'length' (max_tokens reached), 'cancelled', 'deadline'
        (cut short) or 'choice'.
    tokens : int
        Tokens generated, or tokens of the choice.
    ttft_s, latency_s : float
        Seconds from the question to its first token, and to its end.
    stamp_ns : int or None
        Stamp of the newest frame that the answer saw; None if there was none.
    camera : str
        Camera of that frame.
    choice : int or None
        Index of the best choice, where choices were given.
    probabilities : tuple of float
        Of each choice; they sum to 1.
    evidence : tuple of Evidence
        The retained frames that the answer's tokens attended to most, best first; the attention of
        the queries that predicted the answer's tokens, averaged over them, the heads, and the
        full-attention layers.
    token_ids : tuple of int
        Those of the text, the end of the turn not among them.
    problem : str or None
        Why the text does not fit the schema, '' if it does; None if there was no schema.
    """

    text: str
    finish: str
    tokens: int
    ttft_s: float
    latency_s: float
    stamp_ns: int | None
    camera: str
    choice: int | None = None
    probabilities: tuple[float, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    token_ids: tuple[int, ...] = ()
    problem: str | None = None

    @property
    def valid(self) -> bool:
        """Whether the text is JSON that fits the schema; False if there was none."""
        return self.problem == ''


@dataclass(frozen=True)
class Stats:
    """
    State of a session's memory.

    Parameters
    ----------
    budget, capacity : int
        Tokens that may stay per layer, and slots allocated per layer.
    tokens : int
        Tokens held now, in the fullest layer that the policy bounds.
    tokens_seen, tokens_evicted : int
        Since the start or the last reset.
    frames_seen, frames_skipped, frames_retained : int
        Frames taken in; frames that were not, as duplicates; frames of which at least one token is
        held in some layer.
    evictions, answers : int
    kv_bytes : int
        Bytes of all buffers of the cache, sliding windows and states included; constant.
    vision_s, prefill_s, evict_s, decode_s : float
        Seconds of the last frame's encoding and prefill (the mean over its pass, if it came with
        others), the last eviction, and the last answer's mean per generated token.
    """

    budget: int
    capacity: int
    tokens: int
    tokens_seen: int
    tokens_evicted: int
    frames_seen: int
    frames_skipped: int
    frames_retained: int
    evictions: int
    answers: int
    kv_bytes: int
    vision_s: float
    prefill_s: float
    evict_s: float
    decode_s: float

    @classmethod
    def of(cls, session: StreamingSession) -> Stats:
        """Count what a session's memory holds."""
        cache, plan = session.cache, session.plan
        return cls(
            budget=plan.budget, capacity=plan.capacity, tokens=cache.count,
            tokens_seen=cache.seen, tokens_evicted=cache.evicted, frames_seen=session.frames_seen,
            frames_skipped=session.frames_skipped, frames_retained=len(cache.frames()),
            evictions=session.evictions, answers=session.answers, kv_bytes=cache.nbytes(),
            **session.timings)

    @property
    def usage(self) -> float:
        """Share of the budget in use, 0 to 1."""
        return self.tokens / self.budget
