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

    python benchmarks/backlog.py [--frames 256] [--chunk 1280] [--budget 192] [--rounds 5]
    [--random [--layers 3]] [--set min_chunk=256 min_held=256 ...]
"""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from itertools import islice
import json
from pathlib import Path
import platform
from statistics import median
import tempfile
from time import process_time

from infmllm_ros.bundled import MODEL, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.bundled.tiny import make_tiny
from infmllm_ros.engine import FlexPrefill, load_model, make_policy, StreamingSession
from infmllm_ros.engine.models.source import quiet
import torch

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
def watched(adapter):
    """Count the processor seconds that an adapter spends on seeing frames."""
    spent, see = [0.0], adapter.see

    def timed(*args):
        start = process_time()
        try:
            return see(*args)
        finally:
            spent[0] += process_time() - start
    adapter.see = timed
    try:
        yield spent
    finally:
        del adapter.see


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
    parser.add_argument('--set', nargs='*', default=[], metavar='FIELD=VALUE',
                        help='fields of FlexPrefill')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kinds = {name: type(spec.default) for name, spec in FlexPrefill.__dataclass_fields__.items()}
    fields = dict(item.split('=', 1) for item in args.set)
    flex = FlexPrefill(**{name: kinds[name](value) for name, value in fields.items()})
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(
            random_model(Path(folder), args.layers) if args.random else MODEL, device='cpu')
    images = [step.frame for step in islice(Episode('drive', seed=0), args.frames)]
    stamps = [number * 10**9 for number in range(args.frames)]
    policy = MODEL_POLICY if model.adapter.status else {}
    sessions = {
        name: StreamingSession(
            model, make_policy('saddle', args.budget, **policy), max_question=32, max_answer=16,
            chunk=args.chunk, prefill=prefill)
        for name, prefill in (('one by one', None), ('many, dense', None), ('many, flex', flex))}
    sizes, passes, sparse = {name: [] for name in sessions}, [], []
    decoder = model.model.base_model
    decoder.register_forward_pre_hook(
        lambda _, __, inputs: passes.append(inputs['input_ids'].shape[1]), with_kwargs=True)
    attend = FlexPrefill.attend

    def counted(*inputs):
        sparse.append(1)
        return attend(*inputs)
    FlexPrefill.attend = counted
    times = {name: ([], []) for name in sessions}
    for _ in range(args.rounds + 1):        # the first warms up
        for name, session in sessions.items():
            session.reset()
            passes.clear()
            with watched(model.adapter) as seeing:
                start = process_time()
                if name == 'one by one':
                    for image, stamp in zip(images, stamps, strict=True):
                        session.observe(image, stamp)
                else:
                    session.observe_many(images, stamps)
                whole = process_time() - start
            sizes[name] = list(passes)
            times[name][0].append(seeing[0])
            times[name][1].append(whole - seeing[0])

    tokens = sum(sizes['one by one'])
    print(f'{platform.processor() or platform.machine()}, {args.threads} thread(s), torch '
          f'{torch.__version__}, {args.frames} frames, {tokens} tokens, budget {args.budget}, '
          f'chunk {args.chunk}, {len(sparse)} sparse layers\n')
    print(f'{"":12} {"passes":>6} {"longest":>7} {"vision ms":>10} {"prefill ms":>10} '
          f'{"vision":>7} {"prefill":>8} {"both":>6}')
    base = None
    for name, lists in times.items():
        seen, fed = (1e3 * median(values[1:]) / args.frames for values in lists)
        base = base or (seen, fed)
        print(f'{name:12} {len(sizes[name]):6} {max(sizes[name]):7} {seen:10.2f} {fed:10.2f} '
              f'{base[0] / seen:6.2f}x {base[1] / fed:7.2f}x {sum(base) / (seen + fed):5.2f}x')
    print('\nms a frame; the last columns: how many times faster than one by one')


if __name__ == '__main__':
    main()
