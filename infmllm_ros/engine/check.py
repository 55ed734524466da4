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
Whether a checkpoint works, and what its memory costs: ``python -m infmllm_ros.engine.check NAME``.

What the config alone tells is printed before the weights are loaded. Then a short stream of words,
and of two frames where the model sees, goes through a session and through the plain Hugging Face
model in one pass: logits and greedy tokens must be the same. Exit status 0: it works; 1: it does
not, and the last line says why.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import sys
from typing import Any

import numpy as np
import torch

from .attention import install
from .budget import check_budget, memory_bytes, slot_bytes
from .errors import BudgetError, EngineError, ModelError
from .layers import layer_specs
from .layouts import LAYOUTS
from .models import inspect_model, load_model, ModelSpec, pick_device, pick_dtype, StreamingModel
from .models.examine import examine
from .models.source import first_line
from .plain import plain_inputs, Shown
from .policies import make_policy
from .rope import RopeMap
from .session import StreamingSession

VIEW = (480, 640)       # [pixels] height and width of a usual camera's frame
TOLD = (
    'The robot drives along a corridor. On its left stands a blue door, on its right a box of '
    'tools. The charging station is behind it, and the person who gave it the task is in the '
    'kitchen.')
ASKED = ' Ahead of the robot, beside the lift, someone has put a red chair.'
QUESTION = 'What is on the left of the robot?'
ANSWER = 16             # [tokens] at most, of the greedy answer
CHUNK = 32              # [tokens] so that the text enters in several passes


@dataclass(frozen=True)
class Comparison:
    """
    How far a session is from the plain model.

    Attributes
    ----------
    difference, largest : float
        The largest difference between their logits, and the plain model's largest logit.
    limit : float
        What the difference may be; see :func:`compare`.
    tokens, equal : int
        Tokens of the greedy answer, and how many of them the plain model would choose, too.
    gap : float
        The most by which the plain model prefers another token than one of the answer.
    """

    difference: float
    largest: float
    limit: float
    tokens: int
    equal: int
    gap: float

    def verify(self) -> None:
        """Raise EngineError unless logits are the same, and tokens but for ties."""
        if self.limit > self.largest / 4:
            raise EngineError(
                f"rounding alone moves the plain model's logits by {self.limit / 4:.1e}, so "
                'nothing can be said: check it with --dtype float32')
        # so written, because overflow makes logits that are no numbers and compare as false
        if not (self.difference <= self.limit and self.gap <= 2 * self.limit):
            raise EngineError(
                f'a session is not the plain model: logits differ by {self.difference:.1e} '
                f'(limit {self.limit:.1e}), and so do {self.tokens - self.equal} of {self.tokens} '
                'tokens of the answer; do not use this model here, and report it')


