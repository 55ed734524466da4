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

"""The one command trains lesson after lesson, and exports the mean of what the last two give."""

from test_training import SHAPE
import torch
from transformers import AutoModelForImageTextToText

from training import train as command  # noqa: I100
from training.lessons import Phase, shipped_policy
from training.train import LESSONS, Recipe, train


def _decoder(state, prefix):
    return {name.removeprefix(prefix): value.float() for name, value in state.items()
            if name.startswith(prefix)}


def test_what_is_exported_is_the_mean_of_the_last_two_lessons(tmp_path, monkeypatch):
    monkeypatch.setattr(command, 'LOUD', 8)
    monkeypatch.setattr(command, 'LONG', 32)
    drawn = []
    monkeypatch.setattr(command, 'shipped_policy', lambda *args: (
        drawn.append(shipped_policy(*args)), drawn[-1])[1])
    short, long = (Phase(1.01, (frames,), 2, 1.) for frames in (16, 32))
    recipe = Recipe(
        shape=SHAPE, runs=2, run_stills=2, eyes_steps=1, eyes_batch=2, words_steps=1,
        memory_runs=2, memory_frames=16, memory_steps=1, phases=(short,), budgets=(40, 40, 60),
        polish_runs=2, long_runs=2, polish_steps=2, polish_phase=short, long_phase=long,
        polish_budgets=(40,), finish_steps=2, finish_budgets=(60,))
    work, out = tmp_path / 'work', tmp_path / 'model'
    train(recipe, work, out, LESSONS, torch.device('cpu'))
    saved = {name: torch.load(work / f'{name}.pt') for name in LESSONS}
    assert all(state['finished'] for state in saved.values())
    polish, finish = (_decoder(saved[name]['mean'], 'module.decoder.')
                      for name in ('polish', 'finish'))
    model = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float16)
    exported = _decoder(model.model.language_model.state_dict(), '')
    assert exported.keys() == polish.keys()
    assert any(not polish[name].equal(value) for name, value in finish.items())
    for name, value in exported.items():
        torch.testing.assert_close(value, (polish[name] + finish[name]) / 2, atol=1e-4, rtol=1e-3)
    assert {policy.budget for policy in drawn} == {60}

    train(recipe, work, tmp_path / 'again', LESSONS, torch.device('cpu'))
    assert not (tmp_path / 'again').exists()    # all is finished: nothing is trained or exported
