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

"""The page of all parameters, ``docs/parameters.md``: printed from the table."""

from __future__ import annotations

from collections.abc import Iterable

from infmllm_ros.node.option import CONFIGURE, LIVE, LOWER, Option, START, yaml_text
from infmllm_ros.node.options import GROUPS, OPTIONS, options_of, PARTS

_HEAD = """\
# Parameters

Made from the table in `infmllm_ros/node/options.py`: change them there, then run
`python -m infmllm_ros.node.parameters_page > docs/parameters.md`. As a file to start from:
[`config/infmllm.yaml`](../config/infmllm.yaml).

*Changes* says when a new value counts:

- *start*: fixed when the process starts; read-only.
- *configure*: read when the node configures. Once it has, `ros2 param set` is refused with a
  reason: deactivate and clean up the node, set it, configure it again.
- *any time*: while the node runs.
- *lower: any time*: while the node runs, up to what it was configured with.

The topics of questions and answers, and `cache_stats`, take parameters
`qos_overrides.TOPIC.KIND.POLICY`: TOPIC is the full name, KIND `publisher` or `subscription`,
and POLICY `history`, `depth`, `reliability` or `durability`. They are read when the node starts,
and are read-only. With `qos_overrides./answer.publisher.durability: transient_local` a
subscriber that comes late gets the last answers, as many as `depth` says (1000); `state` is so
by itself. Images take them too; they are best effort, depth 1, unless these say otherwise, which
matches every camera and keeps no image waiting.
"""
_COLUMNS = ('parameter', 'default', 'allowed', 'changes', 'meaning')
_CHANGES = {START: 'start', CONFIGURE: 'configure', LIVE: 'any time', LOWER: 'lower: any time'}


def render() -> str:
    """Write the table as a page."""
    parts = [_HEAD, '## The node', _table(OPTIONS)]
    for part, about in PARTS.items():
        options = options_of(part)
        title = f'`{part}`' if part in GROUPS else about.partition(':')[0].rstrip('.')
        if options:
            parts += [f'## {title}', _table(options)]
    return '\n\n'.join(part.strip('\n') for part in parts) + '\n'


def _table(options: Iterable[Option]) -> str:
    rows = [_COLUMNS, ['---'] * len(_COLUMNS)]
    for option in options:
        rows.append([f'`{option.name}`', f'`{yaml_text(option.default)}`',
                     option.limit or option.kind, _CHANGES[option.changes],
                     option.description.replace('|', '\\|')])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


if __name__ == '__main__':
    print(render(), end='')