def picture(seed: int) -> np.ndarray:
    """Paint a frame: colours that change smoothly, and specks; uint8 [480, 640, 3]."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:VIEW[0], :VIEW[1]] / max(VIEW)
    waves = np.sin(rng.uniform(2, 20, (3, 1, 1)) * down + rng.uniform(2, 20, (3, 1, 1)) * right)
    specks = rng.uniform(-20, 20, (*VIEW, 3))
    return np.clip(127 + 90 * waves.transpose(1, 2, 0) + specks, 0, 255).astype(np.uint8)


def compare(model: StreamingModel) -> Comparison:
    """
    Run the same stream through a session and, in one pass, through the plain model.

    The difference may be what rounding makes of it: 1e-4, or some steps of the type of the weights
    at the size of the logits, or four times the difference between the plain model's own two ways
    to compute attention, whichever is largest.

    Parameters
    ----------
    model : StreamingModel
        Without a session so far; afterwards it is ready for some.

    Returns
    -------
    Comparison

    Raises
    ------
    BudgetError
        If the context of the model cannot hold the stream.
    """
    prompt, text = model.adapter.prompt, model.config.get_text_config(decoder=True)
    own = text._attn_implementation
    told, asked, question = prompt.text(TOLD), prompt.text(ASKED), prompt.question(QUESTION)
    parts: list[torch.Tensor | Shown] = [told]
    if model.adapter.sees:
        parts = [Shown(picture(0)), told, Shown(picture(1), 1.0)]
    prefix = prompt.prefix('')
    room = (len(prefix) + 2 * model.adapter.frame_tokens + len(told) + len(asked)
            + len(question) + ANSWER)
    session = StreamingSession(
        model, make_policy('full', budget=room), max_question=len(question), max_answer=ANSWER,
        chunk=CHUNK)
    for part in parts:
        if isinstance(part, Shown):
            session.observe(part.image, int(part.seconds * 1e9), part.camera)
        else:
            session.tell(part)
    found = session.logits(asked).float()
    answer = session.answer(QUESTION, remember=False)
    said = torch.tensor(answer.token_ids, dtype=torch.long)
    inputs, count = plain_inputs(model, [prefix, *parts, asked, question, said])
    rows = len(asked) + len(question) + len(said)
    try:
        once, again = (_plain(model, inputs, count, rows, how) for how in (own, 'eager'))
    finally:
        install(model.model)
    expected, then = once[:len(asked)], once[len(asked) + len(question) - 1:]
    largest = expected.abs().max().item()
    rounding = (once - again).abs().max().item()
    step = torch.finfo(model.dtype).eps * largest
    chosen = said.tolist()
    if answer.finish == 'stop':     # any of the tokens that end an answer
        stops = sorted(prompt.stop_ids)
        chosen.append(stops[int(then[-1, stops].argmax())])
    then = then[:len(chosen)]
    gaps = then.max(-1).values - then[range(len(chosen)), chosen]
    return Comparison(
        (found - expected).abs().max().item(), largest, max(1e-4, 4 * step, 4 * rounding),
        len(chosen), int((gaps == 0).sum()), gaps.max().item())


@torch.no_grad()
def _plain(model: StreamingModel, inputs: dict[str, Any], count: int, rows: int, how: str,
           ) -> torch.Tensor:
    """Give the plain model's logits of the last rows of a stream: [rows, vocab]."""
    install(model.model, how)
    beyond = inputs['input_ids'].shape[1] - count
    logits = model.model(**inputs, logits_to_keep=rows + beyond).logits[0]
    return logits[:rows].float()


def describe(spec: ModelSpec, rope: RopeMap) -> Iterator[tuple[str, str]]:
    """Say what the config tells of a model."""
    config = spec.config.get_text_config(decoder=True)
    yield 'family', f'{spec.config.model_type}, {type(spec.adapter).__name__} adapter'
    yield 'rotation', _rotation(config, rope)
    yield 'context', f'{spec.context_limit} positions'
    layers = layer_specs(config)
    kinds = Counter(
        'bounded by the budget' if layer.full else
        f'with a window of {layer.window}' if layer.window else
        "on an earlier layer's keys" if layer.source is not None else
        'with a constant state'
        for layer in layers)
    yield 'layers', f'{len(layers)}: ' + ', '.join(f'{n} {kind}' for kind, n in kinds.items())
    if spec.adapter.prompt.plain:
        yield 'prompt', ('plain text, as there is no chat template: right for a base model; any '
                         'other lacks a file (chat_template.jinja or .json)')
    if spec.adapter.default_pixels:
        yield 'pixels', ('as usual for this family, as there is no preprocessor_config.json: '
                         "copy the checkpoint's own beside config.json")
    if not spec.adapter.sees:
        yield 'frame', 'none: it reads text only, for sessions without the node'
        return
    yield 'frame', (f'{_frame_tokens(spec)} tokens for {VIEW[1]} x {VIEW[0]} pixels, at most '
                    f'{spec.adapter.frame_tokens}')


def _rotation(config: Any, rope: RopeMap) -> str:
    """Name the rotary scheme: scalings, pairing, channels, axes."""
    fields = getattr(config, 'rope_parameters', None) or {}
    tables = [fields] if 'rope_type' in fields else [
        table for table in fields.values() if isinstance(table, dict)]
    scaling = ' and '.join(dict.fromkeys(table.get('rope_type', 'default') for table in tables))
    channels = sorted({table.cos.shape[1] for table in rope.tables(1, torch.float32)})
    kinds = ' and '.join(dict.fromkeys(layer.kind for layer in rope.layers.values()))
    size = max(layer.size for layer in layer_specs(config))
    return (f'{"M-RoPE" if rope.mrope else "RoPE"}, {scaling or "default"}, {kinds}, '
            f'{" and ".join(map(str, channels))} of {size} channels')


def _frame_tokens(spec: ModelSpec) -> int:
    """Count the tokens of a camera's frame, a minute after the first one."""
    return len(spec.adapter.lay_out(np.zeros((*VIEW, 3), np.uint8), 60.0))


