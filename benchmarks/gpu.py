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
What does not fit is tried with half the budget. Last, when all this is written, comes attention of
all layers to as many keys that are stored un-rotated, by torch and by the kernel
(`engine/fused_kernel.py`): how far that is from torch, or why it failed.

    python -m benchmarks.gpu [--shape LLaVA-OneVision-7B Qwen3-VL-2B] [--budget 4096 6144]
    [--frames 10000] [--minutes 7.5]        # all that the minutes allow of the frames
    python -m benchmarks.gpu --layout fused     # with that kernel in the stream itself, no graphs
    python -m benchmarks.gpu --no-graphs        # should they end the process
    python -m benchmarks.gpu --device cpu --tiny --out /tmp     # whether it works, in seconds
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    def __init__(self, model: StreamingModel, policy: str, budget: int, layout: str,
                 graphs: bool) -> None:
        self.session = StreamingSession(
            model, make_policy(policy, budget), max_question=64, max_answer=64, chunk=2048,
            layout=layout, graphs=graphs)
        self.images = [picture(number) for number in range(BACKLOG)]

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
        """Time a call [s], after those in which graphs are recorded."""
        return middle(call, self.session.model.device, rounds,
                      SIGHTINGS + 1 if self.session.graphs else 1)


def middle(call: Callable[[], object], device: torch.device, rounds: int = ROUNDS, warm: int = 1,
           ) -> float:
    """Time a call: the median of the seconds, after some that do not count."""
    for _ in range(warm):
        call()
    return median(timed(call, device).wall for _ in range(rounds))


@contextmanager
def launched(robot: Robot) -> Iterator[None]:
    """Have Python launch every kernel, although there are graphs."""
    graphs, robot.session.graphs = robot.session.graphs, None
    try:
        yield
    finally:
        robot.session.graphs = graphs


def times(robot: Robot) -> dict[str, float]:
    """Time what a robot does, at a full memory [ms]."""
    first = robot.median(robot.ask)
    found = {'frame': robot.median(robot.see), 'first token': first,
             'token': (robot.median(lambda: robot.ask(TOKENS)) - first) / TOKENS}
    return {name: 1e3 * value for name, value in found.items()}


def recorded(robot: Robot) -> dict[str, str]:
    """Say of each kind of work how many shapes of it were recorded, and why others were not."""
    graphs = robot.session.graphs
    return {} if graphs is None else {
        name: f'{len(album.recordings)} shapes recorded' + ''.join(
            f', one refused ({reason})' for reason in album.refused.values())
        for name, album in (('passes', graphs.passes), ('looks', graphs.looks))}


