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
Attention to un-rotated keys, by the kernel and by torch, beside the formula in float64.

The kernel is run where Triton is installed: on the GPU, or by its interpreter if there is none.
"""

import os
from pathlib import Path
import subprocess
import sys
from types import SimpleNamespace

from infmllm_ros.engine import fused  # noqa: I100
from infmllm_ros.engine.fused import attend_by_torch, attend_rotating
from kernel import CASES, HEADS, PROCESSORS
import numpy as np
import pytest
import torch

# of the output: exactly multiplied, and rounded to 11 and to 8 bits on the way
LIMITS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
# [bytes] that a program can share (CUDA programming guide, technical specifications): GeForce
# 30xx, where that is least, and H100
SHARED = {86: 99 * 1024, 90: 227 * 1024}


def turned(key, cos, sin, kind):
    """Turn keys [Hkv, K, D] as complex numbers, a pair of channels each."""
    key, size = key.copy(), cos.shape[-1]
    first, second = ((slice(0, size, 2), slice(1, size, 2)) if kind == 'interleaved'
                     else (slice(0, size // 2), slice(size // 2, size)))
    pairs = (key[..., first] + 1j * key[..., second]) * (cos + 1j * sin)[..., first]
    key[..., first], key[..., second] = pairs.real, pairs.imag
    return key


def by_formula(case):
    """Give the output [q, H, D] and the probabilities [Hkv, groups, q, K]."""
    query, master, value, cos, sin = (np.asarray(part.double()) for part in case.draw())
    key = turned(master[0], cos, sin, case.kind)
    query = query[0].reshape(HEADS, case.groups, case.queries, case.size)
    logits = np.einsum('hgqd,hkd->hgqk', query, key) * case.scaling
    last = np.arange(case.held - case.queries, case.held)[:, None]
    weights = np.where(np.arange(case.held) <= last, np.exp(logits), 0)
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum('hgqk,hkd->qhgd', weights, value[0])
    return mixed.reshape(case.queries, -1, case.size), weights


def check(case, out, window, final):
    expected, weights = by_formula(case)
    limit = LIMITS[case.dtype]
    assert (out.dtype, out.shape) == (case.dtype, (1, *expected.shape))
    assert np.abs(out[0].double().numpy() - expected).max() < limit
    if not case.asked:
        return
    assert np.abs(window.numpy() - weights[:, :, case.rows.numpy()].sum(2)).max() < limit
    assert np.abs(final.numpy() - weights[:, :, -1]).max() < limit


def elsewhere(what, file):
    """Let another process do it; give what it found."""
    pytest.importorskip('triton')
    subprocess.run([sys.executable, Path(__file__).with_name('kernel.py'), what, file], check=True,
                   env={**os.environ, 'TRITON_CACHE_DIR': str(file.parent)})    # compiles afresh
    return torch.load(file)


@pytest.fixture(scope='module')
def by_kernel(tmp_path_factory):
    """Run the kernel on each case."""
    return dict(zip(CASES, elsewhere('run', tmp_path_factory.mktemp('kernel') / 'found'),
                    strict=True))


@pytest.mark.parametrize('case', CASES, ids=str)
def test_the_kernel_does_what_the_formula_says(case, by_kernel):
    check(case, *by_kernel[case])


@pytest.mark.parametrize('case', CASES, ids=str)
def test_torch_does_what_the_formula_says(case):
    window, final = case.sums()
    out = attend_by_torch(*case.draw(), case.scaling, case.kind, case.rows, window, final)
    check(case, out, window, final)


def test_the_kernel_compiles_fits_and_fills_a_gpu(tmp_path):
    found = elsewhere('compile', tmp_path / 'found')
    assert {capability for capability, *_ in found} == set(SHARED)
    for capability, case, shared, programs in found:
        assert 0 < shared <= SHARED[capability], case
        assert programs >= PROCESSORS, case     # for a single query, too


def test_the_kernel_is_used_where_it_can_be(monkeypatch):
    case, used = CASES[1], []
    monkeypatch.setitem(sys.modules, 'infmllm_ros.engine.fused_kernel', SimpleNamespace(
        attend_fused=lambda *args: used.append(args)))
    inputs, (window, final) = (*case.draw(), case.scaling, case.kind), case.sums()
    assert torch.equal(attend_rotating(*inputs), attend_by_torch(*inputs)) and not used  # no GPU
    monkeypatch.setattr(fused, 'can_fuse', lambda *args: True)
    attend_rotating(*inputs, case.rows, window, final)
    assert len(used) == 1 and used[0][-1] is final
    # every query is asked: their probabilities are wanted, not the logits of all
    out = attend_rotating(*inputs, None, window)
    assert len(used) == 1 and out.shape == (1, case.queries, HEADS * case.groups, case.size)
    assert window.sum().item() == pytest.approx(case.queries * HEADS * case.groups, rel=1e-5)
