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
What a frame costs under each policy once the memory is full, beside H2O as it was published.

All take turns on the same frame, which the vision tower has seen beforehand: a row is what the
language model and the memory take. Policies of a window hold what fits it. The policy `full`,
which never evicts, holds as much when the turns begin, and a frame more after each.

    python -m benchmarks.frame_cost [--shape LLaVA-OneVision-0.5B] [--budget 4096] [--rounds 9]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import ctypes
from functools import partial
from typing import Any

from infmllm_ros.engine import make_policy, POLICIES, StreamingModel, StreamingSession
import torch

from .published_h2o import PublishedH2O
from .shapes import picture, random_model, Seen, SHAPES
from .timing import by_turns, milliseconds, parser, write_shape

WARM = 2
FRAME = picture()
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4   # of glibc's malloc.h


def keep_memory() -> None:
    """
    Have malloc keep what is freed, where it is glibc's.

    The attention matrices of H2O as published are mapped anew in each layer otherwise, and the
    page faults take from next to nothing to as long as all the rest, as the machine's memory is.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def filled(model: StreamingModel, policy: str, budget: int, more: int, seen: Seen,
           ) -> StreamingSession:
    """Make a session that has seen `budget` tokens; one that never evicts has room for `more`."""
    room = budget + more * len(seen.chunk) if POLICIES[policy].refuses else budget
    chosen = make_policy(policy, room)
    chosen.duplicate = 0.0      # the same frame again is to cost what another would
    session = StreamingSession(model, chosen, max_question=64, max_answer=16)
    session.adapter = seen
    while session.stats().tokens_seen + len(seen.chunk) <= budget:
        see(session)
    return session


def see(session: StreamingSession) -> None:
    """Observe the frame, a second after the one before."""
    session.observe(FRAME, session.frames_seen * 10 ** 9)


def measure(model: StreamingModel, plain: StreamingModel, policies: Sequence[str], budget: int,
            rounds: int) -> dict[str, Any]:
    """
    Time a frame under every policy, and as H2O was published, by turns.

    The latter runs on `plain`, with weights as Hugging Face loads them.
    """
    seen = Seen(model, FRAME)
    published = PublishedH2O(plain, budget // 2, budget - budget // 2)
    while published.cache.get_seq_length() < budget:
        published.observe(seen.chunk)
    calls: dict[str, Callable[[], object]] = {
        'h2o as published': partial(published.observe, seen.chunk)}
    sessions = {name: filled(model, name, budget, WARM + rounds, seen) for name in policies}
    calls |= {name: partial(see, session) for name, session in sessions.items()}
    times = by_turns(calls, rounds, WARM, model.device)
    vision = by_turns({'vision': partial(
        model.adapter.encode, model.model, FRAME, 0.0)}, 3, 1, model.device)['vision']
    return {
        'tokens': len(seen.chunk), 'budget': budget, 'rounds': rounds,
        'dtype': str(model.dtype).removeprefix('torch.'), 'vision': milliseconds(vision),
        'held': {name: session.stats().tokens for name, session in sessions.items()},
        'policies': {name: milliseconds(spent) for name, spent in times.items()}}


def main() -> None:
    """Measure, print."""
    options = parser(__doc__)
    options.add_argument('--shape', nargs='+', choices=SHAPES,
                         default=['LLaVA-OneVision-0.5B', 'SmolVLM-256M'])
    options.add_argument('--policy', nargs='+', choices=POLICIES, default=list(POLICIES))
    options.add_argument('--budget', type=int, default=4096)
    options.add_argument('--rounds', type=int, default=9)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()
    for shape in args.shape:
        model, plain = (random_model(shape, dtype=getattr(torch, args.dtype), packed=packed)
                        for packed in (True, False))
        one = measure(model, plain, args.policy, args.budget, args.rounds)
        write_shape('speed_frame_cost', shape, one, args.out)
        base = one['policies'].get('streaming_llm')
        print(f'\n{shape}, {args.dtype}, {one["tokens"]} tokens a frame, {args.budget} held; '
              f'vision {one["vision"]["wall_ms"]:.0f} ms\n'
              f'{"":18} {"wall ms":>9} {"processor ms":>13} {"of streaming_llm":>17}')
        for name, line in one['policies'].items():
            ratio = f'{line["processor_ms"] / base["processor_ms"]:.3f}' if base else ''
            print(f'{name:18} {line["wall_ms"]:9.1f} {line["processor_ms"]:13.1f} {ratio:>17}',
                  flush=True)


if __name__ == '__main__':
    main()
