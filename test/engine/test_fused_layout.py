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
The `fused` layout: when the kernel attends, that the memory stays the same, and what if it fails.

A formula in float64 stands for the kernel, where there is no GPU; Triton's interpreter runs the
kernel itself where Triton is installed.
"""

from collections import Counter
import sys
from types import SimpleNamespace

from infmllm_ros.bundled import MODEL, MODEL_POLICY
from infmllm_ros.engine import (
    fused,
    load_model,
    make_policy,
    ModelError,
    store,
    StreamingSession,
)
import numpy as np
import pytest
from test_fused import elsewhere, turned
from test_layouts import live
import torch
from zoo import FAMILIES, load, POLICIES, session, show, words

NEAR = {'atol': 2e-5, 'rtol': 1e-4}


def by_formula(query, master, value, cos, sin, scaling, kind, rows=None, window=None, final=None):
    """Attend as the kernel does, in float64."""
    heads, held = master.shape[1:3]
    query, master, value, cos, sin = (
        np.asarray(part.detach().double()) for part in (query, master, value, cos, sin))
    key = turned(master[0], cos, sin, kind) if kind != 'none' else master[0]
    queries, size = query.shape[2:]
    logits = np.einsum('hgqd,hkd->hgqk', query.reshape(heads, -1, queries, size), key) * scaling
    last = np.arange(held - queries, held)[:, None]
    weights = np.where(np.arange(held) <= last, np.exp(logits - logits.max(-1, keepdims=True)), 0)
    weights /= weights.sum(-1, keepdims=True)
    for sums, asked in (window, rows), (final, [-1]):
        if sums is not None:
            sums += torch.from_numpy(weights[:, :, np.asarray(asked)].sum(2))
    mixed = np.einsum('hgqk,hkd->qhgd', weights, value[0])
    return torch.from_numpy(mixed.reshape(1, queries, -1, size)).float()


def pretend(monkeypatch, kernel=by_formula):
    """Say that there is a GPU; count what the kernel is asked."""
    used = Counter()

    def attend_fused(query, *args):
        rows, window, final = args[-3:]
        used[query.shape[2] == 1, window is not None, final is not None] += 1
        return kernel(query, *args)

    for module in (fused, store):
        monkeypatch.setattr(module, 'can_fuse', lambda *tensors: True)
    monkeypatch.setitem(sys.modules, 'infmllm_ros.engine.fused_kernel',
                        SimpleNamespace(attend_fused=attend_fused))
    return used


def alike(family, row):
    """Hold what came of a life in `fused` to the same in `lean`."""
    (lean, said), (other, also) = (live(family, row, layout) for layout in ('lean', 'fused'))
    *answers, chances, last = said
    for (ids, evidence), (other_ids, other_evidence) in zip(answers, also[:-2], strict=True):
        assert other_ids == ids
        assert dict(other_evidence) == pytest.approx(dict(evidence), abs=1e-4)
    assert also[-2] == pytest.approx(chances, abs=1e-4) and also[-1] == last
    for number, layer in other.cache.own.items():
        if isinstance(layer, store.KVLayer):
            assert other.cache.kept(number).equal(lean.cache.kept(number))
    asked = words(load(family), 12, 99)
    torch.testing.assert_close(other.logits(asked), lean.logits(asked), **NEAR)


def test_without_a_gpu_it_is_lean():
    (lean, said), (other, also) = (
        live('smolvlm', 'saddle', layout) for layout in ('lean', 'fused'))
    assert said == also and not other.cache.fresh()
    asked = words(lean.model, 12, 99)
    assert other.logits(asked).equal(lean.logits(asked))


@pytest.mark.parametrize('family', FAMILIES)
def test_the_memory_is_the_same_by_the_kernel(family, monkeypatch):
    used = pretend(monkeypatch)
    alike(family, 'saddle')
    assert used[False, False, False] and used[True, False, True]    # frames; tokens, with evidence


@pytest.mark.parametrize('row', POLICIES)
def test_the_memory_is_the_same_by_the_kernel_whoever_chooses(row, monkeypatch):
    pretend(monkeypatch)
    alike('smolvlm', row)


def test_the_kernel_attends_for_a_marker_window(monkeypatch):
    """Of a frame, its last token is asked."""
    used, model = pretend(monkeypatch), load_model(MODEL)
    targets = [StreamingSession(
        model, make_policy('saddle', 96, **MODEL_POLICY), max_question=32, max_answer=8,
        layout=layout) for layout in ('lean', 'fused')]
    for target in targets:
        for number in range(40):
            show(target, number)
    assert used[False, True, False] == 40 * len(target.cache.full)
    lean, other = (target.cache for target in targets)
    assert lean.kept(0).equal(other.kept(0)) and lean.evicted == other.evicted > 0


def test_the_kernel_is_tried_once_before_the_stream(monkeypatch):
    used = pretend(monkeypatch)
    target = session('smolvlm', 'saddle', layout='fused')
    layers = len(target.cache.full)
    tries = {(single, asked, asked): layers for single in (False, True) for asked in (False, True)}
    tries[False, False, False] += 2 * layers        # the sample itself, and the system prompt
    assert used == tries and not target.cache.fresh()
    target.reset()
    assert sum(used.values()) == sum(tries.values()) + layers       # the prompt alone


@pytest.mark.parametrize('wrong, what', [
    (lambda *args: by_formula(*args) * 1.1, 'is off by 0.1 of'),
    (lambda *args: by_formula(*args) * float('nan'), 'is off by nan of')])
def test_a_kernel_that_is_wrong_is_refused(wrong, what, monkeypatch):
    pretend(monkeypatch, wrong)
    with pytest.raises(ModelError, match=f"layout 'fused' {what}.*use the layout 'lean'"):
        session('smolvlm', 'saddle', layout='fused')


def test_a_kernel_whose_sums_are_wrong_is_refused(monkeypatch):
    def wrong(*args):
        if args[-1] is not None:
            args[-1].add_(.5)
        return by_formula(*args)

    pretend(monkeypatch, wrong)
    with pytest.raises(ModelError, match="layout 'fused' is off by"):
        session('smolvlm', 'saddle', layout='fused')


def test_a_kernel_that_fails_is_refused(monkeypatch):
    def fails(*args):
        raise RuntimeError('no such instruction\nand more of it')

    pretend(monkeypatch, fails)
    with pytest.raises(ModelError, match=r'fails here \(RuntimeError: no such instruction\): use'):
        session('smolvlm', 'saddle', layout='fused')


def test_lack_of_memory_is_not_the_kernel_s_fault(monkeypatch):
    def lacks(*args):
        raise torch.OutOfMemoryError('CUDA out of memory')

    pretend(monkeypatch, lacks)
    with pytest.raises(torch.OutOfMemoryError):
        session('smolvlm', 'saddle', layout='fused')


def test_a_session_runs_by_the_kernel_itself(tmp_path):
    for one, other in elsewhere('stream', tmp_path / 'found'):
        torch.testing.assert_close(one, other, **NEAR)
