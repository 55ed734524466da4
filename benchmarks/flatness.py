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
Show that a frame costs the same however long the robot has been watching.

Streams frames through a tiny random model and prints one table: median, p95 of the time per frame
and the resident memory, in windows over the stream. The first and last window beside each other
are the answer.

    python benchmarks/flatness.py [--frames 20000] [--family smolvlm] [--policy saddle] [--budget
    256]
"""

from __future__ import annotations

import argparse
import gc
import platform
import resource
import tempfile
from time import perf_counter

from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.engine import load_model, make_policy, POLICIES, StreamingSession
import numpy as np
import torch
import transformers

PAGE = resource.getpagesize()


def resident() -> float:
    """Measure this process's resident memory, in MiB."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * PAGE / 2 ** 20


def main() -> None:
    """Stream, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=int, default=20000)
    parser.add_argument('--family', default='smolvlm')
    parser.add_argument('--policy', default='saddle', choices=POLICIES)
    parser.add_argument('--budget', type=int, default=256)
    parser.add_argument('--window', type=int, default=1000, help='frames per measured window')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--model', help='a checkpoint instead of a tiny random model')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.frames < 3 * args.window:
        parser.error(f'--frames is {args.frames}, must be at least 3 windows of {args.window}')

    with tempfile.TemporaryDirectory() as folder:
        model = load_model(args.model or make_tiny(args.family, folder))
    session = StreamingSession(
        model, make_policy(args.policy, args.budget), max_question=32, max_answer=16)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (64, 48, 64, 3), dtype=np.uint8)
    times = np.zeros(args.frames)
    memory = {}
    gc.collect()
    for number in range(args.frames):
        start = perf_counter()
        session.observe(images[number % len(images)], stamp_ns=number * 10 ** 8)
        times[number] = perf_counter() - start
        if (number + 1) % args.window == 0:
            memory[number + 1] = resident()
    stats = session.stats()

    print(f'{platform.processor() or platform.machine()}, {args.threads} thread(s), '
          f'torch {torch.__version__}, transformers {transformers.__version__}')
    print(f'{model.spec.name} ({args.family}), policy {args.policy}, budget {stats.budget}, '
          f'{stats.frames_seen} frames, {stats.tokens_seen} tokens seen, {stats.tokens} held, '
          f'{stats.evictions} evictions, KV buffers {stats.kv_bytes / 2 ** 20:.2f} MiB\n')
    print(f'{"frames":>16} {"median ms":>10} {"p95 ms":>8} {"resident MiB":>13}')
    for end in memory:
        if end in (args.window, 2 * args.window) or end * 5 % args.frames == 0:
            part = times[end - args.window:end] * 1e3
            print(f'{end - args.window:>7}..{end:<7} {np.median(part):>10.3f} '
                  f'{np.percentile(part, 95):>8.3f} {memory[end]:>13.2f}')
    early = np.median(times[args.window:2 * args.window])
    late = np.median(times[-args.window:])
    last = max(memory)
    print(f'\nmedian of the last {args.window} over frames {args.window}..{2 * args.window}: '
          f'{late / early:.4f}')
    print(f'resident memory growth from frame {args.window} to {last}: '
          f'{memory[last] - memory[args.window]:.2f} MiB')


if __name__ == '__main__':
    main()
