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

"""One lesson of the training: optimiser, schedule, checkpoints, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
import math
from pathlib import Path
import random
from time import monotonic
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import workers
from .lessons import Score


def reduced(device: torch.device) -> Any:
    """Multiply in bf16 where the hardware is made for it."""
    fast = device.type == 'cuda' or torch.backends.mkldnn.is_available()
    return torch.autocast(device.type, torch.bfloat16) if fast else nullcontext()


class Trainer:
    """
    One lesson: optimiser, schedule, checkpoints, progress.

    With several `workers` each takes the same steps with its rows of every batch.

    Parameters
    ----------
    name : str
    modules : dict of str to torch.nn.Module
        What is trained and saved.
    work : Path
        Where checkpoints go.
    seed : int
    steps : int
    rate : float
        Peak learning rate: 50 steps of warm-up, then cosine to a twentieth.
    device : torch.device
    memory : float
        How much of the running mean of the weights each step leaves, which then is what is checked
        and exported; 0: the weights themselves are.
    beside : dict of str to torch.Tensor, optional
        Weights to be averaged with that mean, half and half, in what is checked and exported.
    """

    def __init__(self, name: str, modules: dict[str, torch.nn.Module], work: Path, seed: int,
                 steps: int, rate: float, device: torch.device, memory: float = 0.,
                 beside: dict[str, torch.Tensor] | None = None) -> None:
        self.name, self.modules = name, torch.nn.ModuleDict(modules)
        self.beside = beside
        self.seed, self.steps = seed, steps
        self.path, self.device, self.rate, self.done = work / f'{name}.pt', device, rate, 0
        self.parameters = [p for module in modules.values() for p in module.parameters()
                           if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=rate, betas=(.9, .98),
                                           weight_decay=.01)
        self.mean = AveragedModel(
            self.modules, multi_avg_fn=get_ema_multi_avg_fn(memory),
        ) if memory else None
        self.score, self.finished = Score(), False
        if self.path.exists():
            state = torch.load(self.path, map_location=device)
            for part, module in modules.items():
                module.load_state_dict(state['modules'][part])
            self.optimiser.load_state_dict(state['optimiser'])
            self.done, self.finished = state['done'], state['finished']
            if self.mean:
                self.mean.load_state_dict(state['mean'])

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        temporary = self.path.with_suffix('.part')
        torch.save({
            'modules': {part: module.state_dict() for part, module in self.modules.items()},
            'optimiser': self.optimiser.state_dict(), 'done': self.done,
            'finished': self.finished, 'mean': self.mean and self.mean.state_dict()}, temporary)
        temporary.rename(self.path)

    def step(self, lesson: Any) -> float:
        """Take one step, whose dice depend on seed, lesson and number only: the loss."""
        dice = random.Random(f'{self.seed}/{self.name}/{self.done}')
        progress = self.done / self.steps
        for group in self.optimiser.param_groups:
            group['lr'] = self.rate * min(1, (self.done + 1) / 50) * (
                .05 + .475 * (1 + math.cos(math.pi * min(1, progress))))
        with reduced(self.device):
            loss = lesson.step(dice, progress, self.score)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        workers.average(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.)
        self.optimiser.step()
        if self.mean:
            self.mean.update_parameters(self.modules)
        self.done += 1
        return float(loss.detach())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the running mean in place of the weights, if there is one."""
        if self.mean is None:
            yield
            return
        own = deepcopy(self.modules.state_dict())
        self.modules.load_state_dict(self.mean.module.state_dict() if self.beside is None else {
            name: (value + self.beside[name]) / 2
            for name, value in self.mean.module.state_dict().items()})
        try:
            yield
        finally:
            self.modules.load_state_dict(own)

    def run(self, lesson: Any, every: int, check: Callable[[], bool]) -> None:
        """Train to the end; after every so many steps save, report, and ask whether it is over."""
        start, first = monotonic(), self.done
        while self.done < self.steps and not self.finished:
            loss = self.step(lesson)
            if self.done % every == 0 or self.done == self.steps:
                pace = (monotonic() - start) / (self.done - first)
                if workers.rank() == 0:
                    print(f'{self.name} {self.done}/{self.steps} loss {loss:.3f} {self.score} | '
                          f'{pace:.2f} s a step, {pace * (self.steps - self.done) / 60:.0f} min '
                          'left', flush=True)
                with self.averaged():
                    self.finished = workers.decide(check) or self.done >= self.steps
                self.score = Score()
                if workers.rank() == 0:
                    self.save()
                workers.wait()