def rotating(text: Any, dtype: torch.dtype, device: torch.device, queries: int, held: int,
             ) -> tuple[dict[str, float], str]:
    """Time all layers' attention to un-rotated keys by torch and the kernel; say how that went."""
    spec = next(spec for spec in layer_specs(text) if spec.full)
    options = {'dtype': dtype, 'device': device}
    query = torch.randn(1, text.num_attention_heads, queries, spec.size, **options)
    layers = torch.randn(
        text.num_hidden_layers, 2, 1, spec.heads, held + queries, spec.size, **options)
    angles = torch.arange(held, device=device)[:, None] / 1e4 ** torch.linspace(
        0, 1, spec.size // 2, device=device)
    turn = [part(angles).repeat(1, 2)[None].to(query.dtype) for part in (torch.cos, torch.sin)]

    def all_layers(attend: Callable[..., torch.Tensor]) -> torch.Tensor:
        return [attend(query, *layer[:, :, :, :held].unbind(0), *turn, spec.size ** -.5, 'half')
                for layer in layers][-1]

    def spent(attend: Callable[..., torch.Tensor]) -> float:
        return 1e3 * middle(lambda: all_layers(attend), device)

    found = {'torch': spent(attend_by_torch)}
    if not can_fuse(query, layers, layers):
        return found, 'not run: it needs a GPU and Triton'
    try:
        off = (all_layers(attend_rotating) - all_layers(attend_by_torch)).abs().max().item()
        found['fused'] = spent(attend_rotating)
    except Exception as error:  # noqa: B902 whatever a compiler may raise
        reason = str(error).strip().partition('\n')[0]
        return found, f'failed: {type(error).__name__}: {reason}'
    return found, f'off from torch by {off:.1e} at most'


def measure(model: StreamingModel, policy: str, budget: int, layout: str, graphs: bool,
            frames: int, end_by: float, rate: dict[str, float]) -> dict[str, Any]:
    """Fill a memory, and time what a robot does with it until `end_by`."""
    memory = Memory(model.device)
    before = memory.reset()
    robot = Robot(model, policy, budget, layout, graphs)
    while robot.session.stats().evictions < 2:
        robot.see()
    found, recording = times(robot), robot.session.graphs is not None
    backlog = robot.median(robot.see_many, 3) / BACKLOG
    with launched(robot):
        plain = {f'{name}, without graphs': value
                 for name, value in (times(robot).items() if recording else ())}
        with sections() as seen:
            robot.see()
        with sections() as asked:
            robot.ask()
    held, size, said = robot.session.stats().tokens, model.adapter.frame_tokens, len(question())
    least = {
        name: sum(floors(model, counted, rate, queries, held + queries, evicts).values())
        for name, counted, queries, evicts in (
            ('frame', seen, size, True), ('first token', asked, said, False),
            ('token', asked, 1, False))}
    least |= {name: least[name.partition(',')[0]] for name in plain}
    windows: list[float] = []
    while len(windows) * WINDOW < frames and (len(windows) < 3 or perf_counter() < end_by):
        windows.append(1e3 * median(timed(robot.see, model.device).wall for _ in range(WINDOW)))
    found = {**found, 'frame': median(windows), 'frame of a backlog': 1e3 * backlog, **plain}
    return {
        'budget': budget, 'held': held, 'frame_tokens': size,
        'ms': {name: round(value, 3) for name, value in found.items()},
        'graphs': recorded(robot), 'kernel': {},
        'floor_ms': {name: round(value, 3) for name, value in least.items()},
        'attention_floor_ms': {
            name: floors(model, asked, rate, queries, held + queries, False)[ATTENTION]
            for name, queries in (('token', 1), ('frame', size))},
        'memory_over_weights_mib': round((memory.peak() - before) / 2 ** 20, 1),
        'frames': len(windows) * WINDOW, 'late_over_early': round(windows[-1] / windows[1], 4)}


def add_kernel(row: dict[str, Any], *place: Any) -> None:
    """Add to a row what attention to un-rotated keys takes; `place` as of :func:`rotating`."""
    for name, queries in (('token', 1), ('frame', row['frame_tokens'])):
        spent, row['kernel'][name] = rotating(*place, queries, row['held'] + queries)
        for how, value in spent.items():
            what = f'un-rotated keys, {name}, {how}'
            row['ms'][what] = round(value, 3)
            row['floor_ms'][what] = row['attention_floor_ms'][name]


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


def show(row: dict[str, Any], policy: str, layout: str) -> None:
    """Print a row."""
    graphs = '; '.join(f'{name}: {how}' for name, how in row['graphs'].items())
    print(f'\n{row["shape"]}, {policy}, {layout}, budget {row["budget"]}, '
          f'{row["frame_tokens"]} tokens a frame, '
          f'{row["memory_over_weights_mib"]:.0f} MiB over the weights\n'
          f'{"":32} {"ms":>9} {"a second":>9} {"floor ms":>9}')
    lines(row, '')
    print(f'the last {WINDOW} of {row["frames"]} frames over the second: '
          f'{row["late_over_early"]:.3f}; graphs: {graphs or "none"}', flush=True)


def lines(row: dict[str, Any], start: str) -> None:
    """Print the times whose names start so, with their floors."""
    for name, value in row['ms'].items():
        if name.startswith(start):
            least = row['floor_ms'].get(name)
            print(f'{name:32} {value:9.2f} {1e3 / value:9.1f} '
                  f'{f"{least:.2f}" if least else "":>9}', flush=True)


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
    options.add_argument('--no-graphs', action='store_false', dest='graphs')
    options.add_argument('--tiny', action='store_true', help='a tiny shape, budget and stream')
    args = options.parse_args()
    if args.tiny:
        args.shape, args.budget, args.frames = ['tiny'], [SMALLEST], 3 * WINDOW
    start, rows, places = perf_counter(), [], {}

    def keep() -> None:
        write('speed_gpu', {'machine': machine(args.device), 'policy': args.policy,
                            'layout': args.layout, 'rows': rows}, args.out)

    runs = [(shape, budget) for shape in args.shape for budget in args.budget]
    for number, (shape, budget) in enumerate(runs, 1):
        model = random_model(shape, args.device, getattr(torch, args.dtype))
        places[shape] = model.config.get_text_config(decoder=True), model.dtype, model.device
        rate = rates(model.dtype, 2048, model.device)
        end_by = start + 60 * args.minutes * number / len(runs)
        rows.append({'shape': shape, **halving(
            model, args.policy, budget, args.layout, args.graphs, args.frames, end_by, rate)})
        keep()
        show(rows[-1], args.policy, args.layout)
        if number < len(runs) and runs[number][0] != shape:
            del model
            random_model.cache_clear()
            gc.collect()
    # a kernel that breaks what the process has of the GPU takes no other number with it
    for row in rows:
        add_kernel(row, *places[row['shape']])
        print(f'\n{row["shape"]}, {row["budget"]}, the kernel: '
              + '; '.join(f'{name} {how}' for name, how in row['kernel'].items()))
        lines(row, 'un-rotated')
        keep()


if __name__ == '__main__':
    main()