def remembers(spec: ModelSpec, budget: int | str | None, dtype: torch.dtype,
              ) -> Iterator[tuple[str, str]]:
    """
    Say what a budget costs and holds.

    Raises
    ------
    BudgetError
        If the budget is too small, or too large for the context; None takes the usual one, or
        where that is too large the largest that works.
    """
    policy = make_policy('saddle', budget)
    try:
        plan = check_budget(spec, policy, dtype=dtype)
    except BudgetError:
        if budget is not None:
            raise
        policy = make_policy('saddle', 0)       # as much as the context takes
        plan = check_budget(spec, policy, dtype=dtype)
    layers = layer_specs(spec.config.get_text_config(decoder=True))
    slots = {name: _bytes(slot_bytes(layers, policy, dtype.itemsize, name)) for name in LAYOUTS}
    others = ', '.join(f'{name} {size}' for name, size in slots.items() if name != 'fast')
    yield 'token', f'{slots["fast"]} over all layers that the budget bounds; {others}'
    line = f'{_bytes(memory_bytes(spec, policy, plan, dtype))} at a budget of {plan.budget} tokens'
    if spec.adapter.sees:
        frames = (plan.budget - len(spec.adapter.prompt.prefix(''))) // _frame_tokens(spec)
        line += (f': {frames} whole frames, {frames / 60:.1f} minutes at 1 frame/s, and of older '
                 'ones what the policy chooses')
    yield 'memory', line


def _bytes(count: int) -> str:
    """Write a number of bytes for people."""
    for unit in ('KiB', 'MiB'):
        count /= 1024
        if count < 1000:
            return f'{count:.1f} {unit}'
    return f'{count / 1024:.2f} GiB'


def check(name: str, budget: int | str | None = None, device: str = 'auto', dtype: str = 'auto',
          tokens_per_frame: int | None = None) -> Iterator[tuple[str, str]]:
    """
    Check a checkpoint; give each finding as its title and one line, when it is known.

    Parameters
    ----------
    name : str
        A folder or a hub name.
    budget : int or str, optional
        As for ``make_policy``.
    device, dtype, tokens_per_frame
        As for ``load_model``.

    Raises
    ------
    EngineError
        Why it does not work.
    """
    spec = inspect_model(name, tokens_per_frame=tokens_per_frame)
    text = spec.config.get_text_config(decoder=True)
    yield from describe(spec, examine(text, spec.adapter.spatial))
    place = pick_device(device)
    kind = pick_dtype(spec.config, dtype, place)
    yield from remembers(spec, budget, kind)
    weights = spec.count_parameters()
    yield 'weights', (
        f'{weights / 1e6:,.2f} million, {_bytes(weights * kind.itemsize)} as '
        f'{str(kind).removeprefix("torch.")} on {place}')
    model = load_model(spec, device=place, dtype=kind, progress=print)
    try:
        found = compare(model)
    except EngineError:
        raise
    except Exception as error:      # whatever a model that is built in another way may raise
        raise ModelError(
            f'a short stream ended in {type(error).__name__} ({first_line(error)})') from error
    yield 'logits', (
        f'differ from those of the plain model by {found.difference:.1e} at most (limit '
        f'{found.limit:.1e}; the largest is {found.largest:.1f})')
    yield 'answer', f"{found.equal} of {found.tokens} greedy tokens are the plain model's"
    found.verify()


def main(argv: Sequence[str] | None = None) -> int:
    """Check a checkpoint and print what is found; give the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m infmllm_ros.engine.check',
        description='Does this model work, and what does its memory cost?')
    parser.add_argument('model', help='a folder in Hugging Face format, or a hub name')
    parser.add_argument('--budget', type=lambda text: int(text) if text.isdigit() else text,
                        help='tokens that each layer keeps, or a size such as 512MiB')
    parser.add_argument('--device', default='auto', help="'auto', 'cpu', 'cuda'")
    parser.add_argument('--dtype', default='auto', help="'auto', 'float32', 'bfloat16', ...")
    parser.add_argument('--tokens-per-frame', type=int, help='the most vision tokens of a frame')
    given = parser.parse_args(argv)
    try:
        for title, line in check(given.model, given.budget, given.device, given.dtype,
                                 given.tokens_per_frame):
            print(f'{title:10}{line}', flush=True)
    except EngineError as error:
        print(f'{"verdict":10}does not work: {error}')
        return 1
    print(f'{"verdict":10}works')
    return 0


if __name__ == '__main__':
    sys.exit(main())
