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
What each layout of the memory takes and costs, and what it still knows.

All layouts take turns: at a frame, which the vision tower has seen beforehand, and at tokens of an
answer. Then each sits the memory exam of the bundled model, the same papers as the others; `lean`
does not, as its answers are those of `fast`.

    python -m benchmarks.layouts [--shape LLaVA-OneVision-0.5B] [--budget 4096] [--rounds 9]
    [--frames 3600] [--exam-budgets 192 384]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from infmllm_ros.bundled import MODEL, MODEL_POLICY
from infmllm_ros.engine import LAYOUTS, load_model, StreamingModel
from infmllm_ros.engine.budget import slot_bytes
from infmllm_ros.engine.layers import layer_specs
import torch

from .decode_speed import Ours, TOKENS
from .exam import fingerprint, hold, Ledger, Plan, Setting
from .frame_cost import keep_memory, see
from .shapes import picture, random_model, Seen, SHAPES
from .timing import by_turns, machine, milliseconds, parser, write


def measure(model: StreamingModel, budget: int, rounds: int) -> dict[str, Any]:
    """Time a frame and a token in every layout, by turns, at a full memory."""
    ours, seen = {}, Seen(model, picture())
    for layout in LAYOUTS:
        if layout == 'fused' and model.device.type == 'cpu':
            continue        # it is `lean`
        ours[layout] = Ours(model, 'saddle', budget, layout)
        ours[layout].read(budget)
        ours[layout].session.adapter = seen
    times = {
        'frame': by_turns({name: partial(see, one.session) for name, one in ours.items()},
                          rounds, 2, model.device),
        'token': by_turns({name: one.decode for name, one in ours.items()}, rounds, 1,
                          model.device)}
    specs = layer_specs(model.config.get_text_config(decoder=True))
    rows = {}
    for name, one in ours.items():
        token = milliseconds(times['token'][name])
        rows[name] = {
            'token_bytes': slot_bytes(specs, one.session.policy, model.dtype.itemsize, name),
            'kv_bytes': one.session.stats().kv_bytes, 'frame': milliseconds(times['frame'][name]),
            'token': {clock: round(value / TOKENS, 3) for clock, value in token.items()}}
    return {'budget': budget, 'rounds': rounds, 'tokens': len(seen.chunk),
            'dtype': str(model.dtype).removeprefix('torch.'), 'rows': rows}


def examine(model: StreamingModel, budgets: Sequence[int], frames: int, ledger: Ledger,
            ) -> dict[str, Any]:
    """Have every layout that says something of its own sit the memory exam."""
    fields = tuple(sorted(MODEL_POLICY.items())) if model.adapter.status else ()
    settings = [Setting(name, 'saddle', budget, fields, name) for budget in budgets
                for name, kind in LAYOUTS.items() if kind.quantised or name == 'fast']
    found, _ = hold(model, settings, Plan(frames), 1, ledger)
    rows = []
    for setting, streams in found.items():
        records = [record for stream in streams for record in stream]
        rows.append({'budget': setting.budget, 'layout': setting.layout, 'asked': len(records),
                     'right': sum(record['right'] for record in records)})
    return {'frames': frames, 'rows': rows}


def main() -> None:
    """Measure, examine, write."""
    options = parser(__doc__)
    options.add_argument('--shape', choices=SHAPES, default='LLaVA-OneVision-0.5B')
    options.add_argument('--budget', type=int, default=4096)
    options.add_argument('--rounds', type=int, default=9)
    options.add_argument('--frames', type=int, default=3600, help='of a stream of the exam')
    options.add_argument('--exam-budgets', type=int, nargs='*', default=[192, 384])
    options.add_argument('--work', type=Path, default=Path('build/layouts.jsonl'),
                         help='file of the papers sat so far (default: %(default)s)')
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()
    model = random_model(args.shape, dtype=getattr(torch, args.dtype))
    found = measure(model, args.budget, args.rounds)
    for name, row in found['rows'].items():
        print(f'{name:5} {row["token_bytes"]:7} bytes a token, frame '
              f'{row["frame"]["wall_ms"]:8.1f} ms, token {row["token"]["wall_ms"]:7.2f} ms',
              flush=True)
    exam = examine(load_model(MODEL), args.exam_budgets, args.frames,
                   Ledger(args.work, fingerprint(MODEL)))
    for row in exam['rows']:
        print(f'{row["layout"]:5} {row["budget"]:4} tokens: {row["right"]} of {row["asked"]}')
    write('speed_layouts', {'machine': machine(), 'shape': args.shape, **found, 'exam': exam},
          args.out)


if __name__ == '__main__':
    main()
