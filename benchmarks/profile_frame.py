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
Where the time of a frame, and of a token of an answer, goes; and what each part takes at least.

The engine's functions are timed one inside the other, each without those that it calls. The floor
of a part is what the machine allows: its operations at the rate of a large matrix product, or its
bytes at the bandwidth of a large copy, both measured in the same run. The time outside of torch's
operators, as its profiler counts them, is Python's.

    python -m benchmarks.profile_frame [--shape LLaVA-OneVision-0.5B] [--budget 4096]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, ExitStack
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

from infmllm_ros.engine import (
    attention,
    cache,
    make_policy,
    POLICIES,
    retention,
    store,
    StreamingModel,
    StreamingSession,
)
from infmllm_ros.engine.chunk import Chunk
from infmllm_ros.engine.layers import layer_specs
from infmllm_ros.engine.models.base import Adapter
from infmllm_ros.engine.models.packed import PackedLinear
from infmllm_ros.engine.policies import Role
from infmllm_ros.engine.policies.base import Policy
from infmllm_ros.engine.positions import Slots
import torch
from torch import nn
from torch.nn import functional

from .shapes import picture, random_model, Seen, SHAPES
from .timing import parser, timed, write_shape

VISION, LINEAR, ATTENTION = 'vision tower', 'projections and MLP', 'attention'
SCORING, ROTATION, COMPACTION = 'scoring', 'rotation', 'compaction'
REST = 'norms, activations, Python'
# part -> what is timed as it
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    VISION: ((Adapter, 'see'),),
    LINEAR: ((nn.Linear, 'forward'), (PackedLinear, 'forward')),
    ATTENTION: ((attention.Pass, 'attend'),),
    SCORING: ((attention.Pass, '_collect_window'), (Slots, 'add_window'), (Slots, 'add_evidence'),
              (retention, 'score'), (Policy, 'select_all')),
    ROTATION: ((store, 'rotate'),),
    'insertion': ((store.KVLayer, 'update'),),
    COMPACTION: ((cache.StreamCache, 'compact'),),
}
TURNS = 5


class Sections:
    """
    Times functions inside each other, each without those that it calls.

    Attributes
    ----------
    seconds : dict of str to float
    products : dict of str to int
        Multiplications and additions of linear layers, in the vision tower and outside it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.products: dict[str, int] = defaultdict(int)
        self._inside: list[float] = []
        self._looking = False

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Time a function as `name`; the vision tower as a whole."""
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == LINEAR:
                layer, given = args
                self.products[VISION if self._looking else LINEAR] += (
                    2 * given.numel() * layer.out_features)
            if self._looking:
                return function(*args, **kwargs)
            self._looking = name == VISION
            self._inside.append(0.)
            start = perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = perf_counter() - start
                self.seconds[name] += spent - self._inside.pop()
                self._looking = False
                if self._inside:
                    self._inside[-1] += spent
        return call


@contextmanager
def sections() -> Iterator[Sections]:
    """Time every part of the engine."""
    found = Sections()
    with ExitStack() as stack:
        for name, places in PARTS.items():
            for owner, function in places:
                stack.enter_context(patch.object(
                    owner, function, found.wrap(name, getattr(owner, function))))
        yield found


def divide(call: Callable[[], object], turns: int) -> tuple[dict[str, float], Sections]:
    """Give the median milliseconds of each part of a call, and of all; the last turn's counts."""
    rounds: dict[str, list[float]] = defaultdict(list)
    for _ in range(turns):
        with sections() as found:
            whole = timed(call).wall
        for name in PARTS:
            rounds[name].append(found.seconds[name])
        rounds[REST].append(whole - sum(found.seconds.values()))
        rounds['whole'].append(whole)
    return {name: round(1e3 * median(values), 3) for name, values in rounds.items()}, found


