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

"""The policy at work on a session: what it learns from a pass, and what stays after one."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any, TYPE_CHECKING

import torch

from .attention import Pass
from .budget import Plan
from .chunk import Chunk
from .errors import BudgetError, ContextFull
from .int8 import SAMPLE
from .intake import parts
from .policies import Policy, Role, View

if TYPE_CHECKING:
    from .session import StreamingSession


def score(stream: Pass, policy: Policy, past: int, size: int) -> None:
    """Hand over the attention of a window: in a chunk of `size`, after `past` tokens."""
    # int64 [r]: the last places in the chunk that they saw, mostly their own
    last = stream.rows if stream.far is None else stream.far[stream.rows]
    place = torch.arange(size, device=last.device)
    asked = torch.cat((
        torch.full((past,), len(last), device=last.device),
        (last[None] >= place[:, None]).sum(1))).float()
    for slots in stream.cache.slots:
        held = slice(0, slots.count)
        policy.observe(slots.state[:, :, held], slots.close_window(), asked[held])


def begin(session: StreamingSession) -> None:
    """Let the system prompt into an empty memory; what is there of it after a failure is gone."""
    session.cache.clear()
    if fresh := session.cache.fresh():
        sample = torch.cat((session.prefix, session.prompt.text(SAMPLE)))
        session.feed(Chunk(sample[:session.settings.chunk]), Role.PREFIX, commit=False)
        for layer in fresh:
            layer.fresh = False
    for part in parts(session.prefix, session.settings.chunk):
        session.feed(Chunk(part), Role.PREFIX)
        session.cache.trim()


def take(session: StreamingSession, chunk: Chunk, role: Role, **options: Any,
         ) -> torch.Tensor | None:
    """
    Let a chunk in and settle, both or neither; parameters and result as of ``session.feed``.

    To settle is to probe if it is time, then to evict whatever is over budget.
    """
    number, every = session._chunks + 1, session.policy.probe_every
    before, start = session.cache.mark(), perf_counter()
    try:
        out = session.feed(chunk, role, **options)
        prefilled = perf_counter()
        if session.probe is not None and every and number % every == 0:
            session.feed(session.probe, Role.PROBE, commit=False)
        evict(session)
    except BaseException:
        if session.begun:       # nothing was moved yet
            session.cache.rollback(before)
        raise
    session.cache.trim()
    session._chunks = number
    if role is Role.FRAME:
        session.timings['prefill_s'] = prefilled - start
    return out


def read(session: StreamingSession, ids: torch.Tensor, logits: bool = False,
         ) -> torch.Tensor | None:
    """Let text in, part by part; give its logits [n, vocab] if they are wanted."""
    admit(session, len(ids))
    found = [take(session, Chunk(part), Role.TEXT, logits=len(part) if logits else 0)
             for part in parts(ids, session.settings.chunk)]
    if not logits:
        return None
    none = torch.empty(
        0, session.vocabulary, dtype=session.model.dtype, device=session.model.device)
    return torch.cat([none, *found])


def evict(session: StreamingSession) -> None:
    """Let the policy choose what stays, where a group is over budget; an eager one, in all."""
    start, cache, before = perf_counter(), session.cache, session.cache.evicted
    over = [group for group, slots in enumerate(cache.slots)
            if slots.count > (0 if session.policy.eager else session.plan.budget)]
    if over and session.probe is not None and not session.policy.probe_every:
        session.feed(session.probe, Role.PROBE, commit=False)
    keep = session.policy.select_all([view(session, group) for group in over])
    try:
        for group, kept in zip(over, keep, strict=True):
            cache.compact(cache.slots[group], kept)
    except BaseException:
        session.forget()        # half of it was moved: nothing is where its ledger says
        raise
    if cache.evicted > before:
        session.evictions += 1
        session.timings['evict_s'] = perf_counter() - start


def prune(session: StreamingSession) -> None:
    """Forget the stamps of frames that are gone, when they are many."""
    if len(session.frames) > 2 * session.plan.budget + 64:
        kept = session.cache.ranks.union(session.cache.frames())
        session.frames = {number: session.frames[number] for number in kept}


def admit(session: StreamingSession, tokens: int) -> None:
    """Refuse tokens that would pass the budget of a policy that never evicts."""
    held, budget = session.cache.count, session.plan.budget
    if session.policy.refuses and session.cache.slots and held + tokens > budget:
        raise ContextFull(
            f'the memory holds {held} tokens and {tokens} more would pass the budget {budget} '
            f'of policy {session.policy.name!r}: reset it, or choose a policy that evicts')


def fit_budget(session: StreamingSession, budget: int) -> Plan:
    """
    Find what another budget means in the buffers that are there; nothing changes.

    Raises
    ------
    BudgetError
        If it is too small for what must fit, or too large for the buffers.
    ContextFull
        If more is held under a policy that evicts none.
    """
    plan, held = session.plan, session.cache.count
    if budget < plan.least:
        raise BudgetError(f'budget {budget} is too small: the smallest budget that works is '
                          f'{plan.least}')
    if budget > plan.most:
        raise BudgetError(f'budget {budget} is more than the {plan.most} tokens that the memory '
                          'was made with, and its buffers never grow: make a new one')
    if held > budget and session.cache.slots and session.policy.refuses:
        raise ContextFull(f'the memory holds {held} tokens, and policy {session.policy.name!r} '
                          f'evicts none: reset it before its budget is {budget}')
    # the headroom gets what the budget leaves: the buffers stay as they are
    return replace(plan, budget=budget, headroom=plan.capacity - budget)


def set_budget(session: StreamingSession, budget: int) -> None:
    """Change the budget; see :meth:`StreamingSession.set_budget`."""
    before = session.policy, session.plan
    session.plan = fit_budget(session, budget)
    session.policy = replace(session.policy, budget=budget)
    try:
        evict(session)
    except BaseException:
        session.policy, session.plan = before
        raise


def view(session: StreamingSession, group: int) -> View:
    """Show one selection group to the policy."""
    slots, ranks = session.cache.slots[group], session.cache.ranks
    # of heads that select apart, each rank has its own
    number = group * ranks.size + ranks.rank if session.policy.scope == 'head' else group
    return View.of(
        slots, session.plan.budget, max(len(session.prefix), session.policy.sinks), number,
        len(session.cache.full),
        session.cache.contents(slots) if session.policy.reads else ())
