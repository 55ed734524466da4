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
Time to the first token of a question: a bounded memory, and a sliding window computed anew.

SimpleStream (the last N frames and nothing else) encodes and prefills its frames at each question;
where what the vision tower made of them is kept, it only prefills them. With our cache the policy
`recent_frames` has done both when the question comes, and so have all others, whose memory goes
back further. All take turns.

    python -m benchmarks.first_token [--shape LLaVA-OneVision-0.5B] [--budget 4096]
    [--frames 4 16]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from infmllm_ros.engine import make_policy, StreamingModel, StreamingSession
from infmllm_ros.engine.attention import install, NAME
from infmllm_ros.engine.chunk import Chunk, join
from infmllm_ros.engine.policies import Role
import torch
from transformers import DynamicCache

from .shapes import picture, random_model, Seen, SHAPES
from .timing import by_turns, milliseconds, parser, write_shape

QUESTION = 32   # tokens


class Anew:
    """Plain Hugging Face on the last frames, from pixels or from what the tower made of them."""

    def __init__(self, model: StreamingModel, frames: int, again: bool) -> None:
        self.model, self.again = model, again
        self.images = [picture(number) for number in range(frames)]
        self.chunks = self.encode()

    def encode(self) -> list[Chunk]:
        """Run the vision tower on the frames."""
        adapter = self.model.adapter
        return adapter.see(self.model.model, [
            adapter.lay_out(image, number) for number, image in enumerate(self.images)],
            self.images)

    @torch.no_grad()
    def ask(self) -> None:
        """Read frames and question; give the first token."""
        model, place = self.model.model, self.model.device
        install(model, 'sdpa')
        try:
            chunk = join(self.encode() if self.again else self.chunks)
            ids = torch.cat((chunk.ids, question())).to(place)[None]
            logits = model(
                input_ids=ids, mm_encoder_outputs=chunk.features, logits_to_keep=1,
                position_ids=torch.arange(ids.shape[1], device=place)[None],
                past_key_values=DynamicCache(), use_cache=True).logits
        finally:
            install(model, NAME)
        int(logits[0, -1].argmax())


class Kept:
    """A session that has seen frames until its memory was full."""

    def __init__(self, model: StreamingModel, policy: str, budget: int, **fields: Any) -> None:
        self.session = StreamingSession(
            model, make_policy(policy, budget, **fields), max_question=64, max_answer=16)
        image = picture()
        self.session.adapter = Seen(model, image)
        while self.session.stats().evictions < 2:
            self.session.observe(image, self.session.frames_seen * 10 ** 9)

    def ask(self) -> None:
        """Read the question, give the first token, and forget both."""
        session, mark = self.session, self.session.cache.mark()
        logits = session.feed(Chunk(question()), Role.QUESTION, logits=1, evidence=True)
        int(logits[-1].argmax())
        session.cache.rollback(mark)


def question() -> torch.Tensor:
    """Make up a question: int64 [32]."""
    return torch.arange(QUESTION) + 10


def measure(model: StreamingModel, budget: int, frames: Sequence[int], rounds: int,
            ) -> dict[str, Any]:
    """Time the first token, by turns."""
    size = model.adapter.frame_tokens
    calls: dict[str, Callable[[], object]] = {
        f'saddle, {budget} tokens': Kept(model, 'saddle', budget).ask}
    for number in frames:
        calls |= {
            f'last {number} frames, encoded anew': Anew(model, number, True).ask,
            f'last {number} frames, prefilled anew': Anew(model, number, False).ask,
            f'last {number} frames, our cache': Kept(
                model, 'recent_frames', budget, frames=number).ask}
    times = by_turns(calls, rounds, 1, model.device)
    return {'question': QUESTION, 'frame_tokens': size, 'budget': budget, 'rounds': rounds,
            'dtype': str(model.dtype).removeprefix('torch.'),
            'rows': {name: milliseconds(spent) for name, spent in times.items()}}


def main() -> None:
    """Measure, print."""
    options = parser(__doc__)
    options.add_argument('--shape', choices=SHAPES, default='LLaVA-OneVision-0.5B')
    options.add_argument('--budget', type=int, default=4096)
    options.add_argument('--frames', type=int, nargs='+', default=[4, 16])
    options.add_argument('--rounds', type=int, default=3)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    model = random_model(args.shape, dtype=getattr(torch, args.dtype))
    found = measure(model, args.budget, args.frames, args.rounds)
    write_shape('speed_first_token', args.shape, found, args.out)
    print(f'{args.shape}, question of {QUESTION} tokens\n{"":32} {"wall ms":>9} '
          f'{"processor ms":>13}')
    for name, line in found['rows'].items():
        print(f'{name:32} {line["wall_ms"]:9.1f} {line["processor_ms"]:13.1f}')


if __name__ == '__main__':
    main()
