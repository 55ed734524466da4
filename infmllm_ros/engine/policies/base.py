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

"""What a policy is, and how its hyper-parameters are declared and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, Field, field, fields
from enum import Enum
from math import isfinite
import re
from typing import Any, ClassVar

import torch

from ..chunk import Chunk, Content, Kind
from ..errors import PolicyError
from ..positions import COL, FRAME, INDEX, KIND, ROW, Slots, STAMP

_UNITS = {'KIB': 2 ** 10, 'MIB': 2 ** 20, 'GIB': 2 ** 30,
          'KB': 10 ** 3, 'MB': 10 ** 6, 'GB': 10 ** 9}
PROBE_TEXT = 'What matters so far: objects, places, colours, numbers, states, and what was said?'


class Role(Enum):
    """Why a chunk enters the cache."""

    PREFIX = 'prefix'      # the system prompt
    FRAME = 'frame'
    TEXT = 'text'          # told, or fed by `logits`
    QUESTION = 'question'
    ANSWER = 'answer'      # generated tokens, and the close of the turn
    PROBE = 'probe'        # a guidance text, rolled back


def option(default: Any, doc: str, *, low: float | None = None, high: float | None = None,
           choices: Sequence[str] | None = None) -> Any:
    """Declare a hyper-parameter with its meaning, unit and range."""
    return field(default=default,
                 metadata={'doc': doc, 'low': low, 'high': high, 'choices': choices})


# ---- hyper-parameters of several policies


def recent_option(share: float) -> Any:
    """Declare how many of the newest tokens stay, `share` by default; see :func:`share_of`."""
    return option(share, 'most recent tokens that stay: a share of the budget, or tokens if '
                  'above 1', low=0)


def sinks_option() -> Any:
    """Declare how many of the first tokens stay: four by default, as in StreamingLLM."""
    return option(4, 'first tokens of the stream that always stay', low=0)


def scope_option(scope: str) -> Any:
    """Declare who selects together."""
    return option(scope, 'who shares one list of kept tokens', choices=('head', 'layer', 'all'))


def reduce_option() -> Any:
    """Declare how the heads and layers of one list are joined."""
    return option('mean', 'how heads and layers of one list are joined', choices=('mean', 'max'))


def check_option(policy: Any, spec: Field) -> None:
    """
    Check one hyper-parameter against its declaration; a whole number may come as a float.

    Raises
    ------
    PolicyError
        Naming value, limit and remedy.
    """
    value, default, meta = getattr(policy, spec.name), spec.default, spec.metadata
    name = f'{policy.name}.{spec.name}'
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    if isinstance(default, (bool, str)):
        if not isinstance(value, type(default)):
            raise PolicyError(f'{name} is {value!r}, must be a {type(default).__name__}')
    elif not number or isinstance(default, int) and value != int(value):
        kind = 'whole number' if isinstance(default, int) else 'number'
        raise PolicyError(f'{name} is {value!r}, must be a {kind}')
    else:
        setattr(policy, spec.name, type(default)(value))        # 4.0 is a whole number too
    if meta['choices'] and value not in meta['choices']:
        raise PolicyError(f'{name} is {value!r}, must be one of {", ".join(meta["choices"])}')
    low, high = meta['low'], meta['high']
    if number and (low is not None and value < low or high is not None and value > high):
        raise PolicyError(
            f'{name} is {value}, must be ' + (
                f'between {low} and {high}' if None not in (low, high)
                else f'at least {low}' if high is None else f'at most {high}'))


def parse_bytes(size: str) -> int:
    """
    Read a size such as '512MiB' or '1.5 GB', in bytes.

    Raises
    ------
    PolicyError
        If it is none.
    """
    match = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)\s*', size, re.IGNORECASE)
    if match is None:
        raise PolicyError(
            f'budget is {size!r}, must be a number of tokens or a size such as "512MiB"')
    return int(float(match[1]) * _UNITS[match[2].upper()])


@dataclass
class View:
    """
    What a policy sees of one selection group when it chooses.

    Parameters
    ----------
    count : int
        Tokens held, n.
    budget : int
        Tokens that may stay.
    protected : int
        That many leading slots stay in any case: the system prompt and the sinks.
    index, frame, kind : torch.Tensor
        Stream index, frame ordinal (-1: none) and kind of each token, int64 [G, n].
    stamp : torch.Tensor
        When its frame was taken, in nanoseconds; for text, that of the newest frame before it,
        and 0 before the first. int64 [G, n].
    row, col : torch.Tensor
        Where a vision token stands in the grid of its frame; 0 for text. int64 [G, n].
    state : torch.Tensor
        The policy's running numbers, fp32 [channels, G, n].
    group : int
        Which of the cache's selection groups this is.
    depth : int
        Full-attention layers of the model: those that a policy bounds.
    contents : sequence of Content
        Keys and values of the group's layers, for a policy that `reads` them.
    """

    count: int
    budget: int
    protected: int
    index: torch.Tensor
    frame: torch.Tensor
    kind: torch.Tensor
    stamp: torch.Tensor
    row: torch.Tensor
    col: torch.Tensor
    state: torch.Tensor
    group: int = 0
    depth: int = 1
    contents: Sequence[Content] = ()

    @classmethod
    def of(cls, slots: Slots, budget: int, protected: int, *place: Any) -> View:
        """Show the ledger of one group; `place` is what follows its state."""
        count = slots.count
        return cls(count, budget, min(protected, count),
                   *map(slots.held, (INDEX, FRAME, KIND, STAMP, ROW, COL)),
                   slots.state[:, :, :count], *place)


@dataclass
class Policy:
    """
    Which tokens stay when the cache is over budget.

    A subclass declares its hyper-parameters with :func:`option`, says which queries it wants
    attention from (:meth:`asks`), may keep running numbers with each token (:meth:`observe`), and
    chooses (:meth:`select`). It knows nothing of models, sessions or ROS.
    """

    name: ClassVar[str]
    scope: ClassVar[str] = 'all'         # who selects together: 'head', 'layer' or 'all'
    reduce: ClassVar[str] = 'mean'       # how heads (and layers) of one group are joined
    channels: ClassVar[int] = 0          # running numbers kept with each token
    sinks: ClassVar[int] = 0             # first tokens of the stream that always stay
    eager: ClassVar[bool] = False        # choose after every chunk, also under budget
    reserve: ClassVar[int] = 0           # tokens of text that the budget must hold with a frame
    reads: ClassVar[bool] = False        # chooses by keys and values
    among: ClassVar[Kind | None] = None  # kind of tokens that share out a window's attention
    retrieves: ClassVar[bool] = False    # questions see a part of the memory
    duplicate: ClassVar[float] = 0.0     # cosine from which a frame repeats the last; 0: none
    refuses: ClassVar[bool] = False      # never evicts: a chunk over budget is refused
    probe: ClassVar[str] = ''            # guidance text to run before choosing; '' for none
    probe_every: ClassVar[int] = 1       # chunks between two probes; 0: one before each choice

    budget: int | str = option(4096, 'tokens kept per layer, or a size such as "512MiB"')

    def __post_init__(self) -> None:
        """Check every hyper-parameter."""
        for spec in fields(self):
            if spec.name != 'budget':
                check_option(self, spec)
        if isinstance(self.budget, str):
            parse_bytes(self.budget)
        elif isinstance(self.budget, bool) or not isinstance(self.budget, int) or self.budget < 0:
            raise PolicyError(
                f'budget is {self.budget!r}, must be a number of tokens or a size such as '
                '"512MiB"')

    def asks(self, role: Role, chunk: Chunk) -> torch.Tensor | None:
        """Name the queries of a chunk whose attention is wanted: int64 [r] ascending, or None."""
        return None

    def observe(self, state: torch.Tensor, window: torch.Tensor, asked: torch.Tensor) -> None:
        """
        Take in the attention of a window.

        Parameters
        ----------
        state : torch.Tensor
            fp32 [channels, G, n], to be changed in place.
        window : torch.Tensor
            fp32 [G, n]: attention that each held token received, summed over the window's queries
            and joined over heads and layers as `reduce` says.
        asked : torch.Tensor
            fp32 [n]: how many of the window's queries could see each token.
        """

    def select(self, view: View) -> torch.Tensor:
        """Choose the slots that stay: int64 [G, m <= budget], ascending in each row."""
        raise NotImplementedError

    def select_all(self, views: Sequence[View]) -> list[torch.Tensor]:
        """Choose for all selection groups, from the first layer's on; here each by itself."""
        return [self.select(view) for view in views]

    def retrieve(self, view: View, content: Content, query: torch.Tensor) -> torch.Tensor:
        """
        Choose the slots that a question sees in one layer, if the policy `retrieves`.

        Parameters
        ----------
        view : View
        content : Content
            What the layer holds.
        query : torch.Tensor
            The question's queries, fp32 [H, q, D]: un-rotated, times the layer's scaling.

        Returns
        -------
        torch.Tensor
            int64 [m], ascending: the same for all heads.
        """
        raise NotImplementedError


def last(count: int, total: int) -> torch.Tensor:
    """Name the last `count` of `total` rows."""
    return torch.arange(max(0, total - count), total)


def share_of(recent: float, budget: int) -> int:
    """Count the recent tokens that stay, given as a share of the budget or, above 1, in tokens."""
    return int(recent * budget) if recent <= 1 else int(recent)


def keep_best(view: View, score: torch.Tensor, recent: int) -> torch.Tensor:
    """
    Keep the protected tokens, the most recent ones, and the best of those in between.

    Parameters
    ----------
    view : View
    score : torch.Tensor
        [G, n]: those with the highest stay.
    recent : int
        So many of the newest tokens stay, as far as the budget reaches.

    Returns
    -------
    torch.Tensor
        int64 [G, budget], ascending in each row.
    """
    recent = min(recent, view.budget - view.protected)
    room = view.budget - view.protected - recent
    old = slice(view.protected, view.count - recent)
    best = score[:, old].topk(room).indices.sort().values + view.protected
    slots = torch.arange(view.count, device=best.device).expand(len(best), -1)
    return torch.cat((slots[:, :view.protected], best, slots[:, view.count - recent:]), dim=1)
