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
One process of several that share out a model's heads; `test_parallel.py` starts them.

``python -m torch.distributed.run --nproc-per-node 2 ranks.py CASES FOLDER`` lives through each
case of a JSON file and writes to the folder what came of it, a file a rank.
"""

import json
from pathlib import Path
import sys

from infmllm_ros.engine import load_model, ModelError, StreamingSession
import torch
import zoo

BUDGET = 128
ROUNDS = 7


def live(model, row, fields, layout='fast'):
    """Live through words, frames and questions with evictions; tell what came of it."""
    target = StreamingSession(
        model, zoo.policy(row, BUDGET, **fields), system_prompt='Be brief.', max_question=48,
        max_answer=16, chunk=32, layout=layout)
    answers = []
    for number in range(ROUNDS):
        if model.adapter.sees:
            zoo.show(target, number)
        target.tell(zoo.words(model, 5 + 7 * (number % 4), number))
        answer = target.answer('Where is it?', max_tokens=4, remember=number % 2 == 0)
        answers.append((answer.token_ids, [(e.frame, e.weight) for e in answer.evidence]))
    chosen = target.answer('Is it red?', choices=['yes', 'no'])
    return target, {
        'kept': {n: target.kept(n) for n in zoo.holders(target)},
        'evicted': target.stats().tokens_evicted,
        'bytes': target.stats().kv_bytes,
        'answers': answers,
        'probabilities': chosen.probabilities,
        'logits': target.logits(zoo.words(model, 12, 99)),
    }


def again(target, model, path):
    """Save a memory and load it; the logits of both for the same words."""
    target.save(path)
    asked = zoo.words(model, 6, 7)
    return [one.logits(asked) for one in (StreamingSession.load(path, model), target)]


def main():
    """Live through all cases as one rank."""
    cases, place = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    torch.set_num_threads(1)
    models, found = {}, []
    for folder, row, fields, *layout in cases:
        try:
            if folder not in models:
                models[folder] = load_model(folder, device='cpu', dtype='float32', tp_plan='auto')
            target, result = live(models[folder], row, fields, *layout)
            result['ranks'] = models[folder].rope.ranks.size
        except ModelError as error:
            result = {'refused': str(error)}
        found.append(result)
    rank = torch.distributed.get_rank()
    model = models[cases[0][0]]
    target, _ = live(model, *cases[0][1:])
    found.append({'again': again(target, model, place / f'memory.{rank}')})
    torch.save(found, place / f'{rank}.pt')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
