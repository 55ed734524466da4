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

"""Workers that share every batch end where one worker ends, and fail together."""

from functools import partial
from pathlib import Path

import pytest
import torch

from training import workers  # noqa: I100
from training.trainer import Trainer

STEPS = 3


class Squares:
    """A lesson: a regression on rows that the dice choose for all workers."""

    def __init__(self, model):
        self.model = model

    def step(self, dice, progress, score):
        rows = torch.tensor([[dice.random() for _ in range(5)] for _ in range(8)])
        rows = workers.mine(rows)
        return (self.model(rows) - rows.sum(1, keepdim=True)).square().mean()


def train(work: Path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
    modules = {'model': model, 'unused': torch.nn.Linear(2, 2)}     # the latter gets no gradient
    trainer = Trainer('squares', modules, work, 0, STEPS, 1e-2, torch.device('cpu'))
    trainer.run(Squares(model), 2, partial(check, work))
    torch.save(model.state_dict(), work / f'end{workers.rank()}.pt')


def check(work: Path) -> bool:
    """Is called in worker 0 alone, whose decision holds for all."""
    with open(work / 'checked', 'a') as file:
        file.write(f'{workers.rank()}')
    return False


def fail_second():
    if workers.rank() == 1:
        raise ValueError('the second of two failed')
    workers.wait()


def test_two_workers_train_as_one_does(tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    for work, number in ((one, 1), (two, 2)):
        work.mkdir()
        workers.spread(number, train, work)
    assert (two / 'checked').read_text() == '00'    # at step 2 and at the end
    expected = torch.load(one / 'end0.pt')
    first, second = (torch.load(two / f'end{rank}.pt') for rank in (0, 1))
    for name, value in first.items():
        assert value.equal(second[name])
        torch.testing.assert_close(value, expected[name])
    saved = torch.load(two / 'squares.pt')['modules']['model']
    assert all(value.equal(first[name]) for name, value in saved.items())


def test_the_failure_of_one_worker_is_that_of_all(capfd):
    with pytest.raises(torch.multiprocessing.ProcessRaisedException):
        workers.spread(2, fail_second)
    assert 'the second of two failed' in capfd.readouterr().err
