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
Show what a backlog of frames costs: observed one by one, and in few passes, dense or sparse.

The three ways take turns in one run; each number is a median over rounds of the processor time of
this process, all threads together. The bundled model sees frames of the bundled drive; `--random`
takes instead a model with random weights and the language model of SmolVLM-256M, fewer layers.

    python -m benchmarks.backlog [--frames 256] [--chunk 1280] [--budget 192] [--rounds 5]
    [--random [--layers 3]] [--set min_chunk=256 min_held=256 ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
import json
from pathlib import Path
from statistics import median
import tempfile
from time import process_time
from typing import Any
from unittest.mock import patch

from infmllm_ros.bundled import MODEL, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.engine import (
    FlexPrefill,
    load_model,
    make_policy,
    StreamingModel,
    StreamingSession,
)
from infmllm_ros.engine.models.source import quiet
import numpy as np
import torch

from .timing import add_flex, processor, read_flex

# SmolVLM-256M's language model and, as there, 64 tokens a frame; of its vision tower (12 layers of
# 768, 1,024 patches) a small likeness, whose share of the time says nothing about a real one's
TEXT = {'hidden_size': 576, 'intermediate_size': 1536, 'num_attention_heads': 9,
        'num_key_value_heads': 3, 'head_dim': 64, 'max_position_embeddings': 16384}
VISION = {'hidden_size': 192, 'intermediate_size': 768, 'num_hidden_layers': 2,
          'num_attention_heads': 3, 'image_size': 256, 'patch_size': 16}


def random_model(folder: Path, layers: int) -> Path:
    """Write a folder of a model with random weights and the shapes above."""
    from transformers import AutoConfig, SmolVLMForConditionalGeneration
    make_tiny('smolvlm', folder, num_hidden_layers=layers, **TEXT)
    config = AutoConfig.from_pretrained(folder)
    for name, value in VISION.items():
        setattr(config.vision_config, name, value)
    config.scale_factor = 2
    torch.manual_seed(0)
    with quiet():
        SmolVLMForConditionalGeneration(config).save_pretrained(folder, max_shard_size='99GB')
    (folder / 'model.safetensors.index.json').unlink()      # of the shards that are gone
    path = folder / 'preprocessor_config.json'
    side = {'longest_edge': VISION['image_size']}
    path.write_text(json.dumps({**json.loads(path.read_text()), 'max_image_size': side,
                                'video_sampling': {'video_size': side}}))
    return folder


@contextmanager
def watched(adapter: Any) -> Iterator[list[float]]:
    """Count the processor seconds that an adapter spends on seeing frames."""
    spent, see = [0.0], adapter.see

    def timed(*args: Any) -> Any:
        start = process_time()
        try:
            return see(*args)
        finally:
            spent[0] += process_time() - start
    with patch.object(adapter, 'see', timed):
        yield spent


@dataclass
class Way:
    """
    One way to take a backlog in: a session, and what it took in each round.

    Parameters
    ----------
    session : StreamingSession
    whole : bool
        Whether frames come together; else one by one.
    passes : list of int
        Tokens of each pass of the last round.
    seeing, feeding : list of float
        [s] Of each round: the vision tower, and all else.
    """

    session: StreamingSession
    whole: bool
    passes: list[int] = field(default_factory=list)
    seeing: list[float] = field(default_factory=list)
    feeding: list[float] = field(default_factory=list)

    def run(self, images: list[np.ndarray], stamps: list[int]) -> None:
        """Take a backlog in, and note the time."""
        self.session.reset()
        self.passes.clear()
        with watched(self.session.adapter) as seeing:
            start = process_time()
            if self.whole:
                self.session.observe_many(images, stamps)
            else:
                for image, stamp in zip(images, stamps, strict=True):
                    self.session.observe(image, stamp)
            spent = process_time() - start
        self.seeing.append(seeing[0])
        self.feeding.append(spent - seeing[0])


def measure(model: StreamingModel, frames: int, rounds: int, budget: int, chunk: int,
            flex: FlexPrefill) -> tuple[dict[str, Way], int]:
    """Let the three ways take turns; give them, and how many layers were computed sparsely."""
    images = [step.frame for step in islice(Episode('drive', seed=0), frames)]
    stamps = [number * 10**9 for number in range(frames)]
    fields = MODEL_POLICY if model.adapter.status else {}
    ways = {
        name: Way(StreamingSession(
            model, make_policy('saddle', budget, **fields), max_question=32, max_answer=16,
            chunk=chunk, prefill=prefill), whole)
        for name, whole, prefill in (('one by one', False, None), ('many, dense', True, None),
                                     ('many, flex', True, flex))}
    now: list[Way] = []
    hook = model.model.base_model.register_forward_pre_hook(
        lambda _, __, inputs: now[-1].passes.append(inputs['input_ids'].shape[1]),
        with_kwargs=True)
    try:
        with patch.object(FlexPrefill, 'attend', autospec=True,
                          side_effect=FlexPrefill.attend) as sparse:
            for _ in range(rounds + 1):     # the first warms up
                for way in ways.values():
                    now.append(way)
                    way.run(images, stamps)
            return ways, sparse.call_count
    finally:
        hook.remove()


def table(ways: dict[str, Way], frames: int) -> str:
    """Write passes and milliseconds a frame, and how many times faster than one by one."""
    lines = [f'{"":12} {"passes":>6} {"longest":>7} {"vision ms":>10} {"prefill ms":>10} '
             f'{"vision":>7} {"prefill":>8} {"both":>6}']
    base = None
    for name, way in ways.items():
        seen, fed = (1e3 * median(times[1:]) / frames for times in (way.seeing, way.feeding))
        base = base or (seen, fed)
        lines.append(
            f'{name:12} {len(way.passes):6} {max(way.passes):7} {seen:10.2f} {fed:10.2f} '
            f'{base[0] / seen:6.2f}x {base[1] / fed:7.2f}x {sum(base) / (seen + fed):5.2f}x')
    return '\n'.join([*lines, '',
                      'ms a frame; the last columns: how many times faster than one by one'])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=int, default=256)
    parser.add_argument('--chunk', type=int, default=1280, help='most tokens a pass')
    parser.add_argument('--budget', type=int, default=192)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--random', action='store_true', help='a larger model, random weights')
    parser.add_argument('--layers', type=int, default=3, help='of the random model')
    add_flex(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(
            random_model(Path(folder), args.layers) if args.random else MODEL, device='cpu')
    ways, sparse = measure(
        model, args.frames, args.rounds, args.budget, args.chunk, read_flex(args.set))
    tokens = sum(ways['one by one'].passes)
    print(f'{processor()}, {args.threads} thread(s), torch {torch.__version__}, {args.frames} '
          f'frames, {tokens} tokens, budget {args.budget}, chunk {args.chunk}, {sparse} sparse '
          f'layers\n\n{table(ways, args.frames)}')


if __name__ == '__main__':
    main()
