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

"""One parameter of the node: its type, its range, and what to say of a wrong value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

START = 'start'  # read once, when the process starts
CONFIGURE = 'configure'  # read by configure: may change while the node is unconfigured
LIVE = 'live'  # may change at any time
LOWER = 'lower'  # read by configure; then anything up to that

CHANGES = {
    START: 'Fixed when the process starts.',
    CONFIGURE: 'Read by configure: clean the node up before changing it.',
    LIVE: 'May be changed while the node runs.',
    LOWER: 'May be lowered while the node runs: what no longer fits is evicted at once.',
}
_KINDS = {bool: 'bool', int: 'integer', float: 'double', str: 'string', tuple: 'string array'}


class ParameterError(ValueError):
    """A parameter of the wrong type or out of its range; one line: value, limit, remedy."""


@dataclass(frozen=True)
class Option:
    """
    One parameter.

    Parameters
    ----------
    name : str
        Its name; a policy's field is ``<policy>.<field>``.
    default : bool, int, float, str or tuple of str
        Its default; the type of the parameter is that of its default.
    description : str
        What it means, with its unit.
    low, high : int or float, optional
        Smallest and largest value allowed.
    choices : tuple of str
        The values allowed of a string; empty = any.
    changes : str
        When a new value counts: `START`, `CONFIGURE`, `LIVE` or `LOWER`.
    """

    name: str
    default: bool | int | float | str | tuple[str, ...]
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    changes: str = CONFIGURE

    @property
    def kind(self) -> str:
        """Name the type as ROS does."""
        return _KINDS[type(self.default)]

    @property
    def limit(self) -> str:
        """Say which values are allowed; empty where the type is the only limit."""
        if self.choices:
            return 'one of ' + ', '.join(self.choices)
        if self.low is not None and self.high is not None:
            return f'{self.low} to {self.high}'
        if self.low is not None:
            return f'{self.low} or more'
        return f'{self.high} or less' if self.high is not None else ''

    def problem(self, value: Any) -> str:
        """Say what is wrong with a value and what to do, in one line; empty when it is right."""
        example = yaml_text(self.default)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = tuple(value)
        if type(value) is not type(self.default):
            kind = _KINDS.get(type(value), 'array')
            if kind == 'integer' and self.kind == 'double':
                example = float(value)
            return (f'parameter {self.name} is {short(value)}, of type {kind}, but must be of '
                    f'type {self.kind}: write it like {example}')
        too_low = self.low is not None and value < self.low
        too_high = self.high is not None and value > self.high
        if too_low or too_high or value != value:
            return (f'parameter {self.name} is {short(value)}, but must be {self.limit}: '
                    f'choose a value in that range, the default is {example}')
        if self.choices and value not in self.choices:
            return (f'parameter {self.name} is {short(value)}, but must be {self.limit}: '
                    f'choose one of them, the default is {example}')
        return ''


def short(value: Any) -> str:
    """Write a value on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + '...'


def yaml_text(value: Any) -> str:
    """Write a value as it stands in a parameter file."""
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, (list, tuple)):
        return '[' + ', '.join(map(yaml_text, value)) + ']'
    return repr(value)