def python_share(call: Callable[[], object]) -> float:
    """Tell which share of a call passes outside of torch's operators, by its profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        whole = timed(call).wall
    inside = sum(event.time_range.elapsed_us() for event in profile.events()
                 if event.cpu_parent is None)
    return round(1 - inside / (1e6 * whole), 4)


def rates(dtype: torch.dtype, rows: int, device: str | torch.device = 'cpu') -> dict[str, float]:
    """Measure what the machine can: operations a second of a product, bytes a second of a copy."""
    left = torch.randn(rows, 2048, dtype=dtype, device=device)
    right = torch.randn(4096, 2048, dtype=dtype, device=device)
    source = torch.zeros(2 ** 28, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)

    def best(call: Callable[[], object]) -> float:
        return min(timed(call, device).wall for _ in range(9))

    return {
        'operations_per_s': 2 * left.numel() * 4096 / best(lambda: functional.linear(left, right)),
        'copied_bytes_per_s': 2 * source.numel() / best(lambda: target.copy_(source)),
        'read_bytes_per_s': source.numel() / best(lambda: source.view(torch.int64).sum())}


def floors(model: StreamingModel, found: Sections, rate: dict[str, float], queries: int,
           held: int, evicts: bool) -> dict[str, float]:
    """
    Give the least milliseconds of each part that has a floor.

    Linear layers: their operations, or their weights read once. Attention: both products of every
    query with every key it sees, or keys and values read once. After an eviction, keys and values
    are read and written once, and all keys a second time to be rotated.
    """
    text = model.config.get_text_config(decoder=True)
    specs = layer_specs(text)
    half = sum(spec.heads * spec.size for spec in specs) * held * model.dtype.itemsize
    linear = [module for module in model.model.get_decoder().modules()
              if isinstance(module, nn.Linear)]
    if not evicts:
        linear.append(model.model.get_output_embeddings())
    weights = sum(module.weight.nbytes for module in linear)
    products = 4 * text.num_attention_heads * sum(spec.size for spec in specs) * queries * (
        held - queries / 2)
    operations, copied, read = rate.values()
    seconds = {
        VISION: found.products[VISION] / operations,
        LINEAR: max(found.products[LINEAR] / operations, weights / read),
        ATTENTION: max(products / operations, 2 * half / read)}
    if evicts:
        seconds |= {ROTATION: 2 * half / copied, COMPACTION: 4 * half / copied}
    return {name: round(1e3 * value, 3) for name, value in seconds.items()}


def measure(model: StreamingModel, policy: str, budget: int, turns: int) -> dict[str, Any]:
    """Divide a frame with a full memory, and a token of an answer."""
    session = StreamingSession(
        model, make_policy(policy, budget), max_question=64, max_answer=16)
    image = picture()
    seen = Seen(model, image)
    queries = len(seen.chunk)

    def frame() -> None:
        session.observe(image, session.frames_seen * 10 ** 9)

    def token() -> None:
        mark = session.cache.mark()
        logits = session.feed(Chunk(torch.tensor([1])), Role.ANSWER, logits=1, evidence=True)
        int(logits[-1].argmax())
        session.cache.rollback(mark)

    with patch.object(session, 'adapter', seen):
        while session.stats().evictions < 2:
            frame()
    rate = rates(model.dtype, queries)
    found = {}
    for name, call, count in (('frame', frame, queries), ('token', token, 1)):
        call()
        parts, counted = divide(call, turns)
        held = session.stats().tokens + count
        found[name] = {
            'parts': parts, 'python_share': median(python_share(call) for _ in range(turns)),
            'floors': floors(model, counted, rate, count, held, call is frame)}
    return {'tokens': queries, 'policy': policy, 'budget': budget, 'turns': turns,
            'dtype': str(model.dtype).removeprefix('torch.'), 'rates': rate, **found}


def main() -> None:
    """Measure, print."""
    options = parser(__doc__)
    options.add_argument('--shape', nargs='+', choices=SHAPES,
                         default=['LLaVA-OneVision-0.5B', 'SmolVLM-256M'])
    options.add_argument('--policy', default='saddle', choices=POLICIES)
    options.add_argument('--budget', type=int, default=4096)
    options.add_argument('--turns', type=int, default=TURNS)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    for shape in args.shape:
        model = random_model(shape, dtype=getattr(torch, args.dtype))
        found = measure(model, args.policy, args.budget, args.turns)
        write_shape('speed_profile', shape, found, args.out)
        rate = {name: f'{value / 1e9:.1f} G/s' for name, value in found['rates'].items()}
        print(f'\n{shape}, {args.dtype}, {found["tokens"]} tokens a frame, {args.policy}, '
              f'{args.budget} held; {rate}')
        for name in ('frame', 'token'):
            one = found[name]
            print(f'\n{name:28} {"ms":>9} {"floor ms":>9}   Python {one["python_share"]:.1%}')
            for part, value in one['parts'].items():
                floor = one['floors'].get(part)
                print(f'{part:28} {value:9.2f} {f"{floor:.2f}" if floor else "":>9}', flush=True)


if __name__ == '__main__':
    main()
