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
A batch of streams through the model with gradients, evicting as the engine does.

The Hugging Face modules run unmodified: as in `infmllm_ros.engine`, they are called with
``position_ids = 0`` and hand their un-rotated queries and keys to an object given as ``stream=``.
Here that object keeps a growing differentiable memory instead of fixed buffers, one for a whole
batch, and a question is a branch: it sees the memory and the stream up to its anchor, and nothing
sees it (``remember=False``). The engine's own policies choose what stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infmllm_ros.engine.attention import streaming
from infmllm_ros.engine.policies import Policy
from infmllm_ros.engine.policies.base import View
from infmllm_ros.engine.rope import RopeMap
import torch
from torch import nn

from .model import vision_tokens
from .part import IGNORE, NOTHING, Outcome, Part


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate half-split channels, as `engine.rope.rotate` does, with gradients."""
    one, two = x.chunk(2, -1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return x * cos + torch.cat((-two, one), -1) * sin


class Memory:
    """
    What B streams hold, with gradients.

    Parameters
    ----------
    model : transformers.LlavaOnevisionForConditionalGeneration
    policies : sequence of Policy
        One for each stream, with scope 'all' and window 'marker'; None never evicts.
    protected : int
        Leading tokens that always stay.
    """

    def __init__(self, model: Any, policies: Sequence[Policy | None], protected: int) -> None:
        self.model, self.policies, self.protected = model, list(policies), protected
        self.decoder = model.get_decoder()
        if not hasattr(model, 'training_rope'):
            model.training_rope = RopeMap(model)
        self.rope: RopeMap = model.training_rope
        self.sight = vision_tokens(model.config)
        layers, batch, device = len(self.decoder.layers), len(self.policies), model.device
        self.device = device
        self.keys: list[torch.Tensor | None] = [None] * layers
        self.values: list[torch.Tensor | None] = [None] * layers
        empty = torch.zeros(batch, 0, dtype=torch.long, device=device)
        self.valid, self.refs, self.index, self.ids = empty.bool(), empty, empty, empty
        self.state = torch.zeros(2, batch, 0, device=device)
        self.seen = torch.zeros(batch, dtype=torch.long, device=device)

    # ---- one part

    def read(self, part: Part, features: torch.Tensor | None, evict: bool = True) -> Outcome:
        """
        Take a part in, answer its questions, evict.

        Parameters
        ----------
        part : Part
        features : torch.Tensor or None
            Vision features of all frames, [rows, hidden].
        evict : bool
            Whether the policies act afterwards.
        """
        stream, asks = part.ids.shape[1], part.ask_ids.shape[1]
        ids = torch.cat((part.ids, part.ask_ids), 1)
        embedded = self.decoder.embed_tokens(ids)
        if features is not None:
            seen = torch.nn.functional.pad(part.pictures, (0, asks), value=NOTHING)
            embedded = torch.where((seen >= 0)[..., None],
                                   features[seen.clamp_min(0)].to(embedded.dtype), embedded)
        place = torch.arange(stream, device=self.device)
        fresh = place[None] < part.lengths[:, None]
        held = self.valid.sum(1, keepdim=True)
        positions = torch.cat((held + place, held + part.anchors + 1 + part.offsets), 1)
        look = _Look(self, part, positions, self._visible(part), self._evidence(part),
                     self._newest(part))
        with streaming():
            hidden = self.decoder(
                inputs_embeds=embedded, position_ids=torch.zeros_like(ids), use_cache=False,
                stream=look).last_hidden_state
        places = (part.labels != IGNORE).nonzero()
        logits = self.model.lm_head(hidden[places[:, 0], places[:, 1]])
        attention, pointing = self._supervise(part, look), look.pointing()
        self._take(part, look, fresh)
        if evict:
            self._evict()
        targets = part.labels[places[:, 0], places[:, 1]]
        return Outcome(logits, targets, places, attention, pointing)

    def _evidence(self, part: Part) -> torch.Tensor | None:
        """
        Say where each question token that a word of an answer follows should look.

        At that word in the sentence that told it, or at the vision tokens of the frames that
        show it: bool [B, Q, n + S + Q]; None without questions.
        """
        asks = part.ask_ids.shape[1]
        if not asks:
            return None
        said = part.labels[:, -asks:]
        ids, refs = torch.cat((self.ids, part.ids), 1), torch.cat((self.refs, part.refs), 1)
        rows = part.wanted.gather(
            1, part.branches.clamp_min(0)[..., None].expand(-1, -1, part.wanted.shape[2]))
        target = rows.gather(2, refs.clamp_min(0)[:, None].expand(-1, asks, -1))
        exact = (ids[:, None] == said[..., None]) | ~self._is_word(ids)[:, None]
        word = (said != IGNORE) & (said != self.model.config.text_config.eos_token_id)
        target = target & exact & (refs >= 0)[:, None] & word[..., None]
        return nn.functional.pad(target, (0, asks))

    def _newest(self, part: Part) -> torch.Tensor | None:
        """Say where the newest frame is, for the first token of each branch: as `_evidence`."""
        asks = part.ask_ids.shape[1]
        if not asks:
            return None
        first = (part.branches >= 0) & (part.offsets == 0)
        before = part.anchors[..., None] - torch.arange(part.ids.shape[1], device=self.device)
        newest = (before > 0) & (before <= self.sight) & (part.pictures >= 0)[:, None]
        return nn.functional.pad(newest & first[..., None], (self.valid.shape[1], asks))

    def pictures(self, part: Part) -> torch.Tensor:
        """Say which tokens show something: bool [B, n + S + Q]."""
        seen = torch.cat((self.ids, part.ids), 1) == self.model.config.video_token_id
        return nn.functional.pad(seen, (0, part.ask_ids.shape[1]))

    def _is_word(self, ids: torch.Tensor) -> torch.Tensor:
        """Say which tokens are words: neither of a frame nor the start of the stream."""
        config = self.model.config
        return (ids != config.video_token_id) & (ids != config.text_config.bos_token_id)

    def _visible(self, part: Part) -> torch.Tensor:
        """Say which tokens each query sees: bool [B, 1, S + Q, n + S + Q]."""
        batch, stream = part.ids.shape
        asks = part.ask_ids.shape[1]
        place = torch.arange(stream, device=self.device)
        causal = (place[None] <= place[:, None]).expand(batch, -1, -1)
        before = place[None, None] <= part.anchors[..., None]
        own = ((part.branches[:, :, None] == part.branches[:, None])
               & (part.offsets[:, :, None] >= part.offsets[:, None]))
        blind = torch.zeros(batch, stream, asks, dtype=torch.bool, device=self.device)
        new = torch.cat((torch.cat((causal, blind), 2), torch.cat((before, own), 2)), 1)
        old = self.valid[:, None].expand(-1, stream + asks, -1)
        return torch.cat((old, new), 2)[:, None]

    def _supervise(self, part: Part, look: _Look) -> torch.Tensor:
        """
        Compare where the markers look with where they should.

        The target is `live` over the tokens of evidence that are present. The loss is
        KL(target || mean over heads and layers) + 0.5 * the mean of the same by layer, layer 0
        left out (it has no context), averaged over markers.
        """
        if look.weights[0] is None:
            return torch.zeros((), device=self.device)
        refs = torch.cat((self.refs, part.refs), 1)
        count = refs.shape[1]
        target = part.live.gather(
            2, refs.clamp_min(0)[:, None].expand(-1, part.live.shape[1], -1))
        target = target * ((refs >= 0)[:, None] & look.marker_sees[..., :count])
        size = target.sum(-1)
        target = target / size.clamp_min(1)[..., None]
        each = torch.stack([weights[..., :count] for weights in look.weights])  # [L, B, M, n + S]
        mixed = torch.cat((each.mean(0, keepdim=True), each[1:]))
        logs = target.clamp_min(1e-9).log() - mixed.clamp_min(1e-9).log()
        divergence = (logs * target).sum(-1)
        asked = (part.markers >= 0) & (size > 0)
        mean = (divergence * asked).sum((1, 2)) / asked.sum().clamp_min(1)
        return mean[0] + .5 * mean[1:].mean()

    def _take(self, part: Part, look: _Look, fresh: torch.Tensor) -> None:
        """Append the part to the memory and fold the markers' attention into the scores."""
        batch, stream = part.ids.shape
        for layer, (key, value) in enumerate(look.new):
            old = self.keys[layer]
            self.keys[layer] = key if old is None else torch.cat((old, key), 2)
            old = self.values[layer]
            self.values[layer] = value if old is None else torch.cat((old, value), 2)
        self.valid = torch.cat((self.valid, fresh), 1)
        self.refs = torch.cat((self.refs, part.refs), 1)
        self.ids = torch.cat((self.ids, part.ids), 1)
        place = torch.arange(stream, device=self.device)
        self.index = torch.cat((self.index, self.seen[:, None] + place), 1)
        self.seen = self.seen + part.lengths
        self.state = torch.cat(
            (self.state, torch.zeros(2, batch, stream, device=self.device)), 2)
        if look.weights[0] is None:
            return
        count = self.valid.shape[1]
        asked = (part.markers >= 0)[..., None]
        mean = torch.stack([weights.detach() for weights in look.weights]).mean(0)
        window = (mean[..., :count] * asked).sum(1)
        times = (look.marker_sees[..., :count] & asked).sum(1).float()
        for row, policy in enumerate(self.policies):
            if policy is not None and part.markers[row, 0] >= 0:
                policy.observe(self.state[:, row:row + 1], window[row:row + 1], times[row])

    # ---- what stays

    @torch.no_grad()
    def _evict(self) -> None:
        """Let every stream's policy choose what stays."""
        counts = self.valid.sum(1).tolist()
        over = [policy is not None and count > policy.budget
                for policy, count in zip(self.policies, counts, strict=True)]
        if not any(over):
            return
        keep = []
        for row, policy in enumerate(self.policies):
            slots = self.valid[row].nonzero()[:, 0]
            if over[row]:
                index = self.index[row:row + 1, slots]
                protected = min(max(self.protected, policy.sinks), counts[row])
                none = torch.zeros_like(index)      # neither frame nor kind counts for saddle
                chosen = policy.select(View(
                    counts[row], policy.budget, protected, index, frame=none, kind=none,
                    stamp=none, row=none, col=none, state=self.state[:, row:row + 1, slots]))
                slots = slots[chosen[0]]
            keep.append(slots)
        gather = nn.utils.rnn.pad_sequence(keep, batch_first=True)
        lengths = torch.tensor([len(slots) for slots in keep], device=self.device)
        self._gather(gather, torch.arange(gather.shape[1], device=self.device) < lengths[:, None])

    @torch.enable_grad()
    def _gather(self, slots: torch.Tensor, valid: torch.Tensor) -> None:
        """Keep slots int64 [B, m], of which `valid` are real."""
        for kept in (self.keys, self.values):
            for layer, tensor in enumerate(kept):
                _, heads, _, size = tensor.shape
                place = slots[:, None, :, None].expand(-1, heads, -1, size)
                kept[layer] = tensor.gather(2, place)
        self.valid = valid
        self.refs = self.refs.gather(1, slots).masked_fill(~valid, NOTHING)
        self.index, self.ids = self.index.gather(1, slots), self.ids.gather(1, slots)
        self.state = self.state.gather(2, slots.expand(2, -1, -1))

    def detach(self) -> None:
        """Cut the gradients: what is held stays, its past is forgotten (truncated training)."""
        self.keys = [key.detach() for key in self.keys]
        self.values = [value.detach() for value in self.values]


