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
Decoding: ours, whose memory is bounded, and plain Hugging Face, whose cache grows with the stream.

A row is a length of stream. Ours has read it all, and holds what its budget allows. Hugging Face's
caches are filled with random keys and values of that length, which take as long to attend to as
others. Each turn decodes some tokens greedily and then forgets them. Its weights lie as it loads
them; 'static, packed' are ours (`pack`), with which the cache alone makes the difference.

    python -m benchmarks.decode_speed [--shape LLaVA-OneVision-0.5B] [--budget 4096]
    [--lengths 1024 2048 4096 8192 16384] [--compile 4096]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from infmllm_ros.engine import make_policy, StreamingModel, StreamingSession
from infmllm_ros.engine.attention import install, NAME
from infmllm_ros.engine.chunk import Chunk
from infmllm_ros.engine.layers import layer_specs
from infmllm_ros.engine.policies import Role
import torch
from transformers import DynamicCache, StaticCache

from .shapes import random_model, SHAPES
from .timing import by_turns, milliseconds, parser, write_shape

TOKENS = 8      # of a turn


class Ours:
    """A session that has read so many tokens."""

    def __init__(self, model: StreamingModel, policy: str, budget: int, layout: str = 'fast',
                 ) -> None:
        self.session = StreamingSession(
            model, make_policy(policy, budget), max_question=64, max_answer=64, chunk=512,
            layout=layout)

    def read(self, length: int) -> None:
        """Read on until the stream is so long."""
        more = length - self.session.stats().tokens_seen
        self.session.tell(torch.arange(more) % 1000)

    def decode(self, tokens: int = TOKENS) -> None:
        """Decode greedily as an answer is decoded, and forget it."""
        session, token = self.session, 1
        mark = session.cache.mark()
        for _ in range(tokens):
            logits = session.feed(
                Chunk(torch.tensor([token])), Role.ANSWER, logits=1, evidence=True)
            token = int(logits[-1].argmax())
        session.cache.rollback(mark)


class Plain:
    """Hugging Face's model and one of its caches, filled to a length."""

    def __init__(self, model: StreamingModel, length: int, attention: str, static: bool,
                 step: Callable[..., Any] | None = None) -> None:
        self.model, self.attention = model, attention
        self.step, self.length = step or model.model, length
        config = model.config.get_text_config(decoder=True)
        self.cache = (StaticCache(config=config, max_cache_len=length + 2 * TOKENS) if static
                      else DynamicCache(config=config))
        for number, spec in enumerate(layer_specs(config)):
            keys, values = torch.randn(2, 1, spec.heads, length, spec.size, dtype=model.dtype,
                                       device=model.device)
            self.cache.update(keys, values, number)

    @torch.no_grad()
    def decode(self, tokens: int = TOKENS) -> None:
        """Decode greedily, and forget it."""
        install(self.model.model, self.attention)
        place, token = self.model.device, torch.ones(1, 1, dtype=torch.long)
        for number in range(self.length, self.length + tokens):
            out = self.step(
                input_ids=token.to(place), past_key_values=self.cache, use_cache=True,
                position_ids=torch.full((1, 1), number, device=place))
            token = out.logits[:, -1:].argmax(-1)
            int(token)
        install(self.model.model, NAME)
        self.forget(tokens)

    def forget(self, tokens: int) -> None:
        """Take the cache back to its length."""
        for layer in self.cache.layers:
            if isinstance(self.cache, StaticCache):
                layer.cumulative_length.fill_(self.length)
            else:
                layer.crop(-tokens)


def compiled(model: StreamingModel, length: int) -> tuple[Plain, float]:
    """Compile the decoding step over a static cache; seconds that it took."""
    start = perf_counter()
    install(model.model, 'sdpa')
    plain = Plain(model, length, 'sdpa', True, torch.compile(model.model.forward))
    plain.decode()
    return plain, perf_counter() - start


def measure(model: StreamingModel, plain: StreamingModel, policy: str, budget: int,
            lengths: Sequence[int], rounds: int, compile_at: Sequence[int] = ()) -> dict[str, Any]:
    """Time a token at each length of stream, by turns; `plain` has weights as they were."""
    rows, ours = {}, Ours(model, policy, budget)
    for length in lengths:
        ours.read(length)
        rivals = {'ours': ours, 'eager': Plain(plain, length, 'eager', False),
                  'sdpa': Plain(plain, length, 'sdpa', False),
                  'static': Plain(plain, length, 'sdpa', True),
                  'static, packed': Plain(model, length, 'sdpa', True)}
        row: dict[str, Any] = {'held': ours.session.stats().tokens}
        if length in compile_at:
            rivals['static, compiled'], row['compile_s'] = compiled(plain, length)
        times = by_turns({name: rival.decode for name, rival in rivals.items()}, rounds, 1,
                         model.device)
        row['ms'] = {name: {clock: round(value / TOKENS, 3) for clock, value in
                            milliseconds(spent).items()} for name, spent in times.items()}
        rows[length] = row
        print(length, row, flush=True)
    return {'budget': budget, 'policy': policy, 'rounds': rounds, 'tokens': TOKENS,
            'dtype': str(model.dtype).removeprefix('torch.'), 'lengths': rows}


def main() -> None:
    """Measure, print."""
    options = parser(__doc__)
    options.add_argument('--shape', choices=SHAPES, default='LLaVA-OneVision-0.5B')
    options.add_argument('--policy', default='saddle')
    options.add_argument('--budget', type=int, default=4096)
    options.add_argument('--lengths', type=int, nargs='+',
                         default=[1024, 2048, 4096, 8192, 16384])
    options.add_argument('--compile', type=int, nargs='*', default=[], metavar='LENGTH',
                         help='lengths at which StaticCache is compiled, too')
    options.add_argument('--rounds', type=int, default=9)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    model, plain = (random_model(args.shape, dtype=getattr(torch, args.dtype), packed=packed)
                    for packed in (True, False))
    found = measure(
        model, plain, args.policy, args.budget, args.lengths, args.rounds, args.compile)
    write_shape('speed_decode', args.shape, found, args.out)
    names = max((row['ms'] for row in found['lengths'].values()), key=len)
    print(f'\nms a token, wall (processor)\n{"stream":>7} {"held":>6} '
          + ' '.join(f'{name:>18}' for name in names))
    for length, row in found['lengths'].items():
        cells = (row['ms'].get(name) for name in names)
        print(f'{length:>7} {row["held"]:>6} ' + ' '.join(
            f'{cell["wall_ms"]:>9.1f} ({cell["processor_ms"]:6.1f})' if cell else f'{"-":>18}'
            for cell in cells))


if __name__ == '__main__':
    main()
