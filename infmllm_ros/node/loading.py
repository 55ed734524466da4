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

"""From parameters to a session, and back to free memory. Nothing here knows ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
import gc
import time
from typing import Any

from infmllm_ros.engine import (
    check_budget,
    inspect_model,
    load_model,
    make_policy,
    ModelError,
    StreamingModel,
    StreamingSession,
)
import torch


def open_session(settings: Any, log: Callable[[str], None],
                 model: StreamingModel | None = None) -> StreamingSession:
    """
    Check all that can be checked without weights, then load them and make a session.

    Parameters
    ----------
    settings : infmllm_ros.node.parameters.Settings
        The node's parameters.
    log : callable
        Takes a line about how far it is.
    model : StreamingModel, optional
        That of the settings, if it is loaded already.

    Raises
    ------
    EngineError
        The model, the policy or the budget is refused; nothing has been loaded then.
    """
    if not settings.model:
        raise ModelError("parameter model is '', but the node needs one: set it to a folder in "
                         'the Hugging Face format or a name on the hub, e.g. -p model:=FOLDER')
    if settings.threads:
        torch.set_num_threads(settings.threads)
    spec = model.spec if model else inspect_model(
        settings.model, tokens_per_frame=settings.tokens_per_frame or None)
    if not spec.adapter.sees:
        raise ModelError(f"model '{settings.model}' reads text only, but the node needs one that "
                         'sees images: choose a vision-language checkpoint')
    budget = f'{settings.budget_mib}MiB' if settings.budget_mib else settings.budget_tokens
    policy = make_policy(settings.policy, budget=budget, **settings.policy_fields)
    room = {'system_prompt': settings.system_prompt,
            'max_question': settings.max_question_tokens,
            'max_answer': settings.max_answer_tokens,
            'chunk': settings.chunk_tokens,
            'labels': settings.labels,
            # a question about one of several cameras shows its newest frame again
            'question_frame': len(settings.cameras) > 1,
            'layout': settings.memory_fields['layout'],
            'graphs': settings.cuda_graphs,
            'prefill': settings.flex_fields if settings.prefill == 'flex' else None}
    check_budget(spec, policy, device=settings.device, dtype=settings.dtype, **room)
    start = time.monotonic()
    model = model or load_model(
        spec, device=settings.device, dtype=settings.dtype, progress=log)
    session = StreamingSession(model, policy, remember=settings.remember, **room)
    stats = session.stats()
    log(f'model ready on {model.device} ({str(model.dtype).removeprefix("torch.")}) in '
        f'{time.monotonic() - start:.1f} s: policy {settings.policy}, budget {stats.budget} '
        f'tokens, memory {stats.kv_bytes / 2**20:.1f} MiB')
    return session


def renew(session: StreamingSession) -> StreamingSession:
    """Make an empty memory like another's, with buffers of its own, over the same model."""
    settings = {f.name: getattr(session.settings, f.name) for f in fields(session.settings)}
    return StreamingSession(session.model, replace(session.policy), **settings)


def release() -> None:
    """Give the memory of a dropped model back."""
    relieve(True)


def relieve(whole: bool) -> None:
    """
    Give the memory of a failed pass back.

    Parameters
    ----------
    whole : bool
        Whether to look for garbage among all that libraries and model hold, which takes a quarter
        of a second and more, in which no question is answered. Else among what is new: under a
        millisecond.
    """
    gc.collect(2 if whole else 1)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
