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
What a question and its answer see of a memory from which they retrieve.

Each layer sees slots of its own choice. Their keys are rotated where they lie, at positions
without gaps; the others are hidden. So retrieval costs no memory, and when the question is over,
the working copy of the keys is derived from the master again. Where keys are rotated in every pass
(layouts that keep no working copy), so are those that a layer shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .cache import StreamCache
from .policies import Policy, View


@dataclass
class _Sight:
    """What one layer shows: which slots are hidden, and how its positions lie."""

    hidden: torch.Tensor                # bool [capacity]
    skipped: int                        # hidden slots
    shift: int | torch.Tensor           # from a new token's place in the memory back to its own
    regimes: tuple[int, int]            # of LongRoPE: here, and in the memory


class Glance:
    """
    The view that questions have of a memory; opens with the first pass, until :meth:`close`.

    Parameters
    ----------
    cache : StreamCache
    policy : Policy
        One that `retrieves`.
    view : callable
        Group -> its View.
    """

    def __init__(self, cache: StreamCache, policy: Policy, view: Callable[[int], View]) -> None:
        self.cache, self.policy, self.view = cache, policy, view
        self._sights: dict[int, _Sight] = {}

    def look(self, number: int, query: torch.Tensor, scaling: float,
             ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Place what a layer shows, its chunk included; the first chunk asks for it.

        Parameters
        ----------
        number : int
            Of the layer.
        query : torch.Tensor
            The chunk's queries, [1, H, q, D], un-rotated.
        scaling : float
            Of the logits.

        Returns
        -------
        query : torch.Tensor
            Rotated, [1, H, q, D].
        hidden : torch.Tensor
            bool [K]: the slots that no query sees.
        """
        layer = self.cache.layers[number]
        # keys that several layers read lie at one place: the first of them chooses for all
        number = self.cache.layers.index(layer)
        slots = layer.slots
        if number not in self._sights:
            group = self.cache.slots.index(slots)
            full = self.cache.full.index(layer)
            content = next(c for c in self.cache.contents(slots) if c.layer == full)
            seen = self.policy.retrieve(
                self.view(group), content, query[0].float().to(self.cache.device) * scaling)
            hidden = torch.zeros(slots.capacity, dtype=torch.bool, device=query.device)
            hidden[:slots.count] = True
            hidden[seen.to(query.device)] = False
            self._sights[number] = _Sight(hidden, slots.count - len(seen), 0, (-1, -1))
        sight, total = self._sights[number], slots.count + slots.pending
        regimes = slots.rope.regime(total - sight.skipped), slots.regime
        if regimes != sight.regimes or not layer.lasting:
            shown = (~sight.hidden[:total]).nonzero()[:, 0]
            rotation, sight.shift = slots.packed(shown.to(self.cache.device), regimes[0])
            layer.place(shown, rotation)
            sight.regimes = regimes
            turn = tuple(part[:, -slots.pending:].to(query.device)
                         for part in rotation[layer.table])
        else:
            rotation = slots.shifted(sight.shift, regimes[0])
            layer.place(slice(slots.count, total), rotation)
            turn = tuple(part.to(query.device) for part in rotation[layer.table])
        return layer.rotate_query(query, turn), sight.hidden[:total].to(query.device)

    def close(self) -> None:
        """Show the whole memory again, at the positions that it had."""
        if self._sights:
            self._sights = {}
            self.cache.derive()
