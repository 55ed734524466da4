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

"""The node's parameters without a node: from parameter files and ``name:=value``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infmllm_ros.bundled import MODEL, MODEL_PARAMETERS
from infmllm_ros.node.option import ParameterError
from infmllm_ros.node.parameters import misspelt, table
import yaml

NODE = 'infmllm'  # name of the node in parameter files
KEY = 'ros__parameters'
_PATTERNS = (NODE, '*', '**')
_OTHERS = ('qos_overrides.', 'use_sim_time')  # parameters of a node that have no meaning here


def read_parameters(files: Iterable[str | Path] = (), assignments: Iterable[str] = (),
                    ) -> dict[str, Any]:
    """
    Read parameters as a node would: later ones count, assignments last.

    Parameters
    ----------
    files : iterable of str or Path
        Parameter files of ROS. What they say of a node named infmllm counts, in any namespace,
        and of all nodes (``/**``).
    assignments : iterable of str
        ``name:=value`` each.

    Returns
    -------
    dict
        Values by name, as given; nothing is checked yet.

    Raises
    ------
    ParameterError
        A file that cannot be read or is of another form; not an assignment.
    """
    values: dict[str, Any] = {}
    for file in files:
        values.update(_read(Path(file)))
    for text in assignments:
        name, equals, value = text.partition(':=')
        if not (equals and name):
            raise ParameterError(f'parameter {text!r} is no assignment: write name:=value')
        try:
            values[name] = yaml.safe_load(value) if value else ''
        except yaml.YAMLError:
            values[name] = value
    return values


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise ParameterError(f'parameter file {file} is no valid YAML: '
                             f'{" ".join(str(error).split())}: correct it there') from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is no text'
        raise ParameterError(f'parameter file {file} cannot be read: {reason}: check the path'
                             ) from None
    found = list(_blocks(tree, ''))
    if not found:
        raise ParameterError(f'parameter file {file} has no parameters for a node {NODE}: begin '
                             f"it with '/**:', and below that '{KEY}:'")
    values: dict[str, Any] = {}
    for block in found:
        values.update(_flat(block, ''))
    return values


def _blocks(tree: Any, path: str) -> Iterable[Mapping[str, Any]]:
    """Find the parameters of nodes that are meant."""
    if not isinstance(tree, dict):
        return
    for key, below in tree.items():
        if key == KEY and isinstance(below, dict):
            if path.rpartition('/')[2] in _PATTERNS:
                yield below
        else:
            yield from _blocks(below, f'{path}/{key}')


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            values.update(_flat(value, f'{prefix}{key}.'))
        else:
            values[f'{prefix}{key}'] = value
    return values


def remapped(assignments: Iterable[str]) -> dict[str, str]:
    """
    Read other names for topics, ``name:=topic`` each.

    Raises
    ------
    ParameterError
        Not of that form.
    """
    names = dict(text.partition(':=')[::2] for text in assignments)
    for name, topic in names.items():
        if not (name and topic):
            raise ParameterError(f'topic {name!r} gets no other name: write name:=topic')
    return names


def complete(given: Mapping[str, Any], cameras: Sequence[str]) -> dict[str, Any]:
    """
    Add all that was not given: the defaults of the table.

    Without a model it is the bundled one, with what belongs to it.

    Parameters
    ----------
    given : mapping
        From `read_parameters`.
    cameras : sequence of str
        Those of the source, which count where no cameras are given.

    Raises
    ------
    ParameterError
        A name that does not exist.
    """
    own = {'cameras': list(cameras), **({} if given.get('model') else MODEL_PARAMETERS)}
    values = {**own, **{name: value for name, value in given.items()
                        if not name.startswith(_OTHERS) and (name, value) != ('model', '')}}
    known = table(values['cameras'] if isinstance(values['cameras'], (list, tuple)) else ())
    close = misspelt(values, values['cameras'])
    if close:
        raise ParameterError(close[0])
    for name in values:
        if name not in known:
            raise ParameterError(f'parameter {name} does not exist: config/infmllm.yaml lists all '
                                 'that do')
    return {**{name: option.default for name, option in known.items()}, **values}


def changed(values: Mapping[str, Any]) -> dict[str, Any]:
    """List those that differ from the defaults of the table; the bundled model goes by name."""
    known = table(values['cameras'])
    named = {**values, 'cameras': tuple(values['cameras']), 'model': model_name(values)}
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in named.items() if value != known[name].default}


def model_name(values: Mapping[str, Any]) -> str:
    """Name the model as given; the folder of the bundled one differs from machine to machine."""
    return 'bundled' if values['model'] == str(MODEL) else values['model']
