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

"""How a long chunk is computed: all of its attention, or only what FlexPrefill chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .flex import Choice, FlexPrefill
from ..errors import PolicyError

__all__ = ['Choice', 'FlexPrefill', 'make_prefill', 'PREFILLS']

PREFILLS = ('dense', 'flex')


def make_prefill(given: str | Mapping[str, Any] | FlexPrefill | None) -> FlexPrefill | None:
    """
    Read a way of prefilling; None is dense.

    Parameters
    ----------
    given : str, mapping, FlexPrefill or None
        A name of `PREFILLS`, or FlexPrefill's fields.

    Raises
    ------
    PolicyError
        If the name or a field is unknown, or a value out of its range.
    """
    if given is None or given == 'dense':
        return None
    if isinstance(given, FlexPrefill):
        return given
    if given == 'flex':
        return FlexPrefill()
    if not isinstance(given, Mapping):
        raise PolicyError(f'prefill is {given!r}, must be one of {", ".join(PREFILLS)} or a '
                          'FlexPrefill')
    known = FlexPrefill.__dataclass_fields__
    for name in given:
        if name not in known:
            raise PolicyError(f'prefill flex has no field {name!r}, it has {", ".join(known)}')
    return FlexPrefill(**given)
