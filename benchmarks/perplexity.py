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
Show that perplexity stays flat over millions of tokens while the cache evicts.

Trains a small byte-level Llama (`byte_llama.py`), then streams held-out text through each policy
at one budget and prints perplexity in windows of 50,000 tokens; a figure and a JSON file follow.

Text differs in difficulty from page to page, so the last window of a book against its first one
would compare pages, not caches. Here every window is the same held-out text: passages from all
over the text, kept out of the training, whose order is drawn anew for each window. Between two
windows only the memory differs. What such a design must beware of is copying: a token seen
before is easy to predict if it is still held. Each half of the passages is shuffled in itself, so
that a passage comes again only after more than half a window, 50 budgets or so later, and whether
anything that old is held is counted (`old`).

The control is a fresh session for some of the windows, begun one passage before the window so
that its memory is full when counting starts: streamed over fresh perplexity is the drift alone.
The policy `full` can be no control: it refuses to go on where the model's context ends.

    apt-get download bible-kjv bible-kjv-text    # Debian; public domain, 4.4 MB once unpacked
    for package in bible-kjv*.deb; do dpkg -x $package kjv; done
    kjv/usr/bin/bible -f -p kjv/usr/lib Gen1:1-Rev22:21 > kjv.txt
    python -m benchmarks.perplexity --text kjv.txt --work /tmp/perplexity

Training and streams go on where they stood when the same command is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
from pathlib import Path
import platform
from time import process_time
from typing import Any

from infmllm_ros.engine import (
    ContextFull,
    load_model,
    make_policy,
    StreamingModel,
    StreamingSession,
)
import numpy as np
import torch
from torch.nn import functional
import transformers

from .byte_llama import read, shuffle, split, train
from .pages import markdown, save_figure, write_json
from .timing import processor

PASSAGES, PASSAGE = 25, 2000        # a window: 50,000 tokens
CONTROLS = 7                        # windows with a fresh session
START = ord('\n')                   # every passage follows the end of a line
CHUNK = 250                         # tokens read at a time; divides a passage
WORTH = (16, 64, 256, 512)          # budgets that show what the model makes of its memory, ...
STEP = 20                           # ... read in chunks far below them
UNBOUNDED = 4                       # passages read in one go by the plain model, as a warning
# label: policy of the registry, its options. `saddle`: the package's defaults. `saddle, paper`:
# as the paper is read: no sinks of their own, all of a chunk asks, each layer chooses by itself.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    'saddle': ('saddle', {}),
    'saddle, paper': ('saddle', {'sinks': 0, 'rows': CHUNK, 'scope': 'layer'}),
    'saddle, no bias': ('saddle', {'bias': 0}),
    'streaming_llm': ('streaming_llm', {}),
    'streaming_llm, no sinks': ('streaming_llm', {'sinks': 0}),
    'random': ('random', {}),
}


class Reader:
    """
    Measures how well a session predicts what it is given to read.

    Parameters
    ----------
    session : StreamingSession
        Empty, or one that was read into before.
    last : torch.Tensor, optional
        Logits [1, vocab] after its last token, if it was.
    """

    def __init__(self, session: StreamingSession, last: torch.Tensor | None = None) -> None:
        self.session = session
        self.last = session.logits([START]) if last is None else last

    def read(self, ids: torch.Tensor) -> float:
        """Read token ids [n] into the memory; give the nats that they cost, all n together."""
        logits = torch.cat((self.last, self.session.logits(ids)))
        self.last = logits[-1:].clone()
        target = ids.long().to(logits.device)
        return functional.cross_entropy(
            logits[:-1].float(), target, reduction='none').double().sum().item()


def begin(model: StreamingModel, name: str, options: dict[str, Any], budget: int,
          chunk: int = CHUNK) -> StreamingSession:
    """Start a session with no more headroom than a chunk."""
    return StreamingSession(
        model, make_policy(name, budget, **options), max_question=1, max_answer=1, chunk=chunk)


