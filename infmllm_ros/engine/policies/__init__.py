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

"""What stays in the memory: one policy, one file."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from .base import option, parse_bytes, Policy, Role, View
from .full import Full
from .h2o import H2O
from .hermes import Hermes
from .infinipot_v import InfiniPotV
from .live_vlm import LiveVLM
from .random import Random
from .recent_frames import RecentFrames
from .saddle import Saddle
from .streaming_llm import StreamingLLM
from .streaming_vlm import StreamingVLM
from ..errors import PolicyError

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (
        Saddle, StreamingLLM, H2O, StreamingVLM, LiveVLM, InfiniPotV, Hermes, RecentFrames, Random,
        Full)}

__all__ = ['Full', 'H2O', 'Hermes', 'InfiniPotV', 'LiveVLM', 'make_policy', 'option',
           'parse_bytes', 'POLICIES', 'Policy', 'Random', 'RecentFrames', 'Role', 'Saddle',
           'StreamingLLM', 'StreamingVLM', 'View']


def make_policy(name: str, budget: int | str | None = None, **options: Any) -> Policy:
    """
    Make a policy by its name.

    Parameters
    ----------
    name : str
        A key of POLICIES.
    budget : int or str, optional
        Tokens kept per layer, or a size such as '512MiB' that all buffers of the cache must fit;
        None: the policy's default.
    **options
        Its hyper-parameters.

    Raises
    ------
    PolicyError
        On an unknown name or hyper-parameter, or a value out of range.
    """
    if name not in POLICIES:
        raise PolicyError(f'policy is {name!r}, must be one of {", ".join(POLICIES)}')
    known = [spec.name for spec in fields(POLICIES[name]) if spec.name != 'budget']
    for key in options:
        if key not in known:
            raise PolicyError(
                f'{name} has no hyper-parameter {key!r}; it has {", ".join(known) or "none"}')
    if budget is not None:
        options['budget'] = budget
    return POLICIES[name](**options)
