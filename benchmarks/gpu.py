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
The table of a GPU, in one command of less than eight minutes: frames, questions, tokens, memory.

For each shape and budget, with random weights in bfloat16 and a full memory: frames a second
(vision tower, prefill and eviction; one by one, and as a backlog), time to the first token of a
question, tokens a second of an answer, peak memory over the weights, and the frames' times early
and late in the stream. Passes are recorded as CUDA graphs (`engine/graphs.py`) where they can be;
the same without is measured beside them, and what could not be recorded is told. Beside each
stands its floor: operations at the rate of a large matrix product, weights and memory read once at
the bandwidth of a large copy, measured in the same run.
What does not fit is tried with half the budget. Last comes attention of all layers to as many keys
that are stored un-rotated, by torch and by the kernel (`engine/fused_kernel.py`): how far that is
from torch, or why it failed.

    python -m benchmarks.gpu [--shape LLaVA-OneVision-7B Qwen3-VL-2B] [--budget 4096 6144]
    [--frames 10000] [--minutes 7.5]        # all that the minutes allow of the frames
    python -m benchmarks.gpu --layout fused     # with that kernel in the stream itself, no graphs
    python -m benchmarks.gpu --device cpu --tiny --out /tmp     # whether it works, in seconds
"""

from __future__ import annotations

from collections.abc import Callable
import gc
from statistics import median
from time import perf_counter
from typing import Any

from infmllm_ros.engine import (
    LAYOUTS,
    make_policy,
    POLICIES,
    StreamingModel,
    StreamingSession,
)
from infmllm_ros.engine.chunk import Chunk
from infmllm_ros.engine.fused import attend_by_torch, attend_rotating, can_fuse
from infmllm_ros.engine.graphs import SIGHTINGS
from infmllm_ros.engine.layers import layer_specs
from infmllm_ros.engine.policies import Role
import torch

from .first_token import question
from .profile_frame import ATTENTION, floors, rates, sections
from .shapes import picture, random_model, SHAPES
from .timing import machine, parser, timed, write

WINDOW = 100        # frames of a window of the stream
BACKLOG = 8         # frames that are observed at once
TOKENS = 32         # of an answer
ROUNDS = 7
SMALLEST = 256      # [tokens] budget below which halving stops


class Memory:
    """Bytes that a GPU has given out at most since the last look; 0 where there is none."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> int:
        """Begin anew; give the bytes that are in use now."""
        if self.device.type != 'cuda':
            return 0
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def peak(self) -> int:
        """Give the most bytes since."""
        return (torch.cuda.max_memory_allocated(self.device)
                if self.device.type == 'cuda' else 0)


class Robot:
    """A session of one shape, policy, budget and layout, and what is timed of it."""

    def __init__(self, model: StreamingModel, policy: str, budget: int, layout: str = 'fast',
                 ) -> None:
        self.session = StreamingSession(
            model, make_policy(policy, budget), max_question=64, max_answer=64, chunk=2048,
            layout=layout, graphs=True)
        self.images = [picture(number) for number in range(BACKLOG)]
        self.device = model.device

    def see(self) -> None:
        """Observe a frame."""
        number = self.session.frames_seen
        self.session.observe(self.images[number % BACKLOG], number * 10 ** 9)

    def see_many(self) -> None:
        """Observe a backlog."""
        first = self.session.frames_seen
        self.session.observe_many(
            self.images, [number * 10 ** 9 for number in range(first, first + BACKLOG)])

    def ask(self, tokens: int = 0) -> None:
        """Read a question, decode its first token and so many more, and forget them."""
        session, mark = self.session, self.session.cache.mark()
        chunk, role = Chunk(question()), Role.QUESTION
        for _ in range(1 + tokens):
            logits = session.feed(chunk, role, logits=1, evidence=True)
            chunk, role = Chunk(logits[-1:].argmax(-1).cpu()), Role.ANSWER
        session.cache.rollback(mark)

    def median(self, call: Callable[[], object], rounds: int = ROUNDS) -> float:
        """Time a call: the median of the seconds, after those in which graphs are recorded."""
        for _ in range(SIGHTINGS + 1 if self.session.graphs else 1):
            call()
        return median(timed(call, self.device).wall for _ in range(rounds))


