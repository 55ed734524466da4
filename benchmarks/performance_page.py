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
The tables and the figure of docs/performance.md, from what the benchmarks of speed wrote.

    python -m benchmarks.performance_page
"""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

from .pages import DOCS, markdown, save_figure, write_between
from .timing import DATA

PAGE = DOCS / 'performance.md'
FIGURE = DATA / 'performance.png'
Numbers = dict[str, Any]


def made(numbers: Numbers) -> str:
    """Say with what, and on what, a table was made."""
    on = numbers['machine']
    return (f'`{numbers["command"]}`: {on.get("gpu") or on["processor"]}, {on["threads"]} of '
            f'{on["cores"]} cores, torch {on["torch"]}, transformers {on["transformers"]}, load '
            f'{on["load"][0]}.')


def ms(value: float) -> str:
    """Write milliseconds with three digits that count."""
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def flatness(numbers: Numbers) -> str:
    """Tabulate some windows of the stream."""
    windows, width = numbers['windows'], numbers['window']
    ends = [int(end) for end in windows]
    shown = sorted({min(ends, key=lambda end, part=part: abs(end - part * max(ends)))
                    for part in (0, .25, .5, .75, 1)} | {2 * width})
    table = markdown(
        ('frames', 'median ms', 'p95 ms', 'processor ms', 'resident MiB'),
        ((f'{end - width:,} to {end:,}', ms((one := windows[str(end)])['wall_ms']),
          ms(one['p95_ms']), ms(one['processor_ms']), one['resident_mib']) for end in shown))
    asked, ratio = numbers['first_token'], numbers['old_over_young']
    (early, first), (late, last) = asked.items()
    return (
        f'{table}\n\nTime to first token after {int(early):,} frames: {ms(first["wall_ms"])} ms, '
        f'{ms(first["processor_ms"])} of the processor; after {int(late):,}: '
        f'{ms(last["wall_ms"])} and {ms(last["processor_ms"])}. By turns with a young session, '
        f'the old one takes {ratio["frame"]["wall"]:.3f} times as long for a frame '
        f'({ratio["frame"]["processor"]:.3f} of the processor) and '
        f'{ratio["first_token"]["wall"]:.3f} ({ratio["first_token"]["processor"]:.3f}) for a '
        f'first token. Since the second window the process grew by '
        f'{numbers["growth_mib"]:.2f} MiB, while '
        f'{numbers["evictions"]:,} evictions took tokens from a memory of '
        f'{numbers["budget"]:,}.\n\n{made(numbers)}')


def frames(shape: str, one: Numbers) -> str:
    """Tabulate what a frame costs under each policy."""
    rows, base = one['policies'], one['policies']['streaming_llm']['processor_ms']
    rival = rows['h2o as published']['processor_ms']
    ordered = sorted(rows, key=lambda name: rows[name]['processor_ms'])
    table = markdown(
        ('policy', 'held', 'ms', 'processor ms', 'of `streaming_llm`',
         'faster than H2O as published'),
        ((f'`{name}`' if ' ' not in name else name,
          f'{one["held"].get(name, one["budget"]):,}', ms(rows[name]['wall_ms']),
          ms(spent := rows[name]['processor_ms']), f'{spent / base:.2f}x',
          f'{rival / spent:.1f}x') for name in ordered))
    return (f'**{shape}**, {one["dtype"]}, {one["tokens"]} tokens a frame, budget '
            f'{one["budget"]:,}, medians of {one["rounds"]}. The vision tower takes '
            f'{ms(one["vision"]["wall_ms"])} ms beside it.\n\n{table}')


def profile(shape: str, one: Numbers) -> str:
    """Tabulate the parts of a frame and of a token, with their floors."""
    frame, token = one['frame'], one['token']
    rows = []
    for part in frame['parts']:
        cells = []
        for found in (frame, token):
            floor = found['floors'].get(part)
            cells += [ms(found['parts'][part]), '' if floor is None else ms(floor)]
        if any(cell not in ('', '0') for cell in cells):
            rows.append((part, *cells))
    rate = {name: value / 1e9 for name, value in one['rates'].items()}
    return (
        f'**{shape}**, {one["dtype"]}, `{one["policy"]}`, {one["budget"]:,} held, '
        f'{one["tokens"]} tokens a frame\n\n' + markdown(
            ('part', 'frame ms', 'floor', 'token ms', 'floor'), rows)
        + f'\n\nPython: {frame["python_share"]:.1%} of the frame, {token["python_share"]:.1%} '
        f'of the token. Floors from {rate["operations_per_s"]:.0f} billion operations, '
        f'{rate["copied_bytes_per_s"]:.1f} GB copied and {rate["read_bytes_per_s"]:.1f} GB '
        'read a second.')


def decode(shape: str, one: Numbers) -> str:
    """Tabulate milliseconds a token by the length of the stream."""
    rows = one['lengths']
    names = list(dict.fromkeys(name for row in rows.values() for name in row['ms']))
    table = markdown(
        ('stream', 'held', *(f'{name} (processor)' for name in names)),
        ((f'{int(length):,}', f'{row["held"]:,}', *(
            f'{ms(row["ms"][name]["wall_ms"])} ({ms(row["ms"][name]["processor_ms"])})'
            if name in row['ms'] else '-' for name in names)) for length, row in rows.items()))
    compiling = [f'{row["compile_s"]:.0f} s' for row in rows.values() if 'compile_s' in row]
    return (f'**{shape}**, {one["dtype"]}, budget {one["budget"]:,}: milliseconds a token.'
            f'\n\n{table}'
            + (f'\n\nCompiling took {", ".join(compiling)}.' if compiling else ''))


def layouts(numbers: Numbers) -> str:
    """Tabulate what each layout takes and costs, and what it still knows."""
    rows, exam = numbers['rows'], numbers['exam']
    base = next(iter(rows.values()))
    table = markdown(
        ('layout', 'memory a token', 'memory', 'frame ms (processor)', 'of `fast`',
         'token ms (processor)', 'of `fast`'),
        ((f'`{name}`', f'{one["token_bytes"] / 1024:.1f} KiB',
          f'{one["kv_bytes"] / 2**20:.1f} MiB', *(cell for what in ('frame', 'token') for cell in (
              f'{ms(one[what]["wall_ms"])} ({ms(one[what]["processor_ms"])})',
              f'{one[what]["processor_ms"] / base[what]["processor_ms"]:.2f}x')))
         for name, one in rows.items()))
    sat = markdown(
        ('budget', 'layout', 'right answers', 'share'),
        ((f'{one["budget"]:,}', f'`{one["layout"]}`', f'{one["right"]:,} of {one["asked"]:,}',
          f'{one["right"] / one["asked"]:.3f}') for one in exam['rows']))
    return (f'{numbers["shape"]}, {numbers["dtype"]}, `saddle`, budget {numbers["budget"]:,}, '
            f'{numbers["tokens"]} tokens a frame, medians of {numbers["rounds"]}.\n\n{table}\n\n'
            f'The memory exam of the bundled model, {exam["frames"]:,} frames of each world.\n\n'
            f'{sat}\n\n{made(numbers)}')


def first_token(shape: str, one: Numbers) -> str:
    """Tabulate the time to first token of a bounded memory and of windows computed anew."""
    rows = one['rows']
    base = next(iter(rows.values()))['processor_ms']
    table = markdown(
        ('what the question reads', 'ms', 'processor ms', 'of ours'),
        ((name, ms(row['wall_ms']), ms(row['processor_ms']), f'{row["processor_ms"] / base:.1f}x')
         for name, row in rows.items()))
    return (f'**{shape}**, {one["dtype"]}, {one["frame_tokens"]} tokens a frame, a question of '
            f'{one["question"]}.\n\n{table}')


def flex(name: str, one: Numbers) -> str:
    """Tabulate what FlexPrefill saves of a layer; under the name 'exam', what it costs there."""
    if name == 'exam':
        return (
            f'**The memory exam** of the bundled model: budget {one["budget"]}, {one["streams"]} '
            f'streams of {one["frames"]:,} frames, in backlogs of at most {one["backlog"]}.\n\n'
            + markdown(('prefill', 'of the attention computed', 'right answers', 'share'), (
                (row['label'], f'{row["computed"]:.0%}', f'{row["right"]:,} of {row["asked"]:,}',
                 f'{row["right"] / row["asked"]:.3f}') for row in one['exam'])))
    rows = []
    for row in one['rows']:
        dense, sparse, choosing, rest = (
            row['seconds'][part] for part in ('dense', 'flex', 'choosing', 'rest'))
        rows.append((
            f'{row["chunk"]:,}', f'{row["held"]:,}', f'{row["computed"]:.1%}', f'{dense:.3f}',
            f'{sparse:.3f}', f'{choosing:.3f}', f'{dense / sparse:.1f}x', f'{rest:.3f}',
            f'{(dense + rest) / (sparse + rest):.1f}x', f'{row["error"]:.3f}'))
    return f'**{name}**, one layer of {one["shape"]}, medians of {one["rounds"]}.\n\n' + markdown(
        ('chunk', 'held with it', 'computed', 'dense s', 'flex s', 'of it choosing', 'faster',
         'rest of the layer s', 'whole layer', 'error'), rows)


def by_shape(table: Callable[[str, Numbers], str]) -> Callable[[Numbers], str]:
    """Make the tables of all shapes that were measured, each with what it was made with."""
    return lambda numbers: '\n\n'.join(
        f'{table(shape, one)}\n\n{made(one)}' for shape, one in numbers.items())


def gpu(numbers: Numbers) -> str:
    """Tabulate what a GPU did."""
    rows, kernel, graphs = [], [], []
    for one in numbers['rows']:
        kernel += [f'{one["shape"]}, {one["budget"]:,}, {name}: {how}'
                   for name, how in one['kernel'].items()]
        graphs += [f'{one["shape"]}, {one["budget"]:,}, {name}: {how}'
                   for name, how in one['graphs'].items()]
        for name, value in one['ms'].items():
            floor = one['floor_ms'].get(name)
            rows.append((one['shape'], f'{one["budget"]:,}', name, ms(value), f'{1e3 / value:.1f}',
                         '' if floor is None else ms(floor)))
    return (markdown(('shape', 'budget', '', 'ms', 'a second', 'floor ms'), rows)
            + f'\n\nThe kernel: {"; ".join(kernel)}. Graphs: {"; ".join(graphs) or "none"}.\n\n'
            + made(numbers))


TABLES: dict[str, Callable[[Numbers], str]] = {
    'speed_flatness': flatness, 'speed_frame_cost': by_shape(frames),
    'speed_profile': by_shape(profile), 'speed_decode': by_shape(decode),
    'speed_layouts': layouts, 'speed_first_token': by_shape(first_token),
    'speed_flex': by_shape(flex), 'speed_gpu': gpu}


def tables(folder: Path = DATA) -> dict[str, str]:
    """Make the table of every benchmark that has been run."""
    return {name: table(json.loads(path.read_text())) for name, table in TABLES.items()
            if (path := folder / f'{name}.json').exists()}


def draw(folder: Path = DATA) -> Any:
    """Draw frames over the stream, frames by policy and tokens by length of stream."""
    from matplotlib.figure import Figure  # no window, no global state

    flat, cost, decoding = (json.loads((folder / f'speed_{name}.json').read_text())
                            for name in ('flatness', 'frame_cost', 'decode'))
    figure = Figure(figsize=(13, 3.8), layout='constrained')
    left, middle, right = figure.subplots(1, 3)
    ends = [int(end) for end in flat['windows']]
    left.plot(ends, [one['processor_ms'] for one in flat['windows'].values()])
    left.set(title='a frame, by frames seen before\nthe bundled model', xlabel='frames',
             ylabel='processor ms', ylim=(0, None))
    shape, one = next(iter(cost.items()))
    names = sorted(one['policies'], key=lambda name: one['policies'][name]['processor_ms'])
    middle.barh(names, [one['policies'][name]['processor_ms'] for name in names],
                color=['C3' if ' ' in name else 'C0' if name == 'saddle' else 'C7'
                       for name in names])
    middle.set(title=f'a frame, by policy\n{shape}', xlabel='processor ms')
    shape, one = next(iter(decoding.items()))
    rows = one['lengths']
    for name in next(iter(rows.values()))['ms']:
        right.plot([int(length) for length in rows],
                   [row['ms'][name]['processor_ms'] for row in rows.values()], marker='o', ms=4,
                   label=name, lw=2.5 if name == 'ours' else 1.2)
    right.set(title=f'a token, by length of stream\n{shape}', xlabel='tokens read before',
              ylabel='processor ms', ylim=(0, None))
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=.3)
    return figure


def main() -> None:
    """Write the page's tables and its figure."""
    for name, text in tables().items():
        write_between(PAGE, name, text)
    save_figure(draw(), FIGURE)


if __name__ == '__main__':
    main()