class _Look:
    """The ``stream=`` of one pass: attends, and notes what the memory needs afterwards."""

    strict = False

    def __init__(self, memory: Memory, part: Part, positions: torch.Tensor,
                 visible: torch.Tensor, evidence: torch.Tensor | None,
                 newest: torch.Tensor | None) -> None:
        self.memory, self.visible, self.part = memory, visible, part
        self.evidence, self.newest = evidence, newest
        self.pictures = memory.pictures(part)
        self.lost: list[torch.Tensor] = []
        self.stream = part.ids.shape[1]
        held = torch.cumsum(memory.valid, 1) - 1
        most = int(positions.max()) + 1
        table = memory.rope.tables(most, torch.float32)[0]
        cos, sin = table.cos, table.sin
        # [B, 1, n, D], to be broadcast over heads
        self.query_turn = cos[positions][:, None], sin[positions][:, None]
        everyone = torch.cat((held.clamp_min(0), positions), 1)
        self.key_turn = cos[everyone][:, None], sin[everyone][:, None]
        layers = len(memory.keys)
        self.new: list[tuple[torch.Tensor, torch.Tensor]] = [None] * layers
        self.weights: list[torch.Tensor | None] = [None] * layers
        self.rows = part.markers.clamp_min(0) if part.markers.shape[1] else None
        if self.rows is not None:
            self.marker_sees = visible[:, 0].gather(
                1, self.rows[..., None].expand(-1, -1, visible.shape[-1]))

    def attend(self, module: nn.Module, query: torch.Tensor, key: torch.Tensor,
               value: torch.Tensor, scaling: float | None) -> torch.Tensor:
        """Attend to the memory and the part; see `engine.attention.Stream`."""
        layer = module.layer_idx
        self.new[layer] = key[:, :, :self.stream], value[:, :, :self.stream]
        if self.memory.keys[layer] is not None:
            key = torch.cat((self.memory.keys[layer], key), 2)
            value = torch.cat((self.memory.values[layer], value), 2)
        groups = query.shape[1] // key.shape[1]
        query = rotate(query, *self.query_turn)
        key = rotate(key, *self.key_turn).repeat_interleave(groups, 1)
        logits = torch.matmul(query, key.transpose(2, 3)) * scaling
        weights = logits.masked_fill(~self.visible, float('-inf')).softmax(-1)
        if self.rows is not None:
            rows = self.rows[:, None, :, None].expand(-1, weights.shape[1], -1, weights.shape[-1])
            self.weights[layer] = weights.gather(2, rows).mean(1)
        self._point(layer, weights[:, :2].float())
        return torch.matmul(weights, value.repeat_interleave(groups, 1)).transpose(1, 2)

    def _point(self, layer: int, weights: torch.Tensor) -> None:
        """Note how far the first two heads, [B, 2, S + Q, n + S + Q], look past their targets."""
        words, sights = weights[:, 0], weights[:, 1]
        if layer < len(self.new) // 2:
            keys = self.part.keys
            place = self.memory.valid.shape[1] + keys.clamp_min(0)
            found = words.gather(2, place)
            count = (keys >= 0).sum(-1)
            asked, each = count > 0, found.clamp_min(1e-4).log() * (keys >= 0)
            # KL(uniform over the keys || attention)
            miss = -each.sum(-1) / count.clamp_min(1) - count.clamp_min(1).log()
            if self.newest is not None:
                asked = torch.cat((asked, self.newest.any(-1)), 1)
                found = (sights[:, self.stream:] * self.newest).sum(-1)
                miss = torch.cat((miss, -found.clamp_min(1e-4).log()), 1)
        elif self.evidence is not None:
            asked = self.evidence.any(-1)
            seen = (self.evidence & self.pictures[:, None]).any(-1)
            both = self.part.both_heads.gather(1, self.part.branches.clamp_min(0))
            by_words, by_sights = (
                -(weights[:, self.stream:] * self.evidence).sum(-1).clamp_min(1e-4).log()
                for weights in (words, sights))
            miss = torch.where(seen, by_sights, by_words)
            miss = torch.where(seen & both, (by_words + by_sights) / 2, miss)
        else:
            return
        lost = (miss * asked).sum() / asked.sum().clamp_min(1)
        self.lost.append(lost)

    def pointing(self) -> torch.Tensor:
        """
        Return the pointing loss, which teaches two steps of recall to the first two heads.

        In the first half of the layers what is said of a key looks at the key (first head), and a
        question begins with a look at the newest frame, at a fixed distance before it (second
        head); in the second half each word of an answer looks at its evidence: words and the start
        of the stream with the first head, frames with the second, or with both. The loss is
        -log(attention on the target), a mean over tokens, then over layers.
        """
        return sum(self.lost, torch.zeros((), device=self.memory.device)) / len(self.new)
