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

"""A stream of frames and words through a model whose memory never grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import finite, intake, persist, retention, watching
from .answer import Answer, Frame, Stats
from .asking import Asking
from .attention import Pass, streaming
from .budget import make_plan, Settings
from .cache import StreamCache
from .chunk import both_ways, Chunk
from .decode import Sampling
from .duplicates import FrameFilter
from .glance import Glance
from .graphs import Graphs, recorded
from .models import StreamingModel
from .policies import Policy, Role
from .positions import NO_FRAME
from .rope import RopeMap
from .schema import Schema


class StreamingSession:
    """
    One memory over one model.

    Use it from one thread; only :meth:`Asking.cancel` may come from another. Every call leaves
    each full-attention layer with at most `budget` tokens. A call that fails, also in the midst of
    a forward pass, for lack of GPU memory or as its outcome is NaN or infinite (NotFiniteError),
    leaves the memory as it was, with three exceptions. Of a text or a backlog longer than `chunk`,
    the passes before that one stay. So does a question that is to be remembered and for which
    something was evicted already. If memory runs out while kept tokens are moved, all are lost.

    Parameters
    ----------
    model : StreamingModel
        From ``load_model``; it may serve several sessions in turn, and plain ``generate`` beside
        them.
    policy : Policy
        From ``make_policy``.
    **settings
        Fields of :class:`~infmllm_ros.engine.budget.Settings`.

    Raises
    ------
    BudgetError
        If the policy's budget is too small for system prompt, frame and question, or too large for
        the model's context.
    """

    def __init__(self, model: StreamingModel, policy: Policy, **settings: Any) -> None:
        self.model, self.policy, self.settings = model, policy, Settings(**settings)
        self.adapter, self.prompt = model.adapter, model.adapter.prompt
        self.vocabulary = model.config.get_text_config(decoder=True).vocab_size
        if model.rope is None:
            model.rope = RopeMap(model.model, model.adapter.spatial)
        model.rope.ranks.check(policy)
        self.plan = make_plan(model.spec, policy, model.dtype, self.settings,
                              model.rope.ranks.size, model.rope.places)
        self.cache = StreamCache(
            model.config.get_text_config(decoder=True), model.rope, self.plan.capacity,
            self.plan.headroom, self.adapter.max_extent, policy.scope, policy.channels,
            policy.reduce, model.dtype, model.device, self.settings.layout)
        self.prefix = self.prompt.prefix(self.settings.system_prompt)
        self.probe = Chunk(self.prompt.question(policy.probe)) if policy.probe else None
        self.glance = (Glance(self.cache, policy, partial(retention.view, self))
                       if policy.retrieves else None)
        self.graphs = Graphs.of(self) if self.settings.graphs else None
        self._asking: Asking | None = None
        self.forget()
        self._settle()

    # ---- in

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self._settle()
        self.forget()
        self._settle()

    def forget(self) -> None:
        """Forget the system prompt too, until the next call."""
        self.begun = False
        self.cache.clear()
        self.frames: dict[int, Frame] = {}
        self.newest: Frame | None = None
        self.filter = FrameFilter(self.policy.duplicate)
        self.frames_seen = self.frames_skipped = self.evictions = self.answers = self._chunks = 0
        self._first_stamp: int | None = None
        self.timings = dict.fromkeys(('vision_s', 'prefill_s', 'evict_s', 'decode_s'), 0.0)

    def observe(self, image: np.ndarray | torch.Tensor, stamp_ns: int = 0,
                camera: str = '') -> None:
        """
        Take a camera frame into the memory, unless the policy skips it as a duplicate.

        Parameters
        ----------
        image : numpy.ndarray or torch.Tensor
            RGB, uint8 [H, W, 3].
        stamp_ns : int
            When it was taken, in nanoseconds.
        camera : str
            Which camera took it.

        Raises
        ------
        FrameError
            If the image is not uint8 [H, W, 3] with H, W >= 1.
        ModelError
            If the model is text-only.
        NotFiniteError
            If the frame makes the model compute NaN or infinity.
        ContextFull
            Under the `full` policy.
        """
        self._settle()
        watching.observe(self, image, stamp_ns, camera)

    def observe_many(self, images: Sequence[np.ndarray | torch.Tensor], stamps_ns: Sequence[int],
                     cameras: str | Sequence[str] = '') -> None:
        """
        Take a backlog of frames into the memory, several in one forward pass.

        Whole frames share a pass as far as `chunk` tokens reach. Until something is evicted the
        memory is the same as after observing one by one; then it differs as it does with any
        other `chunk`: policies see attention, and evict, once a pass. All frames are checked
        before the first enters; if memory runs out in a later pass, those before it stay. A frame
        that comes to NaN or infinity is left out alone, and told when the others are in.

        Parameters
        ----------
        images, stamps_ns, cameras : sequence
            As for :meth:`observe`, one of each a frame; or one camera of all, as text.

        Raises
        ------
        FrameError
            As for :meth:`observe`, naming the frame; also if the numbers of images, stamps and
            cameras differ.
        ModelError
            If the model is text-only.
        NotFiniteError, ContextFull
            As for :meth:`observe`; the latter if they do not all fit.
        """
        self._settle()
        watching.observe_many(self, images, stamps_ns, cameras)

    def tell(self, text: str | Sequence[int] | torch.Tensor) -> None:
        """
        Take text, or token ids, into the memory.

        Raises
        ------
        TextError
            If it is neither, or an id is out of the vocabulary.
        ContextFull
            Under the `full` policy.
        """
        self._settle()
        retention.read(self, self.prompt.text(text) if isinstance(text, str)
                       else intake.token_ids(text, self.vocabulary))

    def logits(self, ids: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """
        Take token ids into the memory; return what the model predicts after each: [n, vocab].

        Raises
        ------
        TextError
            If an id is out of the vocabulary.
        ContextFull
            Under the `full` policy.
        """
        self._settle()
        return retention.read(self, intake.token_ids(ids, self.vocabulary), logits=True)

    # ---- out

    def ask(self, question: str, *, max_tokens: int | None = None, remember: bool | None = None,
            temperature: float = 0.0, top_p: float = 1.0, seed: int = 0,
            deadline_s: float | None = None, schema: str = '',
            frame: tuple[np.ndarray | torch.Tensor, int, str] | None = None) -> Asking:
        """
        Ask; iterate over the result to decode, piece by piece of text.

        Parameters
        ----------
        question : str
        max_tokens : int, optional
            Of the answer; at most, and by default, the session's `max_answer`.
        remember : bool, optional
            Whether question and answer stay in the memory; None: as the session was made. If not,
            the memory is rolled back bit for bit, also when the iteration is abandoned.
        temperature, top_p, seed
            See :class:`~infmllm_ros.engine.decode.Sampling`.
        deadline_s : float, optional
            Seconds from now by which the answer must be there: one that takes longer is cut short.
        schema : str
            JSON Schema that the answer must fit; see :class:`~infmllm_ros.engine.schema.Schema`.
        frame : tuple, optional
            (image, stamp_ns, camera), shown right before the question; stays if the question does.

        Raises
        ------
        QuestionError
            If the question is empty, a setting is out of range, or a frame comes to a session made
            without `question_frame`.
        QuestionTooLong
            If it has more than `max_question` tokens.
        ContextFull
            Under the `full` policy, if the question is to be remembered.
        """
        self._settle()
        max_tokens = intake.answer_length(max_tokens, self.settings.max_answer)
        remember = self.settings.remember if remember is None else remember
        ids = intake.question_ids(question, self.prompt, self.settings.max_question)
        sampling, deadline_s = Sampling(temperature, top_p, seed), intake.seconds(deadline_s)
        form = Schema(schema) if schema else None
        if remember:        # what is refused leaves no frame behind
            shown = watching.measure(self, *frame) if frame else 0
            retention.admit(self, shown + len(ids) + max_tokens + len(self.prompt.reopen()))
            if frame:
                self.observe(*frame)
        self._asking = Asking(self, Chunk(ids), max_tokens, remember, sampling, deadline_s, form,
                              None if remember else frame)
        return self._asking

    def answer(self, question: str, *, choices: Sequence[str] | None = None, **options: Any,
               ) -> Answer:
        """
        Ask and wait for the whole answer.

        With `choices` nothing is generated. The score of a choice c of n tokens after the
        question q is the mean log-probability of its tokens, so that a long choice is not punished
        for its length::

            score(c) = 1/n * sum over i of log p(c[i] | memory, q, c[:i])

        and `probabilities` is the softmax of the scores (docs/asking.md).

        Parameters
        ----------
        question : str
        choices : sequence of str, optional
            At least two.
        **options
            As for :meth:`ask`.

        Raises
        ------
        QuestionError
            Also if the choices are fewer than two, empty, repeated or longer than `max_answer`.
        """
        if choices is not None:
            intake.choice_ids(choices, self.prompt, self.settings.max_answer)  # before it enters
            return self.ask(question, **options).choose(choices)
        asking = self.ask(question, **options)
        for _ in asking:
            pass
        return asking.answer

    def kept(self, layer: int) -> torch.Tensor:
        """Stream indices of the tokens that a layer holds; see :meth:`StreamCache.kept`."""
        return self.cache.kept(layer)

    def set_budget(self, budget: int) -> None:
        """
        Change the budget [tokens] within the buffers; what no longer fits is evicted at once.

        Raises
        ------
        BudgetError
            If it is too small for what must fit, or too large for the buffers.
        ContextFull
            Under the `full` policy, if it holds more.
        """
        self._settle()
        retention.set_budget(self, budget)

    def stats(self) -> Stats:
        """Count what the memory holds."""
        return Stats.of(self)

    def save(self, path: str | Path, notes: Mapping[str, bytes] | None = None) -> None:
        """Write the memory, and whatever notes go with it, to a file, whole or not at all."""
        self._settle()
        persist.save(self, Path(path), notes or {})

    def restore(self, path: str | Path) -> dict[str, bytes]:
        """
        Put a saved memory in the place of this one; return the notes saved with it.

        MemoryFileError as for :meth:`load`, or if policy or system prompt differ: this one stays.
        """
        self._settle()
        return persist.restore(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, model: StreamingModel) -> StreamingSession:
        """Make a session from a saved memory; MemoryFileError if it is damaged or another's."""
        return persist.load(cls, Path(path), model)

    # ---- the pass over the cache

    @torch.no_grad()
    def feed(self, chunk: Chunk, role: Role, *, frames: Sequence[Frame] = (), logits: int = 0,
             evidence: bool = False, commit: bool = True,
             meanwhile: Callable[[], None] = lambda: None) -> torch.Tensor | None:
        """
        Prefill a chunk; the memory changes only if the whole pass succeeds.

        Parameters
        ----------
        chunk : Chunk
        role : Role
            Why it enters: the policy chooses its window by it.
        frames : sequence of Frame
            The frame of each token; none: text, stamped with the newest frame's stamp.
        logits : int
            How many of the last tokens' logits are wanted.
        evidence : bool
            Whether the last token's attention counts as evidence.
        commit : bool
            False: look, but leave no trace in the cache.
        meanwhile : Callable
            What to do before the outcome is waited for.

        Returns
        -------
        torch.Tensor or None
            [logits, vocab].
        """
        cache, device = self.cache, self.model.device
        counts = commit or role is Role.PROBE   # a choice that is only looked at has no vote
        rows = self.policy.asks(role, chunk) if counts else None
        rows = None if rows is None or not len(rows) else rows.to(device)
        ahead = both_ways(chunk, device) if self.adapter.both_ways else None
        newest = self.newest.stamp_ns if self.newest else 0
        cache.begin(chunk, torch.tensor([f.ordinal for f in frames] or NO_FRAME),
                    torch.tensor([f.stamp_ns for f in frames] or newest), rows is not None)
        stream = Pass(cache, rows, evidence, self.settings.prefill, self.policy.among,
                      self.glance if role in (Role.QUESTION, Role.ANSWER) else None, ahead,
                      self.adapter.both_ways == 'sliding')
        inputs: dict[str, Any] = {
            'input_ids': chunk.ids.to(device)[None], 'past_key_values': cache, 'use_cache': True,
            'position_ids': torch.zeros((3,) * cache.mrope + (1, len(chunk)), dtype=torch.long,
                                        device=device), 'stream': stream}
        if chunk.features is not None:
            inputs['mm_encoder_outputs'] = chunk.features
        past, out = cache.count, None
        try:
            with streaming(), recorded(self.graphs):
                if logits:
                    # places, as by a number Gemma 4 would skip the other queries of shared keys
                    last = torch.arange(len(chunk) - logits, len(chunk), device=device)
                    found = out = self.model.model(**inputs, logits_to_keep=last).logits[0]
                else:       # spares the product with the vocabulary
                    found = self.model.model.base_model(**inputs).last_hidden_state
            meanwhile()
            if role is not Role.ANSWER or not logits:   # those are read by who chooses from them
                finite.check(cache, found, role, frames)
            if commit:
                cache.commit()
        finally:
            cache.end()
        if rows is not None:
            retention.score(stream, self.policy, past, len(chunk))
        return out

    def _settle(self) -> None:
        """End a question that was left in the middle, and begin if that has not succeeded."""
        if self._asking is not None:
            self._asking.close()
            self._asking = None
        if not self.begun:
            retention.begin(self)
            self.begun = True