def stream(model: StreamingModel, name: str, options: dict[str, Any], held: torch.Tensor,
           order: np.ndarray, folder: Path, *, budget: int, chunk: int = CHUNK,
           say: Any = print) -> dict[str, np.ndarray | float]:
    """
    Stream all windows through one session, or go on where an interrupted stream stood.

    Parameters
    ----------
    model : StreamingModel
    name, options
        The policy.
    held : torch.Tensor
        uint8 [passages, size].
    order : numpy.ndarray
        From :func:`shuffle`.
    folder : Path
        For checkpoints; must belong to this stream alone.
    budget, chunk : int
        Tokens kept, tokens read at a time.
    say : callable
        Takes lines of progress.

    Returns
    -------
    dict
        ``nats`` float64 [windows, passages], by number of the passage; ``age`` and ``old``
        [windows]: at the end of each window, the median age in tokens of what is held, and the
        share of it that has seen a passage return; ``seconds`` of processor time, ``evictions``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / 'progress.pt'
    if place.is_file():
        kept = torch.load(place, weights_only=True)
        session = StreamingSession.load(folder / f'memory.{kept["done"]}', model)
        reader = Reader(session, kept['last'].to(model.device))
    else:
        session = begin(model, name, options, budget, chunk)
        kept = {'done': 0, 'seconds': 0.0, 'age': [], 'old': [],
                'nats': torch.zeros(order.shape, dtype=torch.float64)}
        reader = Reader(session)
    size = held.shape[1]
    while kept['done'] < len(order):
        window, start = kept['done'], process_time()
        for passage in order[window]:
            kept['nats'][window, passage] = reader.read(held[passage])
        kept['seconds'] += process_time() - start
        age = session.stats().tokens_seen - 1 - torch.cat([
            session.kept(layer).flatten() for layer in range(len(session.cache.layers))])
        kept['age'].append(age.median().item())
        kept['old'].append((age > size * (order.shape[1] // 2)).double().mean().item())
        kept['done'], kept['last'] = window + 1, reader.last.cpu()
        # the progress names its memory, so a stop between the two writes costs a window at most
        session.save(folder / f'memory.{window + 1}')
        torch.save(kept, folder / 'progress.part')
        os.replace(folder / 'progress.part', place)
        (folder / f'memory.{window}').unlink(missing_ok=True)
        say(f'window {window + 1} of {len(order)}: perplexity '
            f'{math.exp(kept["nats"][window].sum() / held.numel()):.4f}, '
            f'{kept["seconds"]:.0f} s of processor time')
    return {'nats': kept['nats'].numpy(), 'age': np.array(kept['age']),
            'old': np.array(kept['old']), 'seconds': kept['seconds'],
            'evictions': session.stats().evictions}


def restart(model: StreamingModel, name: str, options: dict[str, Any], held: torch.Tensor,
            order: np.ndarray, windows: list[int], *, budget: int, chunk: int = CHUNK,
            ) -> np.ndarray:
    """Read some windows, each with a fresh session: nats, float64 [len(windows), passages]."""
    nats = np.zeros((len(windows), order.shape[1]))
    for row, window in enumerate(windows):
        reader = Reader(begin(model, name, options, budget, chunk))
        reader.read(held[order[window - 1][-1]])       # fills the memory; does not count
        for passage in order[window]:
            nats[row, passage] = reader.read(held[passage])
    return nats


def refusal(model: StreamingModel, held: torch.Tensor) -> int:
    """Count the tokens that the policy `full` takes in before it refuses to go on."""
    session = begin(model, 'full', {}, 0)
    try:
        for part in held.flatten().split(CHUNK):
            session.tell(part)
    except ContextFull:
        pass
    return session.stats().tokens_seen


def worth(model: StreamingModel, held: torch.Tensor, order: np.ndarray) -> dict[int, float]:
    """Give the perplexity of one window by budget: what the model gains from a memory."""
    nats = {budget: restart(model, 'streaming_llm', {}, held, order, [1], budget=budget,
                            chunk=STEP) for budget in WORTH}
    return {budget: round(math.exp(cost.sum() / held.numel()), 5) for budget, cost in nats.items()}


def unbounded(model: StreamingModel, held: torch.Tensor) -> dict[str, list[float]]:
    """Read passages without eviction, far past the context, and with it: perplexity of each."""
    ids = torch.cat((torch.tensor([START]), held.flatten().long())).to(model.device)
    with torch.no_grad():
        logits = model.model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
    plain = functional.cross_entropy(logits, ids[1:], reduction='none').view(held.shape).mean(1)
    reader = Reader(begin(model, 'streaming_llm', {}, 512))
    bounded = [math.exp(reader.read(part) / len(part)) for part in held]
    return {'plain': plain.exp().double().numpy().round(4).tolist(),
            'streaming_llm': np.round(bounded, 4).tolist()}


def summary(run: dict[str, Any], fresh: np.ndarray, controls: list[int], size: int,
            ) -> dict[str, Any]:
    """
    Sum a stream up.

    The first window is left out everywhere: in it the memory fills. The standard errors are of
    paired differences, passage by passage.

    Parameters
    ----------
    run : dict
        From :func:`stream`.
    fresh : numpy.ndarray
        From :func:`restart`, of the windows `controls`.
    controls : list of int
    size : int
        Tokens of a passage.
    """
    rate = run['nats'] / size
    steady = rate[1:].mean(1)
    last = rate[-1] - rate[1]
    drift = (rate[controls] - fresh / size).mean(0)
    million = size * rate.shape[1] * np.arange(len(steady)) / 1e6

    def error(change: np.ndarray) -> float:
        return float(change.std(ddof=1) / len(change) ** 0.5)

    return {
        'perplexity': np.exp(rate.mean(1)).round(5).tolist(),
        'first_full': round(math.exp(steady[0]), 5), 'last': round(math.exp(steady[-1]), 5),
        'lowest': round(math.exp(steady.min()), 5), 'highest': round(math.exp(steady.max()), 5),
        'last_over_first': round(math.exp(last.mean()), 5),
        'last_over_first_error': round(error(last), 5),
        'percent_a_million_tokens': round(100 * np.polyfit(million, steady, 1)[0], 4),
        'fresh_windows': [window + 1 for window in controls],
        'fresh': np.exp((fresh / size).mean(1)).round(5).tolist(),
        'streamed_over_fresh': round(math.exp(drift.mean()), 5),
        'streamed_over_fresh_error': round(error(drift), 5),
        'median_age': float(np.median(run['age'][1:])),
        'old': round(float(run['old'][2:].mean()), 5),
        'evictions': run['evictions'], 'processor_seconds': round(run['seconds'], 1)}


def table(runs: dict[str, dict[str, Any]]) -> str:
    """Write the summaries as a Markdown table."""
    head = ['policy', 'first full window', 'last window', 'last / first', 'lowest to highest',
            'trend, % a million tokens', 'streamed / fresh', 'median age of held tokens',
            'held and old', 'processor s']
    rows = []
    for label, run in runs.items():
        rows.append([
            label, f'{run["first_full"]:.4f}', f'{run["last"]:.4f}',
            f'{run["last_over_first"]:.4f} ± {run["last_over_first_error"]:.4f}',
            f'{run["lowest"]:.4f} to {run["highest"]:.4f}',
            f'{run["percent_a_million_tokens"]:+.3f}',
            f'{run["streamed_over_fresh"]:.4f} ± {run["streamed_over_fresh_error"]:.4f}',
            f'{run["median_age"]:,.0f}', f'{100 * run["old"]:.1f} %',
            f'{run["processor_seconds"]:.0f}'])
    return markdown(head, rows)


def figure(runs: dict[str, dict[str, Any]], window: int, path: Path) -> None:
    """Draw perplexity, and its change since the first full window, over the stream."""
    from matplotlib.figure import Figure  # here: the measurement itself does not need it

    drawing = Figure(figsize=(8, 6), layout='constrained')
    upper, lower = drawing.subplots(2, 1, sharex=True)
    for number, (label, run) in enumerate(runs.items()):
        values, width = np.array(run['perplexity']), 4 * 0.7 ** number   # some lines coincide
        place = (np.arange(len(values)) + 0.5) * window / 1e6
        line, = upper.plot(place, values, label=label, linewidth=width)
        upper.plot(place[np.array(run['fresh_windows']) - 1], run['fresh'], 'o', markersize=4,
                   markerfacecolor='none', color=line.get_color())
        lower.plot(place[1:], 100 * (values[1:] / values[1] - 1), linewidth=width)
    upper.set(ylabel='perplexity a byte',
              title=f'Held-out text in windows of {window:,} tokens; circles: fresh sessions')
    drawing.legend(ncols=3, loc='outside lower center')
    for limit in (-2, 2):
        lower.axhline(limit, color='gray', linestyle='--', linewidth=1)
    lower.set(xlabel='tokens streamed, millions', ylabel='change since window 2, %')
    save_figure(drawing, path)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--text', nargs='+', required=True, help='text files to train on and read')
    parser.add_argument('--work', type=Path, required=True, help='folder for model, checkpoints')
    parser.add_argument('--out', type=Path, default=Path('docs/figures/perplexity.png'))
    parser.add_argument('--tokens', type=int, default=4_000_000)
    parser.add_argument('--budget', type=int, default=512)
    parser.add_argument('--steps', type=int, default=1600, help='of training')
    parser.add_argument('--runs', nargs='+', default=list(RUNS), choices=RUNS, metavar='RUN',
                        help='of ' + '; '.join(RUNS))
    parser.add_argument('--dtype', default='bfloat16', help='of weights and cache; float32 is '
                        'faster on processors without bfloat16 arithmetic')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    if args.tokens < 3 * PASSAGES * PASSAGE:
        parser.error(f'--tokens is {args.tokens}, must be at least {3 * PASSAGES * PASSAGE}')
    return args


def main() -> None:
    """Train, stream, print, draw."""
    args = arguments()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()

    def say(line: str) -> None:
        print(line, flush=True)

    text = read(args.text)
    ids, held = split(text, PASSAGES, PASSAGE)
    training = train(args.work / 'model', ids, args.steps, args.seed, say)
    model = load_model(args.work / 'model', device='cpu', dtype=args.dtype, progress=say)
    windows = args.tokens // held.numel()
    order = shuffle(windows, PASSAGES, args.seed)
    controls = sorted({*np.linspace(1, windows - 1, CONTROLS).round().astype(int).tolist()})
    runs = {}
    for label in args.runs:
        name, options = RUNS[label]
        setting = {'policy': name, 'options': options, 'budget': args.budget, 'chunk': CHUNK,
                   'seed': args.seed, 'windows': windows, 'passages': list(held.shape),
                   'text': hashlib.sha256(text).hexdigest(), 'model': training,
                   'dtype': args.dtype}
        key = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:12]
        folder = args.work / f'{label.replace(", ", "-").replace(" ", "_")}-{key}'
        run = stream(model, name, options, held, order, folder, budget=args.budget,
                     say=lambda line, label=label: say(f'{label}: {line}'))
        done = folder / 'fresh.npy'
        if not done.is_file():
            np.save(done, restart(model, name, options, held, order, controls,
                                  budget=args.budget))
        runs[label] = {'policy': name, 'options': options,
                       **summary(run, np.load(done), controls, PASSAGE)}
    report = {
        'machine': f'{processor()}, {args.threads} thread(s)',
        'versions': {'python': platform.python_version(), 'torch': torch.__version__,
                     'transformers': transformers.__version__, 'numpy': np.__version__},
        'text': {'bytes': len(text), 'sha256': hashlib.sha256(text).hexdigest()},
        'model': training, 'dtype': args.dtype, 'budget': args.budget, 'chunk': CHUNK,
        'seed': args.seed, 'tokens': windows * held.numel(), 'window': held.numel(),
        'passages': PASSAGES, 'passage': PASSAGE, 'full_refuses_after': refusal(model, held),
        'by_budget': worth(model, held, order), 'passages_without_eviction':
        unbounded(model, held[:UNBOUNDED]), 'runs': runs}
    figure(runs, held.numel(), args.out)
    write_json(args.out.with_suffix('.json'), report)
    say(f'\n{report["machine"]}, torch {torch.__version__}, transformers '
        f'{transformers.__version__}\n{training["parameters"]:,} parameters, budget '
        f'{args.budget}, chunk {CHUNK}, {report["tokens"]:,} tokens in windows of '
        f'{held.numel():,}; full refuses after {report["full_refuses_after"]:,} tokens\n'
        f'perplexity by budget, chunk {STEP}: {report["by_budget"]}\nby passage, evicting and '
        f'not: {report["passages_without_eviction"]}\n\n{table(runs)}')


if __name__ == '__main__':
    main()