def launched(robot: Robot) -> dict[str, float]:
    """Time what a robot does without graphs [ms], if it has some."""
    graphs = robot.session.graphs
    if graphs is None:
        return {}
    robot.session.graphs = None
    try:
        first = robot.median(robot.ask)
        times = {'frame': robot.median(robot.see), 'first token': first,
                 'token': (robot.median(lambda: robot.ask(TOKENS)) - first) / TOKENS}
    finally:
        robot.session.graphs = graphs
    return {f'{name}, without graphs': 1e3 * value for name, value in times.items()}


def recorded(robot: Robot) -> dict[str, str]:
    """Say of each kind of work how many shapes of it were recorded, and why others were not."""
    graphs = robot.session.graphs
    return {} if graphs is None else {
        name: f'{len(album.recordings)} shapes recorded' + ''.join(
            f', one refused ({reason})' for reason in album.refused.values())
        for name, album in (('passes', graphs.passes), ('looks', graphs.looks))}


def rotating(robot: Robot, queries: int, held: int) -> tuple[dict[str, float], str]:
    """Time all layers' attention to un-rotated keys by torch and the kernel; say how that went."""
    text, device = robot.session.model.config.get_text_config(decoder=True), robot.device
    spec = next(spec for spec in layer_specs(text) if spec.full)
    options = {'dtype': robot.session.model.dtype, 'device': device}
    query = torch.randn(1, text.num_attention_heads, queries, spec.size, **options)
    layers = torch.randn(
        text.num_hidden_layers, 2, 1, spec.heads, held + queries, spec.size, **options)
    angles = torch.arange(held, device=device)[:, None] / 1e4 ** torch.linspace(
        0, 1, spec.size // 2, device=device)
    turn = [part(angles).repeat(1, 2)[None].to(query.dtype) for part in (torch.cos, torch.sin)]

    def all_layers(attend: Callable[..., torch.Tensor]) -> torch.Tensor:
        return [attend(query, *layer[:, :, :, :held].unbind(0), *turn, spec.size ** -.5, 'half')
                for layer in layers][-1]

    found = {'torch': 1e3 * robot.median(lambda: all_layers(attend_by_torch))}
    if not can_fuse(query, layers, layers):
        return found, 'not run: it needs a GPU and Triton'
    try:
        off = (all_layers(attend_rotating) - all_layers(attend_by_torch)).abs().max().item()
        found['fused'] = 1e3 * robot.median(lambda: all_layers(attend_rotating))
    except Exception as error:  # noqa: B902 whatever a compiler may raise
        reason = str(error).strip().partition('\n')[0]
        return found, f'failed: {type(error).__name__}: {reason}'
    return found, f'off from torch by {off:.1e} at most'


def measure(model: StreamingModel, policy: str, budget: int, layout: str, frames: int,
            end_by: float, rate: dict[str, float]) -> dict[str, Any]:
    """Fill a memory, and time what a robot does with it until `end_by`."""
    memory = Memory(model.device)
    before = memory.reset()
    robot = Robot(model, policy, budget, layout)
    while robot.session.stats().evictions < 2:
        robot.see()
    token = (robot.median(lambda: robot.ask(TOKENS)) - (first := robot.median(robot.ask))) / TOKENS
    backlog = robot.median(robot.see_many, 3) / BACKLOG
    plain = launched(robot)
    with sections() as counted:
        robot.see()
    held, size = robot.session.stats().tokens, model.adapter.frame_tokens
    least = {'frame': sum(floors(model, counted, rate, size, held + size, True).values())}
    with sections() as counted:
        robot.ask()
    least['first token'] = sum(
        floors(model, counted, rate, len(question()), held + len(question()), False).values())
    least['token'] = sum(floors(model, counted, rate, 1, held + 1, False).values())
    least |= {name: least[name.partition(',')[0]] for name in plain}
    windows: list[float] = []
    while len(windows) * WINDOW < frames and (len(windows) < 3 or perf_counter() < end_by):
        windows.append(1e3 * median(timed(robot.see, model.device).wall for _ in range(WINDOW)))
    peak = memory.peak() - before
    rotated, went = {}, {}
    for name, queries in (('token', 1), ('frame', size)):
        times, went[name] = rotating(robot, queries, held + queries)
        for how, value in times.items():
            what = f'un-rotated keys, {name}, {how}'
            rotated[what] = value
            least[what] = floors(model, counted, rate, queries, held + queries, False)[ATTENTION]
    return {
        'budget': budget, 'frame_tokens': size,
        'ms': {'frame': round(median(windows), 3), 'frame of a backlog': round(1e3 * backlog, 3),
               'first token': round(1e3 * first, 3), 'token': round(1e3 * token, 3),
               **{name: round(value, 3) for name, value in {**plain, **rotated}.items()}},
        'graphs': recorded(robot), 'kernel': went,
        'floor_ms': {name: round(value, 3) for name, value in least.items()},
        'memory_over_weights_mib': round(peak / 2 ** 20, 1),
        'frames': len(windows) * WINDOW, 'late_over_early': round(windows[-1] / windows[1], 4)}


def halving(model: StreamingModel, policy: str, budget: int, *rest: Any) -> dict[str, Any]:
    """Measure with the largest budget, from this one down by halves, that the GPU can hold."""
    while True:
        try:
            return measure(model, policy, budget, *rest)
        except torch.OutOfMemoryError:
            if budget // 2 < SMALLEST:
                raise
            budget //= 2
        gc.collect()
        if model.device.type == 'cuda':
            torch.cuda.empty_cache()


def main() -> None:
    """Measure, print."""
    options = parser(__doc__)
    options.add_argument('--shape', nargs='+', choices=SHAPES,
                         default=['LLaVA-OneVision-7B', 'Qwen3-VL-2B'])
    options.add_argument('--policy', default='saddle', choices=POLICIES)
    options.add_argument('--budget', type=int, nargs='+', default=[4096, 6144])
    options.add_argument('--layout', default='fast', choices=LAYOUTS)
    options.add_argument('--frames', type=int, default=10000)
    options.add_argument('--minutes', type=float, default=7.5, help='for all together')
    options.add_argument('--device', default='cuda')
    options.add_argument('--tiny', action='store_true', help='a tiny shape, budget and stream')
    args = options.parse_args()
    if args.tiny:
        args.shape, args.budget, args.frames = ['tiny'], [SMALLEST], 3 * WINDOW
    start, found = perf_counter(), []
    runs = [(shape, budget) for shape in args.shape for budget in args.budget]
    for number, (shape, budget) in enumerate(runs, 1):
        model = random_model(shape, args.device, getattr(torch, args.dtype))
        rate = rates(model.dtype, 2048, model.device)
        end_by = start + 60 * args.minutes * number / len(runs)
        row = {'shape': shape, **halving(
            model, args.policy, budget, args.layout, args.frames, end_by, rate)}
        found.append(row)
        print(f'\n{shape}, {args.policy}, {args.layout}, budget {row["budget"]}, '
              f'{row["frame_tokens"]} tokens a frame, '
              f'{row["memory_over_weights_mib"]:.0f} MiB over the weights\n'
              f'{"":32} {"ms":>9} {"a second":>9} {"floor ms":>9}')
        for name, value in row['ms'].items():
            least = row['floor_ms'].get(name)
            print(f'{name:32} {value:9.2f} {1e3 / value:9.1f} '
                  f'{f"{least:.2f}" if least else "":>9}')
        print(f'the last {WINDOW} of {row["frames"]} frames over the second: '
              f'{row["late_over_early"]:.3f}; the kernel: '
              + '; '.join(f'{name} {how}' for name, how in row['kernel'].items()) + '; graphs: '
              + ('; '.join(f'{name}: {how}' for name, how in row['graphs'].items()) or 'none'),
              flush=True)
        if number < len(runs) and runs[number][0] != shape:
            del model
            random_model.cache_clear()
            gc.collect()
    write('speed_gpu', {'machine': machine(args.device), 'policy': args.policy,
                        'layout': args.layout, 'rows': found}, args.out)


if __name__ == '__main__':
    main()
