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
Cases of attention to un-rotated keys, and a process of its own that runs its kernel on them.

    python test/engine/kernel.py run FILE          # by Triton's interpreter, if there is no GPU
    python test/engine/kernel.py stream FILE       # so too, in a session
    python test/engine/kernel.py compile FILE      # for GPUs that need not be there

Triton decides as it is imported whether it interprets or compiles, so neither can be done in the
process of the tests.
"""

from __future__ import annotations

from functools import partial
import math
import os
from pathlib import Path
import sys
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

HEADS = 2
PROCESSORS = 16     # of the GPUs that are not there
ROOMY = 1.3         # a buffer's slots over the tokens that it holds


class Case(NamedTuple):
    """What is drawn; `own`: each KV head has its own positions; `asked`: window and evidence."""

    kind: str
    groups: int
    size: int
    turned: int
    held: int
    queries: int
    dtype: torch.dtype = torch.float32
    spans: int = 1
    own: bool = False
    asked: bool = True

    def __str__(self) -> str:
        """Say what differs."""
        return '-'.join(map(str, self)).replace('torch.', '')

    @property
    def scaling(self) -> float:
        """Scale logits as most models do."""
        return self.size ** -0.5

    @property
    def rows(self) -> torch.Tensor | None:
        """Ask every other query, the last among them."""
        return torch.arange(self.queries - 1, -1, -2) if self.asked else None

    def sums(self) -> tuple[torch.Tensor | None, ...]:
        """Make room for a window and an evidence."""
        shape = 2, HEADS, self.groups, self.held
        return torch.zeros(shape).unbind(0) if self.asked else (None, None)

    def draw(self) -> tuple[torch.Tensor, ...]:
        """Draw query, master, value, cos and sin: views of buffers, as a cache and a model do."""
        rng = torch.Generator().manual_seed(0)
        query = torch.randn(1, self.queries, HEADS * self.groups, self.size, generator=rng)
        master, value = torch.randn(
            2, 1, HEADS, int(ROOMY * self.held), self.size, generator=rng)[:, :, :, :self.held]
        places = torch.arange(self.held)
        if self.own:
            places = torch.stack([places, 3 * places + 2])
        pairs = torch.arange(self.turned // 2) * 2 / max(1, self.turned)
        angles = places.view(-1, self.held, 1) * 1e4 ** -pairs
        both = (angles.repeat_interleave(2, -1) if self.kind == 'interleaved'
                else torch.cat([angles, angles], -1))
        return tuple(part.to(self.dtype) for part in (
            query.transpose(1, 2), master, value, both.cos(), both.sin()))


HALF, WHOLE = torch.float16, torch.bfloat16
CASES = (
    Case('half', 1, 64, 64, 200, 1, spans=3),
    Case('half', 7, 128, 128, 150, 5),
    Case('half', 2, 64, 32, 150, 5, spans=2, asked=False),
    Case('half', 1, 80, 32, 97, 33, spans=2),
    Case('interleaved', 1, 32, 32, 70, 5, own=True),
    Case('none', 2, 16, 0, 90, 5, spans=2),
    Case('interleaved', 7, 64, 16, 200, 1, WHOLE, spans=4),
    Case('half', 2, 32, 32, 33, 33, WHOLE, spans=2),
    Case('half', 1, 96, 96, 130, 5, WHOLE, spans=2, own=True),
    Case('half', 7, 128, 128, 150, 1, HALF, spans=2),
)


def run() -> list[tuple[torch.Tensor | None, ...]]:
    """Attend in every case: output, window and evidence."""
    from infmllm_ros.engine.fused_kernel import attend_fused
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    found = []
    for case in CASES:
        rows, *sums = (part if part is None else part.to(device)
                       for part in (case.rows, *case.sums()))
        out = attend_fused(*(part.to(device) for part in case.draw()), case.scaling, case.kind,
                           rows, *sums, spans=case.spans)
        found.append(tuple(part if part is None else part.cpu() for part in (out, *sums)))
    return found


def absent() -> None:
    """Say how large a GPU is that is not there."""
    torch.cuda.get_device_properties = lambda device: SimpleNamespace(
        multi_processor_count=PROCESSORS)


def stream(folder: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Live in `lean` and in `fused`; pairs of what is held, and of logits."""
    from infmllm_ros.engine import fused, store
    from zoo import session, settle, words
    settle(folder)
    if not torch.cuda.is_available():
        absent()
    for module in (fused, store):
        module.can_fuse = lambda *tensors: True
    found = []
    for layout in ('lean', 'fused'):
        target = session('llama', 'saddle', 96, layout=layout)
        for number in range(2):
            target.tell(words(target.model, 60, number))
            target.answer('Where is it?', max_tokens=2)
        found.append((target.cache.kept(0), target.logits(words(target.model, 5, 1))))
    assert target.stats().evictions
    return list(zip(*found, strict=True))


def interpret() -> None:
    """Have the interpreter multiply bfloat16, whose bits it else multiplies as whole numbers."""
    from triton import language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle
    multiply = InterpreterBuilder.create_dot

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype('uint32') << 16
        return TensorHandle(bits.view('float32'), tl.float32)

    InterpreterBuilder.create_dot = lambda self, left, right, *rest: multiply(
        self, widened(left), widened(right), *rest)


def compiled() -> list[tuple[int, str, int, int]]:
    """Compile for GPUs of two kinds: capability, case, bytes that it shares, and programs."""
    from infmllm_ros.engine.fused_kernel import attend_fused
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Absent:
        """A GPU that is not there."""

        def __init__(self, capability: int) -> None:
            self.capability = capability

        def get_current_target(self) -> GPUTarget:
            return GPUTarget('cuda', self.capability, 32)

        def get_current_device(self) -> int:
            return self.capability

        def get_current_stream(self, device: int) -> int:
            return 0

    launch, made = JITFunction.run, []
    JITFunction.run = lambda self, *args, grid, warmup, **how: made.append(     # compile, no more
        (launch(self, *args, grid=grid, warmup=True, **how), grid))
    absent()
    found = []
    for capability, case in (
            (86, Case('half', 7, 128, 128, 500, 196, WHOLE)),
            (86, Case('interleaved', 4, 256, 64, 500, 196, WHOLE)),
            (90, Case('half', 7, 64, 64, 8000, 1, WHOLE))):
        driver.set_active(Absent(capability))
        attend_fused(*case.draw(), case.scaling, case.kind, case.rows, *case.sums())
        found.append((capability, str(case), max(kernel.metadata.shared for kernel, _ in made),
                      math.prod(made[0][1])))
        made.clear()
    return found


if __name__ == '__main__':
    what, file = sys.argv[1:]
    if what != 'compile' and not torch.cuda.is_available():
        os.environ['TRITON_INTERPRET'] = '1'
        interpret()
    do = {'run': run, 'stream': partial(stream, Path(file).parent), 'compile': compiled}[what]
    torch.save(do(), file)
