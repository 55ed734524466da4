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
FlexPrefill's choice for one head, slowly: token by token, from the listings of the paper.

Source: arXiv 2502.20766, algorithms 1 to 4, and the rules of the authors' code where a field says
so. It shares nothing with the engine but the names of the fields.
"""

from __future__ import annotations

import numpy as np


def softmax(logits):
    """Normalise a vector of logits."""
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def divergence(p, q):
    """Return the root of the Jensen-Shannon divergence, in nats."""
    def excess(x, y):
        return sum(a * np.log(a / b) for a, b in zip(x, y, strict=True) if a > 0)
    m = (p + q) / 2
    return np.sqrt(max(0.0, excess(p, m) / 2 + excess(q, m) / 2))


def pick(mass, flex, gamma, least, most):
    """Pick blocks of columns, or of distances, until they hold gamma: a set of numbers."""
    size = flex.block
    blocks = [mass[start:start + size].sum() for start in range(0, len(mass), size)]
    order = [0] + sorted(range(1, len(blocks)), key=lambda number: -blocks[number])
    if flex.count == 'blocks':
        wanted, total = 0, 0.0
        for number in order:
            wanted, total = wanted + 1, total + blocks[number]
            if total >= gamma:
                break
    else:
        lines, total = 0, 0.0
        for weight in sorted(mass, reverse=True):
            lines, total = lines + 1, total + weight
            if total >= gamma:
                break
        wanted = lines // size + 1
    return set(order[:min(max(wanted, least), most)])


def blocks_of_head(query, key, scaling, flex):
    """
    Choose the blocks of one head.

    Parameters
    ----------
    query, key : numpy.ndarray
        float64 [q, D] and [n, D]; the last q keys belong to the queries.
    scaling : float
    flex : FlexPrefill

    Returns
    -------
    bool, numpy.ndarray
        Whether the head is query-aware, and its blocks: bool [rows, blocks].
    """
    queries, held, size = len(query), len(key), flex.block
    past, count = held - queries, -(-held // size)
    spans = [range(j * size, min((j + 1) * size, held)) for j in range(count)]
    # representative attention: the last block of queries, each over what it sees
    last = range(max(0, queries - size), queries)
    columns, distances = np.zeros(held), np.zeros(held)
    for row in last:
        for place, weight in enumerate(softmax(key[:past + row + 1] @ query[row] * scaling)):
            columns[place] += weight / len(last)
            distances[past + row - place] += weight / len(last)
    means = np.stack([key[list(span)].mean(0) for span in spans])
    estimated = softmax(means @ query[list(last)].mean(0) * scaling)
    aware = divergence(estimated, np.array([columns[list(s)].sum() for s in spans])) < flex.tau
    # columns and diagonals
    most = min(count, -(-flex.max_budget // size)) if flex.max_budget else count
    least = min(most, -(-flex.min_budget // size))
    gamma = 0.0 if aware else flex.gamma
    picked_columns = pick(columns, flex, gamma, least, least if aware else most)
    picked_distances = pick(distances, flex, gamma, least, least if aware else most)
    first = past // size
    active = np.zeros((count - first, count), dtype=bool)
    for row in range(first, count):
        for column in picked_columns:
            active[row - first, column] = column <= row
        places = range(row * size, (row + 1) * size)
        for far in picked_distances:
            for distance in range(far * size, (far + 1) * size):
                for place in places if flex.slash == 'both' else places[-1:]:
                    if place >= distance:
                        active[row - first, (place - distance) // size] = True
    if aware:
        _add_query_aware(active, query, means, past, scaling, flex)
    return aware, active


def _add_query_aware(active, query, means, past, scaling, flex):
    """Add the blocks that hold gamma of the attention between means."""
    size, held = flex.block, past + len(query)
    first = past // size
    mass = {}
    for row in range(first, len(means)):
        span = range(max(row * size, past), min((row + 1) * size, held))
        mean = np.mean([query[place - past] for place in span], axis=0)
        for column, weight in enumerate(softmax(means[:row + 1] @ mean * scaling)):
            mass[row - first, column] = weight / len(active)
    total = 0.0
    for place in sorted(mass, key=lambda place: -mass[place]):
        active[place] = True
        total += mass[place]
        if total >= flex.gamma:
            break
