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

"""How many slots a budget means, and whether it can hold what every moment of a stream needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import BudgetError
from .layers import layer_specs, LayerSpec
from .layouts import LAYOUTS
from .models import ModelSpec, pick_device, pick_dtype
from .policies import parse_bytes, Policy
from .positions import FIELDS
from .prefill import FlexPrefill, make_prefill


@dataclass(frozen=True)
class Settings:
    """
    What a session is made with, beside model and policy.

    Parameters
    ----------
    system_prompt : str
        Stays in the memory for ever.
    remember : bool
        Whether question and answer stay in the memory; may be overridden per question.
    max_question, max_answer : int
        Tokens kept free for a question (its turn tokens included) and for its answer.
    chunk : int
        Tokens prefilled at a time: of text, and of a backlog's frames, which stay whole.
    prefill : FlexPrefill or None
        How chunks are computed; also its fields, or the name 'dense' or 'flex'.
    labels : mapping of str to str
        By camera, the text before each of its frames, such as ``{'left': 'Left camera: '}``.
    question_frame : bool
        Whether room is kept for a frame that comes with a question and leaves with it.
    layout : str
        How keys and values lie in memory, one of `LAYOUTS`: 'fast' has rotated keys at hand,
        'lean' rotates them in every pass, 'fused' where attention multiplies them (on a GPU with
        Triton; else it is 'lean'), 'int8' quantises them, too.
    graphs : bool
        Whether passes of a shape that comes often are recorded as CUDA graphs: of a model on one
        GPU whose memory's layout is 'fast'. Elsewhere this changes nothing.
    """

    system_prompt: str = ''
    remember: bool = False
    max_question: int = 256
    max_answer: int = 256
    chunk: int = 256
    prefill: FlexPrefill | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    question_frame: bool = False
    layout: str = 'fast'
    graphs: bool = False

    def __post_init__(self) -> None:
        """Check the ranges, and read `prefill`."""
        prefill = make_prefill(self.prefill)
        object.__setattr__(self, 'prefill', prefill)
        # of its own: the room for the longest is planned once, and files take a dict
        object.__setattr__(self, 'labels', dict(self.labels))
        for name in ('max_question', 'max_answer', 'chunk'):
            if getattr(self, name) < 1:
                raise BudgetError(f'{name} is {getattr(self, name)}, must be at least 1 token')
        if self.layout not in LAYOUTS:
            raise BudgetError(
                f'layout is {self.layout!r}, must be one of {", ".join(LAYOUTS)}')
        if prefill is not None and self.chunk < prefill.min_chunk:
            raise BudgetError(
                f'chunk is {self.chunk}, must be at least min_chunk {prefill.min_chunk} of '
                'prefill flex, which would never be used: raise chunk to some thousands')


@dataclass(frozen=True)
class Plan:
    """Tokens that may stay per layer, the slots above them, and how few and many they may be."""

    budget: int
    headroom: int
    least: int
    most: int

    @property
    def capacity(self) -> int:
        """Slots to allocate per layer that the policy bounds."""
        return self.budget + self.headroom


def _slot(specs: Sequence[LayerSpec], rows: int, channels: int, itemsize: int, layout: str) -> int:
    """
    Count the bytes of one slot over some layers.

    Keys and values of each, what they share, and the ledger's rows: int64 fields (as many as
    M-RoPE needs), the policy's running numbers, window and evidence.
    """
    kind = LAYOUTS[layout]
    return (sum(kind.slot_bytes(spec, itemsize) for spec in specs)
            + sum(kind.scratch_bytes(spec, itemsize) for spec in set(specs))
            + rows * (8 * FIELDS + 4 * (channels + 2)))


def slot_bytes(specs: Sequence[LayerSpec], policy: Policy, itemsize: int,
               layout: str = 'fast') -> int:
    """Count the bytes of one slot over all layers that the policy bounds; 0 if there are none."""
    full = [spec for spec in specs if spec.full]
    rows = {'all': min(1, len(full)), 'layer': len(full), 'head': sum(s.heads for s in full)}
    return _slot(full, rows[policy.scope], policy.channels, itemsize, layout)


def fixed_bytes(specs: Sequence[LayerSpec], headroom: int, itemsize: int,
                layout: str = 'fast') -> int:
    """Count the bytes of the other layers, whatever the budget: their windows and states."""
    kind = LAYOUTS[layout]
    return sum(spec.state_bytes(itemsize) + kind.fixed_bytes(spec, itemsize)
               for spec in specs) + sum(
        (window - 1 + headroom) * _slot(
            [spec for spec in specs if spec.window == window], 1, 0, itemsize, layout)
        for window in {spec.window for spec in specs if spec.window})


def memory_bytes(spec: ModelSpec, policy: Policy, plan: Plan, dtype: torch.dtype,
                 layout: str = 'fast') -> int:
    """Count the bytes of all buffers of a session."""
    layers = layer_specs(spec.config.get_text_config(decoder=True))
    return (plan.capacity * slot_bytes(layers, policy, dtype.itemsize, layout)
            + fixed_bytes(layers, plan.headroom, dtype.itemsize, layout))


def make_plan(spec: ModelSpec, policy: Policy, dtype: torch.dtype, settings: Settings,
              ranks: int = 1, places: Mapping[int, torch.device] | None = None) -> Plan:
    """
    Turn a budget into slots; one in bytes is what each of so many `ranks` may take.

    Layers lie on one device unless `places` says more. Headroom above the budget holds whichever
    is largest, a chunk of text, a frame, or a question with its answer (and its frame), and the
    policy's probe after it.

    Raises
    ------
    BudgetError
        If the budget cannot hold system prompt, sinks, one frame and a question (or the text that
        the policy keeps in any case), or if its positions would reach the model's context limit.
    """
    prompt, adapter = spec.adapter.prompt, spec.adapter
    prefix = max(len(prompt.prefix(settings.system_prompt)), policy.sinks)
    label = max((len(prompt.text(text)) for text in settings.labels.values()), default=0)
    frame = adapter.frame_tokens + label if adapter.sees else 0
    probe = len(prompt.question(policy.probe)) if policy.probe else 0
    question = settings.max_question
    headroom = probe + max(settings.chunk, frame, settings.question_frame * frame
                           + question + settings.max_answer + len(prompt.reopen()))
    most = spec.context_limit - adapter.max_extent - headroom
    text = max(question, policy.reserve)
    least = prefix + frame + text
    what = 'a question' if text == question else f'text ({policy.name})'
    needs = f'system prompt and sinks {prefix}, one frame {frame}, {what} {text} tokens'
    layers = layer_specs(spec.config.get_text_config(decoder=True), ranks, places)
    window = max(layer.window for layer in layers)
    if window and window - 1 + headroom + adapter.max_extent > spec.context_limit:
        raise BudgetError(
            f'a sliding window of {window} and its headroom of {headroom} pass the context limit '
            f'{spec.context_limit} of {spec.name}: lower chunk, max_question or max_answer')
    if isinstance(policy.budget, str):
        per_slot = slot_bytes(layers, policy, dtype.itemsize, settings.layout)
        fixed = fixed_bytes(layers, headroom, dtype.itemsize, settings.layout)
        room = parse_bytes(policy.budget) - fixed
        # without a full layer there is nothing to bound
        budget = room // per_slot - headroom if per_slot else most if room >= 0 else 0
        if budget < least:
            size = -(-((least + headroom) * per_slot + fixed) // 2 ** 20)
            raise BudgetError(
                f'budget {policy.budget} holds {max(0, budget)} tokens beside {headroom} of '
                f'headroom, needs {least} ({needs}): the smallest budget that works is {size}MiB')
    else:
        budget = policy.budget or most
    if budget < least:
        raise BudgetError(
            f'budget {budget} is too small, needs {least} ({needs}): the smallest budget that '
            f'works is {least}')
    if budget > most:
        raise BudgetError(
            f'budget {budget} and its headroom of {headroom} reach the context limit '
            f'{spec.context_limit} of {spec.name}: the largest budget that works is {most}')
    flex = settings.prefill
    if flex is not None and budget + settings.chunk < flex.min_held:
        raise BudgetError(
            f'budget {budget} and chunk {settings.chunk} never hold the {flex.min_held} tokens '
            '(min_held) from which prefill flex computes less: raise them, or prefill densely')
    if flex is not None:
        least = max(least, flex.min_held - settings.chunk)
    return Plan(budget, headroom, least, budget)


def check_budget(spec: ModelSpec, policy: Policy, *, device: str = 'auto', dtype: str = 'auto',
                 **settings: Any) -> Plan:
    """
    Check a budget before weights are loaded.

    Parameters
    ----------
    spec : ModelSpec
        From ``inspect_model``.
    policy : Policy
    device, dtype : str
        As ``load_model`` will be given them; they matter for a budget given as a size.
    **settings
        Fields of :class:`Settings`, as the session will be given them.

    Raises
    ------
    BudgetError
        Naming the smallest budget that works.
    """
    chosen = pick_dtype(spec.config, dtype, pick_device(device))
    return make_plan(spec, policy, chosen, Settings(**settings))
